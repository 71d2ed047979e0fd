"""Files side by side: every value under its own id and layer, the extractor known by what it is, not by file names."""

import csv
import os

import numpy as np
import pandas as pd
import pytest
from test_frames import layer_of

from ser_jax import cli
from ser_jax.errors import UserError
from ser_jax.export import fuse
from ser_jax.export.features import Features, extractor_hash, layer_columns, read_features, write_features
from ser_jax.heads.linear import LinearModel, load_head, save_head

IDS = [f"u{i}" for i in range(6)]


def _write(path, embedding, ids=IDS, *, columns=None, kind="autoencoder", checkpoint="a", corpus="one", **metadata):
    """A features file; columns of the table beside the ids may be given as `table`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    embedding = np.asarray(embedding, np.float32)
    columns = layer_columns(["representation"], [embedding.shape[1]]) if columns is None else columns
    table = pd.DataFrame({"id": ids, "speaker_id": [name[-1] for name in ids], "emotion": "sad",
                          **metadata.pop("table", {})})
    about = {"kind": kind, "layer": ",".join(column["layer"] for column in columns), "columns": columns,
             "pooling": "mean", "checkpoint": checkpoint and {"hash": checkpoint},
             "corpus": {"name": corpus, "fingerprint": corpus}, **metadata}
    write_features(Features(table, embedding, about), path)
    return path


def _vectors(seed, rows=6, size=3):
    return np.random.default_rng(seed).standard_normal((rows, size)).astype(np.float32)


def _mel(path, seed=0, **more):
    values, counts = np.random.default_rng(seed).standard_normal((6, 4, 2)), np.array([0, 1, 2, 3, 4, 2])
    columns = [{"layer": "logmel26", "start": 0, "stop": 9, "frames": [4, 2]}]
    _write(path, layer_of(values, counts), kind="frames", checkpoint=None, columns=columns, pooling="frames",
           table={"end": 7.5}, **more)
    return values, counts


def test_each_value_stands_under_its_id_and_layer(tmp_path, capsys):
    values, counts = _mel(tmp_path / "mel.parquet", chunk_seconds=7.5)
    order = [4, 0, 5, 2, 1, 3]
    pieces = pd.DataFrame({"id": [IDS[i] for i in order for _ in range(2)], "chunk": [0, 1] * 6})
    both, twice = _vectors(1, 12, 5), layer_columns(["encoder", "representation"], [2, 3])
    _write(tmp_path / "ae.npz", both, pieces["id"].tolist(), columns=twice, checkpoint="b", chunk_seconds=7.5,
           table={"chunk": pieces["chunk"], "seen_in_pretraining": pieces["id"] == "u2", "end": 9.0})
    assert cli.main(["export", "--fuse", str(tmp_path / "mel.parquet"), str(tmp_path / "ae.npz"), "--out",
                     str(tmp_path / "both.parquet")]) == 0
    said = capsys.readouterr()
    assert "ae.npz: 6 rows of later pieces are left out" in said.err
    assert "6 rows of logmel26, encoder, representation (14 values)" in said.out

    found = read_features(tmp_path / "both.parquet")
    assert found.table["id"].tolist() == IDS and found.layers == ["logmel26", "encoder", "representation"]
    mel, valid = found.frames("logmel26")
    assert valid.tolist() == counts.tolist() and (mel[4] == values[4].astype(np.float32)).all()
    first = dict(zip(pieces["id"][::2], both[::2]))
    assert (found.select_layers(["encoder", "representation"]).embedding == [first[name] for name in IDS]).all()
    assert found.table["seen_in_pretraining"].tolist() == [name == "u2" for name in IDS]
    assert set(found.table["end"]) == {9.0} and set(found.table["emotion"]) == {"sad"}
    assert not found.table["chunk"].any()
    metadata = found.metadata
    assert (metadata["kind"], metadata["pooling"], metadata["chunk_seconds"]) == ("fused", None, 7.5)
    assert metadata["corpus"] == {"name": "one", "fingerprint": "one"}
    assert [part["kind"] for part in metadata["fused"]] == ["frames", "autoencoder"]
    assert [column["from"] for column in metadata["columns"]] == [
        [0, "logmel26"], [1, "encoder"], [1, "representation"]]
    assert metadata["fused"][1]["features_hash"] == read_features(tmp_path / "ae.npz").metadata["features_hash"]


def test_layers_of_one_name_are_told_apart_by_their_files(tmp_path):
    def layers(*names):
        paths = [_write(tmp_path / name, _vectors(seed, size=1)) for seed, name in enumerate(names)]
        fuse.export(paths, tmp_path / "out.npz")
        found = read_features(tmp_path / "out.npz")
        for path, layer in zip(paths, found.layers):
            assert (found.select_layers([layer]).embedding == read_features(path).embedding).all()
        return found.layers

    assert layers("a.npz", "b, c.parquet") == ["a.representation", "b_c.representation"]
    assert layers("30/x.npz", "45/x.npz") == ["30_x.representation", "45_x.representation"]
    assert layers("x.npz", "x.parquet") == ["x.npz.representation", "x.parquet.representation"]


def _hash(path, layers=None):
    features = read_features(path)
    features = features if layers is None else features.select_layers([features.layers[i] for i in layers])
    return extractor_hash(features.metadata, features.embedding.shape[1])


def test_equal_extractors_on_two_corpora_make_one_extractor(tmp_path):
    """Whatever the files are called, and whatever other layers they hold."""
    for corpus, stem in (("one", "iemocap"), ("two", "msp")):
        folder = tmp_path / corpus
        for clip in (30, 45):
            _write(folder / f"{stem}_{clip}.parquet", _vectors(clip), checkpoint=f"ae{clip}", corpus=corpus)
        _mel(folder / f"{stem}.parquet", corpus=corpus)
        fuse.export([folder / f"{stem}{end}.parquet" for end in ("", "_30", "_45")], folder / f"fused_{stem}.parquet")
    one, two = tmp_path / "one" / "fused_iemocap.parquet", tmp_path / "two" / "fused_msp.parquet"
    assert _hash(one) == _hash(two) and _hash(one, [1, 0]) == _hash(two, [1, 0])
    assert len({_hash(one, layers) for layers in (None, [0, 1], [0, 2], [1, 0], [1])}) == 5
    assert read_features(one).layers[1] == "iemocap_30.representation"
    assert read_features(two).layers[1] == "msp_30.representation"
    model = LinearModel(np.zeros(15), np.ones(15), np.zeros((2, 15)), np.zeros(2), ["a", "b"])
    save_head(model, tmp_path / "head.npz", read_features(one).metadata)
    assert load_head(tmp_path / "head.npz", read_features(two)).classes == ["a", "b"]

    again = tmp_path / "again"  # fused in steps; beside layers that are not taken
    fuse.export([tmp_path / "one" / "iemocap.parquet", tmp_path / "one" / "iemocap_30.parquet"], again / "a.parquet")
    _write(again / "b.parquet", _vectors(45, size=5), columns=layer_columns(["encoder", "representation"], [2, 3]),
           checkpoint="ae45")
    fuse.export([again / "a.parquet", again / "b.parquet"], again / "c.parquet")
    assert read_features(again / "c.parquet").layers == ["logmel26", "a.representation", "encoder", "b.representation"]
    assert _hash(again / "c.parquet", [0, 1, 3]) == _hash(one)

    _write(again / "other.parquet", _vectors(0), checkpoint="ae99")
    fuse.export([tmp_path / "one" / "iemocap.parquet", tmp_path / "one" / "iemocap_30.parquet",
                 again / "other.parquet"], again / "d.parquet")
    assert _hash(again / "d.parquet") != _hash(one)
    with pytest.raises(UserError, match="fitted on features of another extractor"):
        load_head(tmp_path / "head.npz", read_features(again / "d.parquet"))


def test_functionals_of_different_sets_are_different_extractors(tmp_path):
    """They have one layer of one name and size."""
    hashes = set()
    for name in ("eGeMAPSv01a", "eGeMAPSv02"):
        path = _write(tmp_path / f"{name}.npz", _vectors(0), kind="egemaps", checkpoint=None, layer=name,
                      columns=layer_columns(["egemaps"], [3]))
        fuse.export([path, _write(tmp_path / "ae.npz", _vectors(1))], tmp_path / "f.npz")
        hashes.add(_hash(tmp_path / "f.npz"))
    assert len(hashes) == 2


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_one_file_alone_is_converted(tmp_path, suffix, capsys):
    ids = ["u0", "u0", "u1"]
    path = _write(tmp_path / "f.parquet", _vectors(0, 3), ids, table={"chunk": [0, 1, 0]})
    assert cli.main(["export", "--fuse", str(path), "--out", str(tmp_path / f"g{suffix}")]) == 0
    assert "3 rows of representation (3 values), as in" in capsys.readouterr().out
    ours, theirs = read_features(tmp_path / f"g{suffix}"), read_features(path)
    assert (ours.embedding == theirs.embedding).all() and ours.metadata == theirs.metadata
    pd.testing.assert_frame_equal(ours.table, theirs.table)


def test_utterances_that_a_file_lacks_are_left_out_only_when_asked(tmp_path):
    a = _write(tmp_path / "a.npz", _vectors(0, 5), IDS[:5])
    b = _write(tmp_path / "b.npz", _vectors(1, 5), IDS[:0:-1])
    out = tmp_path / "c.npz"
    with pytest.raises(UserError, match=r"a.npz: has no features of 'u5' \(1 of 6 utterances .*--max-rejects"):
        fuse.export([a, b], out)
    with pytest.raises(UserError, match="2 of 6 utterances are not in all files, more than --max-rejects 0.3"):
        fuse.export([a, b], out, max_rejects=0.3)
    assert not out.exists()
    fuse.export([a, b], out, max_rejects=0.4)
    found = read_features(out)
    assert found.table["id"].tolist() == IDS[1:5]
    assert (found.embedding == np.concatenate([_vectors(0, 5)[1:], _vectors(1, 5)[4:0:-1]], axis=1)).all()
    rows = list(csv.DictReader((tmp_path / "c.npz.rejects.csv").open()))
    assert [(row["id"], row["reason"]) for row in rows] == [("u0", f"not in {b}"), ("u5", f"not in {a}")]


def test_files_that_do_not_tell_their_corpus_are_matched_by_id(tmp_path, capsys):
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("id,emotion,e0\n" + "".join(f"u{i},happy,{i}\n" for i in range(6)))
    fuse.export([foreign, _write(tmp_path / "a.npz", _vectors(0))], tmp_path / "f.npz")
    assert "foreign.csv: does not tell its corpus" in capsys.readouterr().err
    found = read_features(tmp_path / "f.npz")
    assert found.embedding[:, 0].tolist() == list(range(6)) and set(found.table["emotion"]) == {"sad"}
    assert found.metadata["corpus"]["name"] == "one" and found.layers == ["foreign", "representation"]


def test_what_cannot_stand_side_by_side_is_one_line(tmp_path, capsys):
    a = _write(tmp_path / "a.npz", _vectors(0))
    two = _write(tmp_path / "two.npz", _vectors(1), corpus="two")
    steps = _write(tmp_path / "steps.npz", _vectors(1), table={"frame": 0})
    _mel(tmp_path / "mel.npz")
    before = sorted(os.listdir(tmp_path))

    def refused(code, message, *files, out="out.npz"):
        assert cli.main(["export", "--fuse", *map(str, files), "--out", str(tmp_path / out)]) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert sorted(os.listdir(tmp_path)) == before

    refused(1, "a.npz and " + str(two) + " are of different corpora: one one, two two", a, two)
    refused(1, "steps.npz: has one row per step", a, steps)
    refused(1, "out.csv: layer logmel26 holds frames", a, tmp_path / "mel.npz", out="out.csv")
    refused(2, "a file is named twice", a, tmp_path / "." / "a.npz")
    refused(1, "absent.npz: no such features file", a, tmp_path / "absent.npz")
    refused(2, "--out", a, two, out="out.h5")
    refused(2, "--layer goes with --workdir, not with --fuse", a, "--layer", "x")
    refused(2, "--corpus goes with --workdir or --functionals or --frames, not with --fuse", a, "--corpus", "x")


def test_labels_that_differ_are_refused(tmp_path):
    _write(tmp_path / "a.parquet", _vectors(0))
    _write(tmp_path / "b.parquet", _vectors(1), checkpoint="b", table={"emotion": ["sad"] * 4 + ["angry", "sad"]})
    with pytest.raises(UserError, match=r"emotion of 'u4' is 'sad' and 'angry' \(1 such"):
        fuse.export([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "c.parquet")
    _write(tmp_path / "b.parquet", _vectors(1), checkpoint="b", table={"emotion": ""})  # unknown there
    fuse.export([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "c.parquet")
    assert set(read_features(tmp_path / "c.parquet").table["emotion"]) == {"sad"}


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = _vectors(0)
    values[3, 1] = np.nan
    _write(tmp_path / "a.parquet", values)
    _write(tmp_path / "b.parquet", _vectors(1), checkpoint="b")
    with pytest.raises(UserError, match="a.parquet: the features of 'u3' are not finite"):
        fuse.export([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "c.parquet")
