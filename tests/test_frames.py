"""Frames as features: the start of an utterance as a front end gives it, how much of it is valid, and nothing else."""

import csv
import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ser_jax import cli
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UserError
from ser_jax.export import formats, frames, parts
from ser_jax.export.features import Features, content_hash, extractor_hash, layer_columns, read_features, write_features

SECONDS, STEPS, BANDS = 0.5, 48, 26  # (8000 − 400) // 160 + 1 frames


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return PreparedCorpus(tiny_corpus)


@pytest.fixture(scope="module")
def exported(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("frames") / "f.parquet"
    assert cli.main(["export", "--frames", "logmel26", "--corpus", str(corpus.path), "--out", str(out),
                     "--chunk-seconds", str(SECONDS)]) == 0
    return out


def test_the_frames_are_those_of_the_front_end(exported, corpus):
    from ser_jax.audio.logmel import LogMel, logmel

    found, index = read_features(exported), corpus.index
    values, counts = found.frames("logmel26")
    assert values.shape == (32, STEPS, BANDS) and np.shares_memory(values, found.embedding)
    assert found.frame_layers == found.layers == ["logmel26"]
    for row in range(0, 32, 5):
        speech = corpus.speech(row)[:8_000]
        alone, _ = logmel(speech[None] / np.float32(32768), np.ones((1, len(speech)), bool), LogMel())
        assert counts[row] == alone.shape[1] == 1 + (len(speech) - 400) // 160
        np.testing.assert_allclose(values[row, :counts[row]], alone[0], atol=1e-4)
        assert not values[row, counts[row]:].any()
    assert set(counts) == {18, 31, 48}  # of 0.2, 0.33, 0.5 and 1.13 s
    assert found.table["id"].tolist() == index["id"].tolist() and not found.table["chunk"].any()
    np.testing.assert_allclose(found.table["end"], np.minimum(index["num_samples"] / 16_000, SECONDS))
    for column in ("speaker_id", "gender", "emotion", "text", "split", "audio_sha256"):
        assert found.table[column].tolist() == index[column].tolist()
    assert not found.table["seen_in_pretraining"].any()
    metadata = found.metadata
    assert (metadata["kind"], metadata["layer"], metadata["chunk_seconds"]) == ("frames", "logmel26", SECONDS)
    assert metadata["front_end"]["bands"] == BANDS and metadata["front_end"]["high_hz"] == 6500
    assert metadata["corpus"]["fingerprint"] == corpus.fingerprint
    assert os.listdir(exported.parent) == ["f.parquet"]


def test_an_interrupted_export_computes_only_what_is_missing(exported, corpus, tmp_path, monkeypatch):
    out, compute, made = tmp_path / "f.npz", parts._part, []

    def counted(work, corpus, pieces, progress):
        if len(made) == limit:
            raise KeyboardInterrupt
        made.append([piece.row for piece in pieces])
        return compute(work, corpus, pieces, progress)

    monkeypatch.setattr(parts, "_part", counted)
    limit = 2
    with pytest.raises(KeyboardInterrupt):
        frames.export("logmel26", corpus, out, seconds=SECONDS, batch_size=8, part_utterances=12)
    assert os.listdir(tmp_path) == ["f.npz.parts"]
    made, limit = [], 9
    frames.export("logmel26", corpus, out, seconds=SECONDS, batch_size=8, part_utterances=12)
    assert made == [list(range(24, 32))]
    ours, theirs = read_features(out), read_features(exported)  # other batches, parts and format
    np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=1e-4)
    pd.testing.assert_frame_equal(ours.table, theirs.table)
    assert os.listdir(tmp_path) == ["f.npz"]


