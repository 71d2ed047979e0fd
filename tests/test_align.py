"""`ser-jax align`: thirds of phones, a CTM file, voice activity, forced alignment; what is absent or refused."""

import types

import numpy as np
import pandas
import pytest
from corpus_files import prepare_tree, voice, write_audio, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import write_tree
from timit_tree import SILENT, segments, timit_files

from ser_jax import alignment, cli, evaluate
from ser_jax.corpora.phones import MODELLED, TRANSCRIBED, to_48
from ser_jax.data.frame_labels import FrameLabels
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.data.segments import modelled, read_ctm, thirds
from ser_jax.errors import UserError
from ser_jax.tasks.emotion_frames import EmotionFramesConfig
from ser_jax.tasks.phone_states import PhoneStatesConfig

OF_SX37 = ["sil", "sh", "iy", "hh", "ae", "vcl", "d", "y", "er", "vcl", "jh", "s", "uw", "sil"]  # 61 -> 48, without q


@pytest.fixture(scope="module")
def timit(tmp_path_factory):
    root = tmp_path_factory.mktemp("timit")
    write_tree(root / "TIMIT", timit_files({"FCJF0": "TRAIN/DR1", "MDAC0": "TRAIN/DR1", "FAKS0": "TEST/DR1"}))
    return prepare_tree("timit", root / "TIMIT", root / "prepared", shards=1).path


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A corpus without phones: `a` and `b` with a voice in the middle, `c` and `d` of noise."""
    root, rows = tmp_path_factory.mktemp("others"), []
    rng = np.random.default_rng(0)
    sizes = {"a": 9600, "b": 9800, "c": 9000, "d": 8400}  # all of them are padded to one length
    hiss = {name: rng.normal(0, 30, size) for name, size in sizes.items()}
    hiss["a"][3200:6400] += voice(120, 0.2)
    hiss["b"][4000:8000] += voice(220, 0.25)
    for name, sound in hiss.items():
        write_audio(root / f"{name}.wav", sound.astype(np.int16))
        rows.append({"path": f"{name}.wav", "id": name, "speaker_id": name})
    write_table(root / "manifest.csv", rows)
    return prepare_tree("manifest", root, root / "prepared", {"name": "others"}, shards=1).path


def align(*words):
    return cli.main(["align", *map(str, words)])


def ids(path):
    return sorted(PreparedCorpus(path).index["id"])


def centre(frame):
    return 160 * frame + 200


def test_phones_of_timit(timit, tmp_path, capsys):
    out = tmp_path / "labels/thirds.parquet"
    assert align(timit, "--from", "phones", "--out", out) == 0
    labels = FrameLabels([out])
    assert (labels.kind, labels.phone_set, labels.phones) == ("phone states", "timit", MODELLED)
    assert labels.classes[:4] == ("aa_1", "aa_2", "aa_3", "ae_1") and len(labels.classes) == 144
    assert sorted(labels.ids) == ids(timit) and len(labels.ids) == 6
    fingerprint = PreparedCorpus(timit).fingerprint
    assert labels.meta["corpora"] == [{"name": "timit", "fingerprint": fingerprint, "synthetic": False}]
    assert (labels.meta["window"], labels.meta["hop"], labels.meta["source"]) == (400, 160, {"from": "phones"})
    assert list(labels.transcript("FCJF0_SX37")) == OF_SX37
    found, samples = labels.labels("FCJF0_SX37"), segments()[-1][2]
    assert len(found) == 1 + (samples - 400) // 160 and (found >= 0).all()
    for frame, state in enumerate(found):
        label, start, end = next(part for part in segments() if part[1] <= centre(frame) < part[2])
        if label == "q":  # belongs to the phone before it
            label, start = "iy", next(part[1] for part in segments() if part[0] == "iy")
        elif label == "iy":
            end = next(part[2] for part in segments() if part[0] == "q")
        inside = [f for f in range(len(found)) if start <= centre(f) < end]
        third = 3 * (inside.index(frame) + 0.5) // len(inside)
        assert labels.classes[state] == f"{to_48(label)}_{int(third) + 1}"
    text = capsys.readouterr().out
    assert "utterances   6 of 6" in text and "100.0% labelled" in text and str(out) in text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3000), st.integers(0, 500)), max_size=12),
       st.integers(0, 120))
def test_thirds(parts, num_frames):
    """Every frame from the definition, one at a time; parts are (phone, length, gap before)."""
    numbers, found, time = {"a": 0, "b": 1, "c": 2}, [], 0
    for phone, length, gap in parts:
        found.append(("abc"[phone], time + gap, time + gap + length))
        time += gap + length
    expected = np.full(num_frames, -1)
    for phone, start, end in found:
        inside = [f for f in range(num_frames) if start <= centre(f) < end]
        for k, frame in enumerate(inside):
            expected[frame] = 3 * numbers[phone] + int(3 * (k + 0.5) / len(inside))
    got = thirds(found, numbers, num_frames)
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(TRANSCRIBED), max_size=12))
def test_modelled_phones_cover_the_same_time(labels):
    parts = [(label, 100 * i, 100 * i + 100) for i, label in enumerate(labels)]
    found = modelled(parts)
    assert [label for label, _, _ in found] == [to_48(label) for label in labels if label != "q"]
    if found:
        assert found[0][1] == 0 and found[-1][2] == 100 * len(labels)
        assert all(a[2] == b[1] for a, b in zip(found[:-1], found[1:]))


def test_phones_of_another_corpus(tmp_path):
    pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")
    corpus = prepare_tree("espeak", None, tmp_path / "prepared", {"speakers": 6, "utterances": 1}, shards=1)
    assert align(corpus.path, "--from", "phones", "--out", tmp_path / "own.parquet") == 0
    labels = FrameLabels([tmp_path / "own.parquet"])
    record = corpus.record(2)
    assert labels.phone_set == "own" and "sil" in labels.phones and list(labels.phones) == sorted(labels.phones)
    assert labels.transcript(record.id) == tuple(label for label, _, _ in record.phones)
    assert (labels.labels(record.id) >= 0).all() and labels.meta["corpora"][0]["synthetic"]


def test_records_without_phones(timit, others, tmp_path, capsys):
    assert align(others, "--from", "phones", "--out", tmp_path / "none.parquet") == 1
    error = capsys.readouterr().err
    assert "a, b, c, d: no phones in the record" in error and "no utterance has frame labels" in error
    assert align(timit, others, "--from", "phones", "--out", tmp_path / "none.parquet") == 2
    assert "align them into files of their own" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctm(timit, tmp_path, capsys):
    lines = [";; a comment", ""]
    for label, start, end in reversed(segments()):
        place = "" if label == "h#" else "_B" if start < 6000 else "_E"
        label = "SIL" if label == "h#" else to_48(label)
        if label:
            lines.append(f"FCJF0_SX37 1 {start / 16_000:.4f} {(end - start) / 16_000 + 2e-5:.5f} {label}{place} 1.00")
    path = tmp_path / "phones.ctm"
    path.write_text("\n".join([*lines, "someone_else 1 0.0 0.5 aa_S"]))
    assert align(timit, "--from", f"ctm:{path}", "--out", tmp_path / "ctm.parquet") == 0
    text = capsys.readouterr()
    assert "1 utterances of" in text.err and "e.g. someone_else" in text.err
    assert "FAKS0_SX37" in text.err and f"not in {path}" in text.err and f"5  not in {path}" in text.out
    labels = FrameLabels([tmp_path / "ctm.parquet"])
    assert labels.phone_set == "timit" and labels.phones == MODELLED and list(labels.ids) == ["FCJF0_SX37"]
    assert list(labels.transcript("FCJF0_SX37")) == OF_SX37
    assert align(timit, "--from", "phones", "--out", tmp_path / "thirds.parquet") == 0
    same = FrameLabels([tmp_path / "thirds.parquet"]).labels("FCJF0_SX37")
    found = labels.labels("FCJF0_SX37")
    around = [centre(f) for f in range(len(found))]  # q is a gap here
    quiet = np.array([any(label in ("iy", "q") and start <= time < end for label, start, end in segments())
                      for time in around])
    np.testing.assert_array_equal(found[~quiet], same[~quiet])
    assert (found == -1).sum() == 5  # the frames of q


@pytest.mark.parametrize("labels, phone_set, phones", [
    (("h#", "tcl", "hv", "q"), "timit", MODELLED), (("cl", "er", "sil"), "timit", MODELLED),
    (("SPN", "SIL", "AH0"), "own", ("AH0", "SPN", "sil"))])
def test_phone_set_of_a_ctm_file(timit, tmp_path, labels, phone_set, phones):
    path = tmp_path / "phones.ctm"
    path.write_text("\n".join(f"FCJF0_SX37 1 {i / 10} 0.1 {label}" for i, label in enumerate(labels)))
    assert align(timit, "--from", f"ctm:{path}", "--out", tmp_path / "ctm.parquet") == 0
    found = FrameLabels([tmp_path / "ctm.parquet"])
    assert (found.phone_set, found.phones) == (phone_set, phones)


@pytest.mark.parametrize("line", [
    "u 1 0.0 0.1", "u 1 zero 0.1 aa", "u 1 0.0 -0.1 aa", "u 1 nan 0.1 aa", "u 1 0.0 inf aa"])
def test_broken_ctm(tmp_path, line):
    path = tmp_path / "phones.ctm"
    path.write_text(f"u 1 0.0 0.1 aa\n{line}\n")
    with pytest.raises(UserError, match="phones.ctm, line 2: not UTTERANCE CHANNEL START DURATION PHONE"):
        read_ctm(path)


def test_voice(timit, others, tmp_path, capsys):
    out = tmp_path / "voice.parquet"
    assert align(others, timit, "--from", "voice", "--out", out, "--batch-size", 3) == 0
    labels = FrameLabels([out])
    assert (labels.kind, labels.classes, labels.phones) == ("voice activity", ("silence", "voice"), ())
    assert sorted(labels.ids) == sorted(ids(others) + ids(timit)) and labels.transcript("a") == ()
    first = 160 * np.arange(len(labels.labels("a")))
    assert labels.labels("a")[(first >= 3200) & (first + 400 <= 6400)].mean() > 0.9
    assert not labels.labels("a")[(first + 400 <= 3200) | (first >= 6400)].any() and not labels.labels("c").any()
    found, frames = labels.labels("FCJF0_SX37"), range(len(labels.labels("FCJF0_SX37")))
    names = np.array([next(label for label, start, end in segments() if start <= centre(f) < end) for f in frames])
    assert found[np.isin(names, ["iy", "ae", "axr", "ux"])].mean() > 0.9 and found[np.isin(names, SILENT)].mean() < 0.3
    share = np.concatenate([labels.labels(name) for name in labels.ids]).mean()
    assert f"{share:.1%} with voice" in capsys.readouterr().out


def test_voice_does_not_depend_on_the_batches(others, tmp_path, monkeypatch):
    for name, size in (("one", 1), ("all", 4)):
        assert align(others, "--from", "voice", "--out", tmp_path / f"{name}.parquet", "--batch-size", size) == 0
    monkeypatch.setattr(alignment, "SAMPLES_AT_ONCE", 20_000)  # two rows
    assert align(others, "--from", "voice", "--out", tmp_path / "few.parquet") == 0
    one, *more = (FrameLabels([tmp_path / f"{name}.parquet"]) for name in ("one", "all", "few"))
    for name in ids(others):
        for other in more:
            np.testing.assert_array_equal(other.labels(name), one.labels(name))


@pytest.fixture
def net(timit, tmp_path, monkeypatch):
    """A folder that passes for a trained net, whose posteriors are sure of labels that the test chooses."""
    assert align(timit, "--from", "phones", "--out", tmp_path / "thirds.parquet") == 0
    config = PhoneStatesConfig(labels=(str(tmp_path / "thirds.parquet"),), phones=MODELLED, phone_set="timit")
    believed = {name: np.array(FrameLabels(config.labels).labels(name)) for name in ids(timit)}
    network = types.SimpleNamespace(task=config.build())
    heard = pandas.DataFrame({"id": ["unheard"], "part": ["train"]})  # nothing of these transcripts: priors of all of them
    trained = types.SimpleNamespace(network=network, params={}, stats={}, hash="abc", step=7, synthetic=False, utterances=heard,
                                    experiment=types.SimpleNamespace(name="tiny"))

    def predict(network, params, stats, corpora, table, mesh, batch_size):
        scores = []
        for name in table["id"]:
            log_posteriors = np.full((len(believed[name]), 144), np.log(0.1 / 143), np.float32)
            log_posteriors[np.arange(len(believed[name])), believed[name]] = np.log(0.9)
            scores.append({"log_posteriors": log_posteriors})
        return scores

    monkeypatch.setattr(alignment, "Trained", lambda workdir, step: trained)
    monkeypatch.setattr(alignment, "AT_ONCE", 4)
    monkeypatch.setattr(evaluate, "predict", predict)
    (tmp_path / "net").mkdir()
    return tmp_path / "net", believed, trained


def test_forced_alignment_follows_the_net_within_the_transcript(timit, net, tmp_path):
    """What the net believes is kept where the transcript allows it, here: every phone 2 frames later than by hand."""
    workdir, believed, _ = net
    by_hand = FrameLabels([tmp_path / "thirds.parquet"])
    for name, labels in believed.items():
        believed[name] = np.concatenate([[labels[0]] * 2, labels[:-2]])
    believed["FCJF0_SX37"][20:23] = 3 * MODELLED.index("zh")  # a phone that is not in the transcript
    assert align(timit, "--from", workdir, "--out", tmp_path / "net.parquet") == 0
    found = FrameLabels([tmp_path / "net.parquet"])
    assert sorted(found.ids) == ids(timit) and found.classes == by_hand.classes
    assert found.meta["source"] == {
        "from": "net", "experiment": "tiny", "checkpoint": "abc", "step": 7, "synthetic": False}
    for name in ids(timit):
        assert found.transcript(name) == by_hand.transcript(name)
        states = found.labels(name)[np.r_[True, np.diff(found.labels(name)) != 0]]
        assert states.tolist() == [3 * MODELLED.index(phone) + third
                                   for phone in found.transcript(name) for third in range(3)]
        assert len(found.labels(name)) == len(by_hand.labels(name))
        inside = np.arange(len(believed[name])) < len(believed[name]) - 4  # the last silence is cut short
        if name != "FCJF0_SX37":
            assert (found.labels(name) == believed[name])[inside].mean() > 0.95
    assert (found.labels("FCJF0_SX37") == believed["FCJF0_SX37"]).mean() > 0.8


def test_what_a_net_cannot_align(timit, others, net, tmp_path, capsys):
    workdir, believed, trained = net
    believed["MDAC0_SX37"] = believed["MDAC0_SX37"][:3 * len(OF_SX37) - 1]
    assert align(timit, others, "--from", workdir, "--out", tmp_path / "net.parquet") == 0
    text = capsys.readouterr()
    assert "MDAC0_SX37: fewer frames than its phones have states" in text.err
    assert "a, b, c, d: no transcript in" in text.err and "utterances   5 of 10" in text.out
    (tmp_path / "thirds.parquet").rename(tmp_path / "elsewhere.parquet")
    trained.network.task = trained.network.task.config.build()
    assert align(timit, "--from", workdir, "--out", tmp_path / "again.parquet") == 1
    error = capsys.readouterr().err
    assert "that the net was trained on, is not there" in error and "--transcripts" in error
    assert not (tmp_path / "again.parquet").exists()
    words = ["--from", workdir, "--out", tmp_path / "again.parquet", "--transcripts"]
    assert align(timit, *words, tmp_path / "elsewhere.parquet") == 0
    assert align(timit, "--from", "voice", "--out", tmp_path / "voice.parquet") == 0
    assert align(timit, *words, tmp_path / "voice.parquet") == 1
    assert "holds voice activity, this task needs phone states" in capsys.readouterr().err


def test_a_net_of_another_task(timit, net, tmp_path, capsys):
    workdir, _, trained = net
    trained.network.task = EmotionFramesConfig().build()
    assert align(timit, "--from", workdir, "--out", tmp_path / "net.parquet") == 2
    assert "was not trained on phone states" in capsys.readouterr().err


@pytest.mark.parametrize("words, message", [
    (["--from", "fones", "--out", "x.parquet"], "--from fones: no such folder; give phones, ctm:FILE, voice"),
    (["--from", "phones", "--out", "x.csv"], "--out x.csv: name a .parquet file"),
    (["--from", "voice", "--out", "x.parquet", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
    (["--from", "voice", "--out", "x.parquet", "--transcripts", "y.parquet"], "--transcripts is for --from WORKDIR"),
    (["--from", "ctm:none.ctm", "--out", "x.parquet"], "none.ctm: cannot be read (No such file or directory)"),
])
def test_wrong_use_is_one_line(timit, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert align(timit, *words) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_corpus_named_twice(timit, tmp_path, capsys):
    assert align(timit, timit, "--from", "phones", "--out", tmp_path / "x.parquet") == 2
    assert "is in another of the corpora too" in capsys.readouterr().err
