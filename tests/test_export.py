"""Export: an embedding depends on its utterance alone; the file is whole or absent; an interrupted export continues."""

import csv
import importlib.util
import io
import os
import re
import resource
import sys
import textwrap
import types
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest
from corpus_files import prepare_tree, speaker_voice, write_audio, write_table

from ser_jax import cli, sharding
from ser_jax.checkpoint import Trained
from ser_jax.data import batches
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError, UserError
from ser_jax.export import features
from ser_jax.export import parts as parts_module
from ser_jax.export.embed import Embedder
from ser_jax.export.features import FORMATS, read_features
from ser_jax.export.run import export

ALL = "mean+max+std"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def trained(trained_workdir):
    return Trained(trained_workdir)


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return PreparedCorpus(tiny_corpus)


@pytest.fixture(autouse=True, scope="module")
def compile_once():
    """Every export builds its own jitted function; the session's cache keeps them from being compiled again."""
    use = sharding.use_compilation_cache

    def from_now_on():
        use()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "use_compilation_cache", from_now_on)
        from_now_on()
        yield
    use()


# ------------------------------------------------------------------------------------------------ invariance


def embeddings_of_all(workdir, corpus, devices=None, batch_size=4):
    """{"<utterance>/<piece>": values} of every utterance of a corpus, as a fresh process would compute them."""
    trained, corpus = Trained(workdir), PreparedCorpus(corpus)
    return _embed(Embedder(trained, "features", ALL, 0.3, batch_size, devices), corpus)


def _embed(embedder, corpus, rows=None):
    rows = range(len(corpus)) if rows is None else rows
    lengths = [corpus.index["num_samples"].iloc[row] for row in rows]
    pieces, _ = batches.pieces_of(lengths, embedder.network.task, embedder.seconds)
    return {f"{corpus.index['id'].iloc[rows[piece.row]]}/{piece.number}": value
            for piece, value in embedder.run(lambda i: corpus.speech(rows[i]), pieces)}


def _assert_same(ours, theirs, names=None):
    assert names or ours.keys() == theirs.keys()
    for name in names or ours:
        a, b = ours[name], theirs[name]
        assert a.shape == b.shape, name
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max() > 0, name


@pytest.mark.parametrize("layer", ["features", "block_1"])
def test_an_embedding_depends_on_its_utterance_alone(trained, corpus, layer, monkeypatch):
    short = corpus.index.index[corpus.index["num_samples"].isin([3_200, 8_000])].tolist()  # two buckets
    embedder = Embedder(trained, layer, ALL, "whole", 4)
    reference = _embed(embedder, corpus, short)
    assert len(reference) == 16 and len({tuple(value) for value in reference.values()}) == 16
    channels = {"features": 12, "block_1": 8}[layer]
    assert {value.shape for value in reference.values()} == {(3 * channels,)}

    _assert_same(_embed(embedder, corpus, short[::-1]), reference)  # order
    for row in short[:3]:  # company
        alone = _embed(embedder, corpus, [row])
        _assert_same(alone, reference, alone.keys())
    _assert_same(_embed(embedder, corpus, [short[0]] * 7 + short[5:9]), reference, [f"{corpus.index['id'].iloc[short[5]]}/0"])
    monkeypatch.setattr(batches, "padded_length", lambda length, seconds: 11_111)  # padding, bucket, batch size
    for batch_size in (1, 5) if layer == "features" else (5,):
        _assert_same(_embed(Embedder(trained, layer, ALL, "whole", batch_size), corpus, short), reference)