def test_utterances_without_a_frame_are_in_a_ledger(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(frames.FRAMES, "long", {"window": 4_000, "hop": 400, "fft": 4_096})  # a quarter of a second
    out, ledger = tmp_path / "f.parquet", tmp_path / "f.parquet.rejects.csv"
    with pytest.raises(UserError, match="8 of 32 utterances are too short for a frame, more than --max-rejects 0.01"):
        frames.export("long", corpus, out, seconds=0.25)
    assert os.listdir(tmp_path) == [ledger.name]
    frames.export("long", corpus, out, seconds=0.25, max_rejects=0.25)
    refused = [(row["id"], row["reason"]) for row in csv.DictReader(ledger.open())]
    short = corpus.index["id"][corpus.index["num_samples"] == 3_200]
    assert refused == [(name, "3200 samples, shorter than 4000") for name in short] and len(refused) == 8
    found = read_features(out)
    assert found.table["id"].tolist() == [name for name in corpus.index["id"] if name not in set(short)]
    values, counts = found.frames("long")
    assert values.shape == (24, 1, 26) and set(counts) == {1}


def test_frames_of_any_corpus_are_of_one_extractor(exported):
    metadata, size = read_features(exported).metadata, 1 + STEPS * BANDS
    ours = extractor_hash(metadata, size)
    assert extractor_hash({**metadata, "corpus": {"name": "other"}, "versions": {}}, size) == ours
    for key, value in (("front_end", {**metadata["front_end"], "floor": 1e-6}), ("chunk_seconds", 0.501)):
        assert extractor_hash({**metadata, key: value}, size) != ours


@pytest.mark.parametrize(("options", "message"), [
    (["--out", "f.csv"], "--out f.csv: end it in one of .parquet, .npz"),
    (["--frames", "logmel62"], "--frames logmel62: unknown (did you mean 'logmel26'?); known: logmel26"),
    (["--chunk-seconds", "whole"], "--chunk-seconds whole: give at least the 0.025 s of one frame"),
    (["--chunk-seconds", "0.02"], "--chunk-seconds 0.02: give at least the 0.025 s of one frame"),
    (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
    (["--functionals", "eGeMAPSv02"], "--functionals and --frames: give one of them"),
    (["--pooling", "mean"], "--pooling goes with --workdir, not with --frames"),
])
def test_wrong_options_are_one_line_and_exit_2(tiny_corpus, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "--frames", "logmel26", "--corpus", str(tiny_corpus), "--out", "f.npz", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------ layers of frames


def layer_of(values, counts):
    """Values of a layer of frames, float32[N, 1 + T·D], from float[N, T, D] and int[N]."""
    valid = np.arange(values.shape[1]) < np.asarray(counts)[:, None]
    flat = np.where(valid[..., None], values, 0).reshape(len(values), -1)
    return np.concatenate([np.asarray(counts)[:, None], flat], axis=1).astype(np.float32)


def _features(embedding, columns):
    table = pd.DataFrame({"id": [f"u{i}" for i in range(len(embedding))]})
    return Features(table, embedding, {"kind": "frames", "layer": "x", "columns": columns})


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@given(shape=st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3)), seed=st.integers(0, 99),
       slice_values=st.integers(1, 40))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_survive_files_that_are_written_and_read_in_slices(tmp_path, suffix, shape, seed, slice_values):
    rng = np.random.default_rng(seed)
    (rows, steps, size), counts = shape, rng.integers(0, shape[1] + 1, shape[0])
    values, vectors = rng.standard_normal(shape), rng.standard_normal((rows, 2)).astype(np.float32)
    layer = layer_of(values, counts)
    columns = [*layer_columns(["ae"], [2]),
               {"layer": "mel", "start": 2, "stop": 2 + layer.shape[1], "frames": [steps, size]}]
    features, path = _features(np.concatenate([vectors, layer], axis=1), columns), tmp_path / f"f{suffix}"
    whole = content_hash(features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "SLICE", slice_values)
        assert write_features(features, path) == whole
        found = read_features(path)
    assert (found.embedding == features.embedding).all() and found.frame_layers == ["mel"]
    some = found.select_layers(["mel"]).rows(counts > 0)  # its place changes, what it is does not
    assert some.metadata["columns"] == [{"layer": "mel", "start": 0, "stop": layer.shape[1], "frames": [steps, size]}]
    mel, valid = some.frames("mel")
    assert mel.shape == (int((counts > 0).sum()), steps, size) and valid.tolist() == counts[counts > 0].tolist()
    assert (mel[:, 0] == values[counts > 0, 0].astype(np.float32)).all()
    assert found.select_layers(["ae"]).embedding.tolist() == vectors.tolist()


def test_what_are_no_frames_is_refused(tmp_path):
    columns = [{"layer": "mel", "start": 0, "stop": 7, "frames": [3, 2]}, {"layer": "ae", "start": 7, "stop": 8}]
    embedding = np.zeros((3, 8), np.float32)
    for count in (4, -1, 1.5, np.nan):
        embedding[1, 0] = count
        with pytest.raises(UserError, match="layer mel of 'u1' has .* frames of 3"):
            _features(embedding, columns).frames("mel")
    embedding[1, 0] = 3
    features = _features(embedding, columns)
    assert features.frames("mel")[1].tolist() == [0, 3, 0]
    for name in ("ae", "mle"):
        with pytest.raises(UserError, match=f"no layer '{name}' of frames in the features; layers of frames: mel"):
            features.frames(name)
    with pytest.raises(UserError, match=r"f.csv: layer mel holds frames, .* must end in .parquet or .npz"):
        write_features(features, tmp_path / "f.csv")
    assert not list(tmp_path.iterdir())
    write_features(features.select_layers(["ae"]), tmp_path / "f.csv")
    sidecar = tmp_path / "f.csv.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "columns": [{**columns[0], "stop": 1}]}))
    with pytest.raises(UserError, match="f.csv: .*other than 1 . 6 values"):
        read_features(tmp_path / "f.csv")
