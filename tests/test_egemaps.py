"""Functionals of openSMILE take the way of an exported checkpoint: whole or absent, continued, refused with a reason."""

import csv
import os
import subprocess
import sys

import numpy as np
import pandas
import pytest

from ser_jax import cli
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UserError
from ser_jax.export import functionals
from ser_jax.export.features import read_features


@pytest.fixture(scope="module", autouse=True)
def without_tensorflow():
    """Where another test has loaded TensorFlow into this process, which openSMILE would crash, these run in one of their own."""
    if "tensorflow" in sys.modules:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", __file__]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
        pytest.skip("ran in a process of its own, as TensorFlow is loaded in this one")


@pytest.fixture(scope="module")
def opensmile():
    return pytest.importorskip("opensmile", reason="needs the [opensmile] extra")


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return PreparedCorpus(tiny_corpus)


@pytest.fixture(scope="module")
def exported(opensmile, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("functionals") / "f.parquet"
    functionals.export("eGeMAPSv02", corpus, out, jobs=1)
    return out


def test_the_command_writes_the_functionals_of_opensmile(opensmile, exported, tiny_corpus, corpus, tmp_path, capsys):
    out = tmp_path / "f.csv"
    assert cli.main(["export", "--functionals", "eGeMAPSv02", "--corpus", str(tiny_corpus), "--out", str(out),
                     "--jobs", "2"]) == 0
    said = capsys.readouterr()
    assert "32 rows of eGeMAPSv02 (88 values)" in said.out and said.err.count("non-commercial") == 1
    ours, theirs = read_features(out), read_features(exported)  # two processes, and one
    pandas.testing.assert_frame_equal(ours.table, theirs.table)
    assert (ours.embedding == theirs.embedding).all() and ours.metadata == theirs.metadata

    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    for row in (0, 17):
        expected = smile.process_signal(corpus.speech(row) / np.float32(32768), 16_000)
        np.testing.assert_array_equal(ours.embedding[row], expected.to_numpy(np.float32)[0])
    assert ours.metadata["names"] == smile.feature_names
    assert ours.table["id"].tolist() == corpus.index["id"].tolist()
    np.testing.assert_allclose(ours.table["end"], corpus.index["num_samples"] / 16_000)
    for column in ("speaker_id", "gender", "emotion", "text", "split", "audio_sha256"):
        assert ours.table[column].tolist() == corpus.index[column].tolist()
    assert not ours.table["seen_in_pretraining"].any()
    assert (ours.metadata["kind"], ours.metadata["layer"], ours.layers) == ("egemaps", "eGeMAPSv02", ["egemaps"])
    assert ours.select_layers(["egemaps"]).embedding.shape == (32, 88)
    assert sorted(os.listdir(tmp_path)) == ["f.csv", "f.csv.json"]


def test_pitch_tells_the_voices(exported):
    found = read_features(exported)
    pitch = found.embedding[:, found.metadata["names"].index("F0semitoneFrom27.5Hz_sma3nz_amean")]
    long, female = found.table["end"] > 0.4, found.table["gender"] == "female"
    assert pitch[long & female].min() > pitch[long & ~female].max()


def test_an_interrupted_export_computes_only_what_is_missing(exported, corpus, tmp_path, monkeypatch):
    out, compute, rows = tmp_path / "f.parquet", functionals._functionals, []

    def noted(row):
        if len(rows) == limit:
            raise KeyboardInterrupt
        rows.append(row)
        return compute(row)

    monkeypatch.setattr(functionals, "_functionals", noted)
    limit = 25
    with pytest.raises(KeyboardInterrupt):
        functionals.export("eGeMAPSv02", corpus, out, jobs=1, part_utterances=10)
    assert os.listdir(tmp_path) == ["f.parquet.parts"]
    rows, limit = [], 99
    functionals.export("eGeMAPSv02", corpus, out, jobs=1, part_utterances=10)
    assert rows == list(range(20, 32))
    assert read_features(out).metadata == read_features(exported).metadata  # its features_hash too
    rows = []
    functionals.export("eGeMAPSv01a", corpus, tmp_path / "other.parquet", jobs=1)
    assert len(rows) == 32  # of another set
    assert (read_features(tmp_path / "other.parquet").embedding != read_features(exported).embedding).any()
    assert sorted(os.listdir(tmp_path)) == ["f.parquet", "other.parquet"]


def test_what_is_not_finite_is_in_a_ledger(opensmile, corpus, tmp_path, monkeypatch):
    out, ledger = tmp_path / "f.parquet", tmp_path / "f.parquet.rejects.csv"

    def deaf(row):
        return np.where((np.arange(88) == 1) & (row == 3), np.nan, np.float32(row))

    monkeypatch.setattr(functionals, "_functionals", deaf)
    with pytest.raises(UserError, match="1 of 32 utterances are not finite, more than --max-rejects 0.01"):
        functionals.export("eGeMAPSv02", corpus, out, jobs=1)
    assert ledger.exists() and not out.exists()
    functionals.export("eGeMAPSv02", corpus, out, jobs=1, max_rejects=0.1)
    refused = corpus.index["id"].iloc[3]
    rows = list(csv.DictReader(ledger.open()))
    assert [(row["id"], row["path"]) for row in rows] == [(refused, corpus.index["source"].iloc[3])]
    assert rows[0]["reason"].startswith("not finite: F0semitone")
    found = read_features(out)
    assert found.embedding[:, 0].tolist() == [float(row) for row in range(32) if row != 3]
    assert refused not in set(found.table["id"])


@pytest.mark.parametrize(("options", "message"), [
    (["--functionals", "eGeMAPS02"], "--functionals eGeMAPS02: unknown (did you mean 'eGeMAPSv02'?); known: eGeMAPSv02"),
    (["--functionals", "eGeMAPSv02", "--jobs", "0"], "--jobs 0: must be at least 1"),
    (["--functionals", "eGeMAPSv02", "--layer", "gcu_*"], "--layer goes with --workdir, not with --functionals"),
    (["--functionals", "eGeMAPSv02", "--out", "f.h5"], "--out f.h5: end it in one of"),
    ([], "give the --workdir of a pretraining run, or --functionals or --frames or --fuse"),
])
def test_wrong_options_are_one_line_and_exit_2(tiny_corpus, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "--corpus", str(tiny_corpus), "--out", "f.csv", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_process_with_tensorflow_is_not_crashed(tiny_corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    assert cli.main(["export", "--functionals", "eGeMAPSv02", "--corpus", str(tiny_corpus), "--out", str(tmp_path / "f.csv")]) == 1
    assert "openSMILE and TensorFlow crash a process" in capsys.readouterr().err


def test_without_opensmile_the_extra_is_named(tiny_corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    command = ["export", "--functionals", "eGeMAPSv02", "--corpus", str(tiny_corpus), "--out", str(tmp_path / "f.csv")]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert "pip install 'ser_jax[opensmile]'" in error and "non-commercial" in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_the_help_tells_the_licence(capsys):
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    assert "non-commercial use only" in " ".join(capsys.readouterr().out.split())