def test_frames_are_those_that_are_pooled(trained, corpus):
    rows = corpus.index.index[corpus.index["num_samples"] < 4_000].tolist()
    frames = _embed(Embedder(trained, "features", "none", "whole", 4), corpus, rows)
    pooled = _embed(Embedder(trained, None, ALL, "whole", 4), corpus, rows)
    lengths = dict(zip(corpus.index["id"], corpus.index["num_samples"], strict=True))
    for name, value in frames.items():
        assert value.shape == (lengths[name.split("/")[0]] // 81, 12)
        np.testing.assert_allclose(np.concatenate([value.mean(0), value.max(0), value.std(0)]), pooled[name], atol=2e-6)
    other = _embed(Embedder(trained, None, "max+mean", "whole", 4), corpus, rows)
    for name, value in other.items():
        np.testing.assert_allclose(value, np.concatenate([pooled[name][12:24], pooled[name][:12]]), atol=1e-6)


def test_layers_stand_side_by_side(trained, corpus):
    rows = corpus.index.index[corpus.index["num_samples"] < 4_000].tolist()
    several = Embedder(trained, "features,block_[13]", "mean+std", "whole", 8)
    assert several.layers == ["block_1", "block_3", "features"]  # the order of the net, not of the alphabet or the option
    assert several.columns == [{"layer": "block_1", "start": 0, "stop": 16}, {"layer": "block_3", "start": 16, "stop": 48},
                               {"layer": "features", "start": 48, "stop": 72}]
    found = _embed(several, corpus, rows)
    for column in several.columns:
        alone = _embed(Embedder(trained, column["layer"], "mean+std", "whole", 8), corpus, rows)
        for name, value in alone.items():
            np.testing.assert_allclose(found[name][column["start"]:column["stop"]], value, atol=1e-6)
    assert Embedder(trained, "*").layers == ["stem", "block_1", "block_2", "block_3", "features"]
    assert Embedder(trained, "features, features,f*").layers == ["features"]


def test_steps_of_several_layers_stand_side_by_side(trained, corpus):
    frames = _embed(Embedder(trained, "block_3,features", "none", "whole", 4), corpus, [0, 1])
    alone = _embed(Embedder(trained, "features", "none", "whole", 4), corpus, [0, 1])
    for name, value in frames.items():
        assert value.shape == (len(alone[name]), 16 + 12)
        np.testing.assert_allclose(value[:, 16:], alone[name], atol=1e-6)
    with pytest.raises(UsageError, match="--pooling none: block_2 has .* steps where block_1 has .*; export them one by"):
        Embedder(trained, "block_[12]", "none")


def test_the_model_says_what_is_taken_by_default(trained):
    ours = Embedder(trained)
    assert (ours.layers, ours.pooling, ours.seconds) == (["features"], "mean+max", 5.0)
    assert Embedder(trained, seconds="whole").seconds is None


def test_all_gated_units_of_a_wavenet_depend_on_their_utterance_alone(corpus, monkeypatch):
    from ser_jax.config import Experiment
    from ser_jax.models.wavenet import WaveNetConfig
    from ser_jax.network import Network
    from ser_jax.tasks.ctc import CTCConfig

    experiment = Experiment("wavenet", WaveNetConfig(channels=6), CTCConfig())
    network, random = Network(experiment), np.random.default_rng(0)
    params, stats = jax.tree.map(lambda leaf: leaf + 0.1 * np.abs(random.standard_normal(leaf.shape).astype(leaf.dtype)),
                                 network.init(0))
    trained = types.SimpleNamespace(experiment=experiment, network=network, params=params, stats=stats)
    embedder = Embedder(trained, batch_size=4)
    assert (embedder.layers, embedder.pooling, embedder.seconds) == ([f"gcu_{i:02d}" for i in range(1, 16)], "mean", None)
    rows = corpus.index.index[corpus.index["num_samples"].isin([3_200, 8_000])].tolist()
    reference = _embed(embedder, corpus, rows)
    assert len({tuple(value) for value in reference.values()}) == 16 == len(reference)
    layers = np.stack(list(reference.values())).reshape(16, 15, 6)
    assert (layers.std(axis=0) > 1e-4).all()  # every value of every layer tells utterances apart
    _assert_same(_embed(embedder, corpus, rows[::-1]), reference)
    alone = _embed(embedder, corpus, rows[:1])
    _assert_same(alone, reference, alone.keys())
    monkeypatch.setattr(batches, "padded_length", lambda length, seconds: 17_777)
    _assert_same(_embed(Embedder(trained, batch_size=5), corpus, rows), reference)


def test_eight_devices_give_the_embeddings_of_one(trained_workdir, tiny_corpus, eight_devices):
    with np.load(eight_devices / "embeddings.npz") as theirs:
        ours = embeddings_of_all(trained_workdir, tiny_corpus)
        assert sorted(ours) == sorted(theirs.files)
        _assert_same(ours, {name: theirs[name] for name in ours})


def test_wrong_layers_and_poolings_are_named(trained):
    with pytest.raises(UsageError, match="--layer block_11: .*did you mean .?block_1"):
        Embedder(trained, "block_11")
    with pytest.raises(UsageError, match="--layer x: .*block_1.*features"):
        Embedder(trained, "x")
    with pytest.raises(UsageError, match="--layer blok_.: .*did you mean"):
        Embedder(trained, "features,blok_*")
    with pytest.raises(UsageError, match="--pooling mean,max: .*did you mean"):
        Embedder(trained, pooling="mean,max")
    with pytest.raises(UsageError, match="--pooling none: .*mean, max, std"):
        Embedder(trained, pooling="mean+none")
    with pytest.raises(UsageError, match="--batch-size 0"):
        Embedder(trained, batch_size=0)


# ------------------------------------------------------------------------------------------------ the file


@pytest.fixture(scope="module")
def exported(trained, corpus, tmp_path_factory):
    """Features of all pieces of 0.3 s, in one part."""
    out = tmp_path_factory.mktemp("exported") / "f.parquet"
    export(trained, corpus, out, seconds=0.3)
    return out


def test_what_is_in_the_file(exported, trained, corpus, tiny_experiment):
    found = read_features(exported)
    table, index = found.table, corpus.index
    assert found.embedding.shape == (16 * 2 + 8 * 2 + 8 * 4 - 8, 24)
    assert table["id"].drop_duplicates().tolist() == index["id"].tolist()  # the order of the corpus
    chunks = table.groupby("id")["chunk"].apply(list)
    assert chunks["s1_0"] == [0] and chunks["s1_1"] == [0, 1] and chunks["s1_3"] == [0, 1, 2, 3]
    last = table[(table["id"] == "s1_3")].iloc[-1]
    assert (last["start"], last["end"]) == (pytest.approx(0.83), 1.13)
    labels = ["corpus", "speaker_id", "gender", "split", "text", "emotion", "language", "audio_sha256"]
    pandas.testing.assert_frame_equal(table[["id", *labels]].drop_duplicates().reset_index(drop=True),
                                      index[["id", *labels]], check_dtype=False)
    np.testing.assert_allclose(table["valence"].drop_duplicates().sort_values(), [0, 1 / 3, 2 / 3, 1])

    metadata = found.metadata
    assert metadata["checkpoint"] == {"hash": trained.hash, "step": 3, "workdir": "tiny"}
    assert metadata["corpus"] == {"name": "tiny", "fingerprint": corpus.fingerprint, "synthetic": False}
    assert (metadata["kind"], metadata["layer"], metadata["pooling"], metadata["chunk_seconds"]) == (
        "sample_cnn", "features", "mean+max", 0.3)
    assert metadata["columns"] == [{"layer": "features", "start": 0, "stop": 24}] and found.layers == ["features"]
    assert metadata["experiment"]["model"]["filters"] == list(tiny_experiment.model.filters)
    assert metadata["linguistic"] is False and metadata["pretrained_synthetic"] is False
    assert os.listdir(exported.parent) == ["f.parquet"]  # no part, no ledger, no temporary file is left


def test_seen_in_pretraining_marks_exactly_the_utterances_of_training_and_its_evaluation(exported, trained_workdir):
    used = pandas.read_parquet(trained_workdir / "pretrained_on.parquet").set_index("id")["part"]
    assert used.value_counts().to_dict() == {"train": 16, "dev": 8, "": 8}
    table = read_features(exported).table
    assert set(table.loc[table["seen_in_pretraining"], "id"]) == set(used.index[used.isin(["train", "dev"])])
    assert set(table.loc[~table["seen_in_pretraining"], "speaker_id"]) == {"s7", "s8"}


@pytest.mark.parametrize("suffix", sorted(set(FORMATS) - {".parquet"}))
def test_every_format_holds_the_same(exported, trained, corpus, suffix, tmp_path):
    export(trained, corpus, tmp_path / f"f{suffix}", seconds=0.3)
    ours, theirs = read_features(tmp_path / f"f{suffix}"), read_features(exported)
    pandas.testing.assert_frame_equal(ours.table, theirs.table)
    assert (ours.embedding == theirs.embedding).all()
    assert ours.metadata == theirs.metadata


def test_layers_of_a_file_can_be_taken_apart(trained_workdir, tiny_corpus, trained, corpus, tmp_path):
    out = tmp_path / "f.parquet"
    assert cli.main(["export", "--workdir", str(trained_workdir), "--corpus", str(tiny_corpus), "--out", str(out),
                     "--layer", "block_*", "--pooling", "mean", "--chunk-seconds", "0.3"]) == 0
    found = read_features(out)
    assert found.embedding.shape == (72, 32) and found.layers == ["block_1", "block_2", "block_3"]
    assert found.metadata["layer"] == "block_*"
    alone = _embed(Embedder(trained, "block_3", "mean", 0.3), corpus)
    some = found.select_layers(["block_3"])
    for name, chunk, value in zip(some.table["id"], some.table["chunk"], some.embedding):
        np.testing.assert_allclose(value, alone[f"{name}/{chunk}"], atol=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_are_rows_of_their_own(trained, corpus, suffix, tmp_path):
    out = tmp_path / f"f{suffix}"
    export(trained, corpus, out, seconds=0.3, pooling="none", layer="block_3", part_utterances=9)
    found = read_features(out)
    lengths = corpus.index.set_index("id")["num_samples"]
    steps = found.table.groupby(["id", "chunk"])["frame"].apply(list)
    assert steps["s2_0", 0] == list(range(lengths["s2_0"] // 81)) and steps["s2_3", 3] == list(range(4_800 // 81))
    assert found.embedding.shape == (len(found.table), 16)
    pooled = _embed(Embedder(trained, "block_3", "mean", 0.3), corpus)
    mean = pandas.DataFrame(found.embedding).groupby([found.table["id"], found.table["chunk"]]).mean()
    np.testing.assert_allclose(mean.loc[("s2_3", 1)], pooled["s2_3/1"], atol=1e-6)
    shuffled = features.Features(found.table.iloc[::-1], found.embedding[::-1], {})
    assert features.content_hash(shuffled) == found.metadata["features_hash"]


def test_a_head_on_frames_votes_per_utterance(trained, corpus, tmp_path):
    from ser_jax.heads.cross_validation import cross_validate

    export(trained, corpus, tmp_path / "f.npz", seconds=0.3, pooling="none", layer="block_3")
    found = read_features(tmp_path / "f.npz")
    row = cross_validate(found.rows(found.table["frame"] < 3), target="gender", protocol="official").row
    assert row["n"] == 8  # utterances of the split "test", not their frames
    assert "TRANSDUCTIVE" not in row["stamps"]


# ------------------------------------------------------------------------------------------------ interruptions


class Killed(BaseException):
    pass


@pytest.fixture
def parts(monkeypatch):
    """Counts the parts that are computed; `die_after` of them the process is killed."""
    compute = parts_module._part

    class Count(list):
        die_after = None
        junk = False

    def counted(work, corpus, pieces, progress):
        if made.die_after is not None and len(made) >= made.die_after:
            raise Killed
        made.append(sorted({piece.row for piece in pieces}))
        if made.junk:
            zeros = np.zeros((len(made[-1]), work.metadata["columns"][-1]["stop"]))
            return features.Features(corpus.index.iloc[made[-1]][["id"]], zeros, work.metadata)
        return compute(work, corpus, pieces, progress)

    made = Count()
    monkeypatch.setattr(parts_module, "_part", counted)
    return made


def _stored(out):
    return {path: path.stat().st_mtime_ns for path in out.with_name(out.name + ".parts").rglob("part-*")}


def test_an_interrupted_export_computes_only_what_is_missing(trained, corpus, exported, parts, tmp_path):
    out = tmp_path / "f.parquet"
    parts.die_after = 2
    with pytest.raises(Killed):
        export(trained, corpus, out, seconds=0.3, part_utterances=10)
    assert not out.exists()
    stored = _stored(out)
    assert len(stored) == 2 and parts == [list(range(10)), list(range(10, 20))]
    (next(iter(stored)).parent / ".part-00002.parquet.1.tmp").write_bytes(b"half a part")
    parts.clear()
    parts.die_after = 1
    with pytest.raises(Killed):
        export(trained, corpus, out, seconds=0.3, part_utterances=10)
    assert {path: _stored(out)[path] for path in stored} == stored
    parts.clear()
    parts.die_after = None
    export(trained, corpus, out, seconds=0.3, part_utterances=10)
    assert parts == [[30, 31]]
    assert read_features(out).metadata["features_hash"] == read_features(exported).metadata["features_hash"]
    assert os.listdir(tmp_path) == ["f.parquet"]


def test_parts_of_other_settings_are_never_used(trained, trained_workdir, corpus, exported, parts, tmp_path):
    out = tmp_path / "f.parquet"
    other = Trained(trained_workdir)
    other.params = jax.tree.map(lambda leaf: leaf * 1.5, other.params)
    other.hash = "another"
    parts.junk = True
    for stale in ({"trained": other}, {"layer": "block_1"}, {"pooling": "max"}, {"seconds": "whole"}, {"part_utterances": 16}):
        settings = {"trained": trained, "seconds": 0.3, "part_utterances": 10, **stale}
        parts.die_after = len(parts) + 1
        with pytest.raises(Killed):
            export(settings.pop("trained"), corpus, out, **settings)
    assert len(_stored(out)) == 5
    parts.clear()
    parts.die_after, parts.junk = None, False
    export(trained, corpus, out, seconds=0.3, part_utterances=10)
    assert len(parts) == 4
    assert (read_features(out).embedding == read_features(exported).embedding).all()
    assert sorted(os.listdir(tmp_path)) == ["f.parquet", "f.parquet.parts"]
    assert len(_stored(out)) == 5  # an interrupted export with other settings can still be continued


@pytest.fixture
def disk_of():
    """Lets files grow to so many bytes, which fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("suffix", "sizes"), [(".parquet", [2_000]), (".npz", [2_000, 27_000]), (".csv", [27_000])]  # a part needs 20 kB
)
def test_a_full_disk_ends_in_one_line_and_the_same_command_finishes(
        exported, trained_workdir, tiny_corpus, suffix, sizes, parts, tmp_path, capsys, disk_of):
    out = tmp_path / f"f{suffix}"
    command = ["export", "--workdir", str(trained_workdir), "--corpus", str(tiny_corpus), "--out", str(out),
               "--chunk-seconds", "0.3"]
    for size in sizes:
        disk_of(size)
        code = cli.main(command)
        disk_of(None)
        error = [line for line in capsys.readouterr().err.splitlines() if "pieces" not in line]
        name = "part-00000" if size == 2_000 else out.name
        assert code == 1 and len(error) == 1 and name in error[0] and "run the same command again" in error[0]
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("part-")]
    assert cli.main(command) == 0
    assert len(parts) == len(sizes) + (27_000 not in sizes)  # the finished part is kept
    assert read_features(out).metadata["features_hash"] == read_features(exported).metadata["features_hash"]


# ------------------------------------------------------------------------------------------------ rejects, options


@pytest.fixture(scope="module")
def short_corpus(tmp_path_factory):
    """Eight utterances, two of them too short to embed."""
    root = tmp_path_factory.mktemp("short")
    rows = [{"path": write_audio(root / f"u{i}.wav", speaker_voice(i, 0.11 if i < 2 else 0.3, i)).name, "id": f"u{i}",
             "speaker_id": f"s{i}"} for i in range(8)]
    write_table(root / "manifest.csv", rows)
    return prepare_tree("manifest", root, root / "prepared", {"name": "short"}, shards=1)


def test_too_short_utterances_are_in_a_ledger(trained, corpus, short_corpus, tmp_path, capsys):
    out, ledger = tmp_path / "f.csv", tmp_path / "f.csv.rejects.csv"
    with pytest.raises(UserError, match="2 of 8 utterances are too short to embed, more than --max-rejects 0.01; see"):
        export(trained, short_corpus, out, seconds=0.3)
    assert os.listdir(tmp_path) == [ledger.name]
    export(trained, short_corpus, out, seconds=0.3, max_rejects=0.25)
    assert "6 rows" in capsys.readouterr().out
    assert set(read_features(out).table["id"]) == {f"u{i}" for i in range(2, 8)}
    rows = list(csv.DictReader(ledger.open()))
    assert [(row["id"], row["path"]) for row in rows] == [
        (name, f"{name}.wav") for name in short_corpus.index["id"] if name in ("u0", "u1")]
    assert rows[0]["reason"] == "1760 samples, shorter than 2000"
    export(trained, corpus, out, seconds=0.3)
    assert not ledger.exists()  # it was that of another export


def test_a_corpus_of_nothing_but_short_utterances_is_refused(trained, short_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(short_corpus, "_index", short_corpus.index[short_corpus.index["num_samples"] < 2_000])
    with pytest.raises(UserError, match="all 2 utterances are too short"):
        export(trained, short_corpus, tmp_path / "f.csv", max_rejects=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "f.h5"], "--out f.h5: end it in one of .parquet, .npz, .csv"),
        (["--layer", "fetures"], "--layer fetures: .*did you mean .?features"),
        (["--layer", "block_*,"], "--layer : unknown.*known: stem, block_1, "),
        (["--pooling", "men"], "--pooling men: .*did you mean .?mean"),
        (["--pooling", "none", "--layer", "*"], "--pooling none: block_1 has "),
        (["--jobs", "2"], "--jobs goes with --functionals, not with --workdir"),
        (["--functionals", "eGeMAPSv02"], "--workdir and --functionals: give one of them"),
        (["--chunk-seconds", "inf"], "--chunk-seconds inf: give a length in seconds, or 'whole'"),
        (["--chunk-seconds", "0"], "--chunk-seconds 0: give a length in seconds, or 'whole'"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--step", "7"], r"has checkpoints of steps \[3\]"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(trained_workdir, tiny_corpus, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["export", "--workdir", str(trained_workdir), "--corpus", str(tiny_corpus), "--out", "f.csv", *options]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------ several processes


def test_two_processes_write_what_one_writes(exported, trained_workdir, tiny_corpus, tmp_path):
    specification = importlib.util.spec_from_file_location("launch_local", REPOSITORY / "launch" / "local.py")
    local = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(local)
    out, program = tmp_path / "f.parquet", textwrap.dedent("""
        import sys
        from ser_jax.sharding import initialize_from_environment
        initialize_from_environment()
        import jax
        from ser_jax import cli
        from ser_jax.checkpoint import Trained
        from ser_jax.data.prepared import PreparedCorpus
        from ser_jax.export import parts, run
        workdir, corpus, out, scores = sys.argv[1:]
        assert jax.process_count() == 2 and jax.local_device_count() == 2
        part = parts._part
        def noted(work, corpus, pieces, progress):
            print("part of rows", sorted({piece.row for piece in pieces}))
            return part(work, corpus, pieces, progress)
        parts._part = noted
        run.export(Trained(workdir), PreparedCorpus(corpus), out, seconds=0.3, part_utterances=10)
        import os
        del os.environ["SER_JAX_COORDINATOR"]  # joined already
        sys.exit(cli.main(["evaluate", workdir, "--corpus", corpus, "--out", scores]))
        """)
    command = [sys.executable, "-c", program, *map(str, (trained_workdir, tiny_corpus, out, tmp_path / "scores"))]
    told, errors = io.BytesIO(), io.BytesIO()
    code = local.run([command] * 2, local.environments(2, 2), out=told, err=errors)
    assert code == 0, errors.getvalue().decode()
    lines = told.getvalue().decode().splitlines()
    shares = {k: [line.split("part of rows ")[1] for line in lines if line.startswith(f"[{k}] part")] for k in (0, 1)}
    assert shares == {0: [str(list(range(10))), str(list(range(20, 30)))], 1: [str(list(range(10, 20))), "[30, 31]"]}

    ours, theirs = read_features(out), read_features(exported)
    pandas.testing.assert_frame_equal(ours.table, theirs.table)
    assert np.abs(ours.embedding - theirs.embedding).max() <= 1e-5 * np.abs(theirs.embedding).max()
    assert not list(tmp_path.glob("*.parts"))

    from ser_jax.results import read_rows
    together = read_rows(tmp_path / "scores")
    assert cli.main(["evaluate", str(trained_workdir), "--corpus", str(tiny_corpus), "--out", str(tmp_path / "one")]) == 0
    alone = read_rows(tmp_path / "one")
    numbers = ("split", "value", "ci", "n", "n_speakers", "confusion")
    assert [[row[name] for name in numbers] for row in together] == [[row[name] for name in numbers] for row in alone]
