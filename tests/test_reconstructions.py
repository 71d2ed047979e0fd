"""Reconstructions by autoencoders in `ser-jax report --reconstructions`."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax import config, sharding
from ser_jax.audio import audeep
from ser_jax.checkpoint import Checkpoints
from ser_jax.cli import main
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UserError
from ser_jax.files import write_json
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.network import Network
from ser_jax.report import page, reconstructions, rows
from ser_jax.tasks.reconstruction import ReconstructionConfig, ReconstructionTask


@pytest.fixture(scope="module")
def autoencoder(tiny_experiment, tiny_corpus, tmp_path_factory):
    """Workdir of a tiny autoencoder as it was initialised; of the speakers only s7 and s8 count as unseen."""
    workdir = tmp_path_factory.mktemp("runs") / "ae"
    experiment = dataclasses.replace(
        tiny_experiment, name="ae", model=AutoencoderConfig(units=3, layers=1),
        task=ReconstructionConfig(bucket_seconds=(1.0,)),
    )  # fmt: skip
    network = Network(experiment)
    params, stats = jax.jit(lambda: network.init(0))()
    state = {"params": params, "stats": stats, "opt": {"count": jnp.zeros(1)}, "step": jnp.int32(1)}
    with Checkpoints(workdir, 1, network.task.eval_metric) as checkpoints:
        checkpoints.save(1, state, {network.task.eval_metric: 0.0})
        checkpoints.wait()
    index = PreparedCorpus(tiny_corpus).index
    used = index[["corpus", "id", "speaker_id", "audio_sha256"]].assign(part=index["split"])
    used.to_parquet(workdir / "pretrained_on.parquet")
    write_json(workdir / "config.json", {**config.to_dict(experiment), "prepared": []})
    (workdir / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 0.5}\n')
    return workdir


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """What the learning curves of another task need."""
    workdir = tmp_path_factory.mktemp("runs") / "asr"
    write_json(workdir / "config.json", {"task": {"kind": "ctc"}})
    (workdir / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 9.5}\n')
    return workdir


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_unseen_ones_come_first_then_as_many_speakers_as_there_are(utterances, random):
    table = pd.DataFrame(utterances, columns=["speaker_id", "seen", "usable"])
    table["id"] = [f"u{i}" for i in range(len(table))]
    chosen = reconstructions.choose(table, table["usable"].to_numpy(), table["seen"].to_numpy(), 4)
    taken, left = table.iloc[chosen], table[table["usable"] & ~table.index.isin(chosen)]
    assert len(taken) == min(4, table["usable"].sum()) and taken["usable"].all() and chosen == sorted(set(chosen))
    if taken["seen"].any():
        assert left["seen"].all()  # none is taken that was seen while one is left that was not
    of_one_kind = taken[taken["seen"] == taken["seen"].any()]
    twice = of_one_kind["speaker_id"].duplicated().any()
    unheard = set(left.loc[left["seen"] == taken["seen"].any(), "speaker_id"]) - set(taken["speaker_id"])
    assert not (twice and unheard)
    order = list(table.index)
    random.shuffle(order)
    again = table.iloc[order]  # the order of the index does not matter
    found = reconstructions.choose(again, again["usable"].to_numpy(), again["seen"].to_numpy(), 4)
    assert set(again["id"].iloc[found]) == set(taken["id"])


def test_the_error_is_that_of_all_values():
    target = np.zeros((4, 128), np.float32)
    target[0] = 1
    shown = reconstructions.Shown("u", "s", target, np.zeros_like(target), 0.2, 0.2, False)
    assert shown.rmse == pytest.approx(0.5)


@pytest.fixture(scope="module")
def both(autoencoder, tiny_corpus, tmp_path_factory):
    """The reconstructions by the autoencoder, and by a copy of it that has seen everything."""
    sharding.use_compilation_cache()  # one program for all of this file
    other = tmp_path_factory.mktemp("copy") / "other"
    shutil.copytree(autoencoder, other)
    pd.read_parquet(other / "pretrained_on.parquet").assign(part="dev").to_parquet(other / "pretrained_on.parquet")
    return reconstructions.reconstruct([autoencoder, other], tiny_corpus)


def test_two_checkpoints_are_shown_the_same_utterances(both, tiny_corpus):
    one, two = both
    assert [each.name for each in both] == ["ae", "other"] and "every frame" in one.how and one.hash == two.hash
    assert [each.id for each in one.shown] == [each.id for each in two.shown]
    assert len({each.speaker for each in one.shown}) == reconstructions.UTTERANCES
    assert [each.seen for each in one.shown] == [each.speaker not in ("s7", "s8") for each in one.shown]
    assert all(each.seen for each in two.shown) and two.stamps == ["TRANSDUCTIVE"]
    corpus = PreparedCorpus(tiny_corpus)
    place = {name: row for row, name in enumerate(corpus.index["id"])}
    spectrogram = jax.jit(audeep.spectrogram)
    for each, other in zip(one.shown, two.shown):
        speech = corpus.speech(place[each.id])[:16_000].astype(np.float32) / 2**15
        x = np.pad(speech, (0, 16_000 - len(speech)))[None]
        target, mask = spectrogram(x, np.arange(16_000)[None] < len(speech))
        np.testing.assert_allclose(each.target, np.asarray(target[0][mask[0]]), atol=1e-4)
        np.testing.assert_array_equal(each.output, other.output)
        assert each.output.shape == each.target.shape and 0 < each.rmse < 2
        assert each.whole == pytest.approx(corpus.index["num_samples"].iloc[place[each.id]] / 16_000)
        assert each.seconds == pytest.approx(min(1.0, each.whole))


def test_the_page_shows_them_beside_the_curves(autoencoder, recogniser, tiny_corpus, tmp_path, capsys):
    out = tmp_path / "r.html"
    command = ["report", "--workdir", str(autoencoder), "--workdir", str(recogniser), "--reconstructions"]
    assert main([*command, str(tiny_corpus), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    section = text[text.index('<h2 id="reconstructions">') :]
    found = re.findall(
        r'<th scope="row">([^<]*)</th><td>([^<]*)</td><td class="number">([^<]*)</td><td>([^<]*)</td>', section
    )
    assert len(found) == reconstructions.UTTERANCES and {speaker for _, speaker, *_ in found} == {"s7", "s8"}
    assert all(about.endswith("; not seen in pretraining") for *_, about in found)
    assert all(name.startswith(speaker) and 0 < float(rmse) < 2 for name, speaker, rmse, _ in found)
    assert "reconstructions by 1 autoencoder" in text and "Learning curves of asr" in text
    assert (tmp_path / "r_reconstructions_1.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.glob("r_rec*")) == ["r_reconstructions_1.png"]
    assert main([*command[:1], *command[5:], str(tiny_corpus), "--out", str(out)]) == 2
    assert "--workdir" in capsys.readouterr().err


def test_what_cannot_be_reconstructed_is_named(recogniser, autoencoder, tiny_corpus, tmp_path, monkeypatch):
    logs, _ = rows.read_logs([recogniser])
    with pytest.raises(UserError, match="no --workdir of an autoencoder"):
        reconstructions.of_logs(logs, tiny_corpus)
    with pytest.raises(UserError, match="is not a prepared corpus"):
        page.render([], [autoencoder], tmp_path / "r.html", reconstructions=tmp_path)
    monkeypatch.setattr(ReconstructionTask, "pieces", lambda self, samples, seconds: [])
    with pytest.raises(UserError, match="no utterance is long enough"):
        reconstructions.reconstruct([autoencoder], tiny_corpus)
