"""auDeep's files: what it wrote is read, and what is written it could have written, to the last bit of a value."""

import io
import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ser_jax import cli
from ser_jax.errors import UserError
from ser_jax.export import audeep
from ser_jax.export.features import AUDEEP, Features, content_hash, read_features, write_features

METADATA = {"kind": "autoencoder", "layer": "representation"}


@pytest.fixture(scope="module")
def netcdf():
    return pytest.importorskip("netCDF4", reason="needs the [audeep] extra")


def _read(path):
    """The features without the warning that their extractor is unknown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", io.StringIO())
        return read_features(path)


@pytest.mark.parametrize("suffix", AUDEEP)
@given(
    embedding=arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)),
                     elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    words=st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=6),
                   min_size=1, max_size=3),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_is_exact(request, tmp_path, suffix, embedding, words):
    if suffix == ".nc":
        request.getfixturevalue("netcdf")
    n = len(embedding)
    labels = [(words + [""])[i % (len(words) + 1)] for i in range(n)]
    ids = [f"{words[0]} '{i // 2}'.wav" for i in range(n)]
    table = pd.DataFrame({"id": ids, "chunk": [i % 2 for i in range(n)], "emotion": labels})
    features, path = Features(table, embedding, dict(METADATA)), tmp_path / f"f{suffix}"
    write_features(features, path)
    found = _read(path)
    assert (found.embedding.view(np.uint32) == embedding.view(np.uint32)).all()
    for column in ("id", "chunk", "emotion"):
        assert found.table[column].tolist() == features.table[column].tolist()
    if any(labels):
        numbers = dict(zip(labels, found.table["label_numeric"]))
        known = sorted(label for label in numbers if label)
        assert [numbers[label] for label in known] == list(range(len(known)))
    assert found.layers == ["features"] and found.metadata["kind"] == "unknown"
    assert content_hash(found) == found.metadata["features_hash"]


def test_random_bits_survive(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (100, 30), dtype=np.uint32)
    bits[(bits & 0x7F800000) == 0x7F800000] = 0x00000001  # not NaN or infinite: the smallest denormal
    features = Features(pd.DataFrame({"id": [f"u{i}" for i in range(100)]}), bits.view(np.float32), {})
    for suffix in (".audeep.csv", ".arff"):
        write_features(features, tmp_path / f"f{suffix}")
        assert (_read(tmp_path / f"f{suffix}").embedding.view(np.uint32) == bits).all()


def test_csv_of_audeep_is_known_by_its_header(tmp_path, capsys):
    """As auDeep 0.9 exports, labels first or last; pandas, which it reads with, reads ours."""
    frame = pd.DataFrame({"filename": ["a.wav", "a.wav", "b, c.wav"], "chunk_nr": [0, 1, 0],
                          "feature_0": np.float32([0.1, -2, 3e-8]), "feature_1": np.float32([1, 2, 3]),
                          "label_nominal": ["sad", "sad", None], "label_numeric": [3, 3, None]})
    frame.to_csv(tmp_path / "f.csv", index=False)
    found = read_features(tmp_path / "f.csv")
    assert "no ser_jax metadata" in capsys.readouterr().err
    assert (found.embedding == frame[["feature_0", "feature_1"]].to_numpy()).all()
    assert found.table["id"].tolist() == ["a.wav", "a.wav", "b, c.wav"] and found.table["chunk"].tolist() == [0, 1, 0]
    assert found.table["emotion"].tolist() == ["sad", "sad", ""]
    np.testing.assert_array_equal(found.table["label_numeric"], [3, 3, np.nan])
    write_features(found, tmp_path / "g.audeep.csv")
    said = capsys.readouterr().err
    assert "not speakers, texts and metadata" in said and "from 1 to 2 pieces of an utterance" in said
    theirs = pd.read_csv(tmp_path / "g.audeep.csv")
    assert list(theirs) == ["filename", "chunk_nr", "label_nominal", "label_numeric", "feature_0", "feature_1"]
    pd.testing.assert_frame_equal(theirs[list(frame)], frame, check_dtype=False)


ARFF = r"""% exported
@RELATION "auDeep exported data set"

@ATTRIBUTE filename STRING
@attribute chunk_nr INTEGER
@ATTRIBUTE label_nominal {sad, 'very sad'}
@ATTRIBUTE label_numeric INTEGER
@ATTRIBUTE 'mean of it' REAL
@ATTRIBUTE feature_1	numeric

@DATA
'it\'s a.wav',0,sad,0,0.100000001490116,-1
b.wav,0,'very sad',1, 1e-3,?

% the end
c.wav,0,?,?,-2.5E2,7
"""


@pytest.mark.parametrize("quote", ["'", '"'])
def test_arff_of_others_is_read(tmp_path, quote):
    (tmp_path / "f.arff").write_text(ARFF.replace(r"\'", "§").replace("'", quote).replace("§", r"\'"))
    found = _read(tmp_path / "f.arff")
    assert found.table["id"].tolist() == ["it's a.wav", "b.wav", "c.wav"]
    assert found.table["emotion"].tolist() == ["sad", "very sad", ""]
    np.testing.assert_array_equal(found.table["label_numeric"], [0, 1, np.nan])
    np.testing.assert_array_equal(found.embedding, np.float32([[0.1, -1], [1e-3, np.nan], [-250, 7]]))
    assert found.metadata["names"] == ["mean of it", "feature_1"]


def test_arff_that_is_written_is_what_others_expect(tmp_path):
    """SciPy reads it but for the one string attribute, which it does not support."""
    from scipy.io import arff

    table = pd.DataFrame({"id": ["a", "b"], "emotion": ["sad", "happy"]})
    write_features(Features(table, np.float32([[0.5, np.nan], [2, 3]]), {}), tmp_path / "f.arff")
    text = (tmp_path / "f.arff").read_text()
    assert "@ATTRIBUTE filename STRING\n" in text and text.endswith("\n@DATA\na,0,sad,1,0.5,?\nb,0,happy,0,2,3\n")
    lines = text.replace("filename STRING", "filename {a,b}").splitlines(keepends=True)
    data, about = arff.loadarff(io.StringIO("".join(lines)))
    assert about.names() == ["filename", "chunk_nr", "label_nominal", "label_numeric", "feature_0", "feature_1"]
    assert data["label_nominal"].tolist() == [b"sad", b"happy"] and data["feature_0"].tolist() == [0.5, 2]
    assert np.isnan(data["feature_1"][0])


# ------------------------------------------------------------------------------------------------ netCDF


def _data_set(module, path, features, dims, **variables):
    """A data set as xarray writes that of auDeep: numbers with missing ones are floats, missing texts are empty."""
    with module.Dataset(str(path), "w", format="NETCDF4") as file:
        for name, size in zip(("instance", *dims, "fold"), (*features.shape, variables["cv_folds"].shape[1])):
            file.createDimension(name, size)
        for name, values in {"features": features, **variables}.items():
            values = np.asarray(values)
            of = {"features": dims, "cv_folds": ("fold",)}.get(name, ())
            fill = {"fill_value": np.nan} if values.dtype.kind == "f" else {}
            made = file.createVariable(name, str if values.dtype == object else values.dtype, ("instance", *of), **fill)
            made[:] = values
        file.feature_dims = json.dumps(list(dims))
        file.label_map = json.dumps([["happy", 0], ["sad", 1]])


def test_data_sets_of_audeep_are_read(netcdf, tmp_path):
    values = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    names = np.array(["a.wav", "b.wav", "b.wav", "c.wav"], object)
    common = {"filename": names, "chunk_nr": np.array([0, 0, 1, 0]),
              "cv_folds": np.array([[0, 1], [1, 0], [1, 0], [0, 0]])}
    _data_set(netcdf, tmp_path / "a.nc", values, ["generated"], **common, partition=np.array([0, 1, 1, 2]),
              label_nominal=np.array(["sad", "happy", "happy", "sad"], object), label_numeric=np.array([1, 0, 0, 1]))
    found = _read(tmp_path / "a.nc")
    assert (found.embedding == values).all() and found.table["id"].tolist() == names.tolist()
    assert found.table["chunk"].tolist() == [0, 0, 1, 0]
    assert found.table["split"].tolist() == ["train", "dev", "dev", "test"]
    assert found.table["emotion"].tolist() == ["sad", "happy", "happy", "sad"]
    assert found.table[["label_numeric", "cv_fold_1", "cv_fold_2"]].to_numpy().tolist() == [
        [1, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0]]

    spectrograms, nothing = np.stack([values, -values], axis=1), np.full(4, np.nan)  # as `audeep preprocess` gives
    _data_set(netcdf, tmp_path / "b.nc", spectrograms, ["time", "freq"], **common | {"cv_folds": np.empty((4, 0))},
              partition=nothing, label_nominal=nothing, label_numeric=nothing)
    found = _read(tmp_path / "b.nc")
    frames, counts = found.frames("features")
    assert (frames == spectrograms).all() and counts.tolist() == [2] * 4
    assert set(found.table["emotion"]) == set(found.table["split"]) == {""} and "label_numeric" not in found.table


def test_a_data_set_that_is_written_has_what_audeep_looks_for(netcdf, tmp_path):
    table = pd.DataFrame({"id": ["a", "b", "c"], "emotion": ["sad", "happy", "sad"],
                          "split": ["train", "devel", "test"], "cv_fold_1": [0, 1, 0]})
    write_features(Features(table, np.ones((3, 2)), {}), tmp_path / "f.nc")
    with netcdf.Dataset(str(tmp_path / "f.nc")) as file:
        assert file.data_model == "NETCDF4" and json.loads(file.feature_dims) == ["generated"]
        assert json.loads(file.label_map) == [["happy", 0], ["sad", 1]]
        assert {name: variable.dimensions for name, variable in file.variables.items()} == {
            "filename": ("instance",), "chunk_nr": ("instance",), "label_nominal": ("instance",),
            "label_numeric": ("instance",), "partition": ("instance",), "cv_folds": ("instance", "fold"),
            "features": ("instance", "generated")}
        assert file["partition"][:].tolist() == [0, 1, 2] and file["cv_folds"][:].tolist() == [[0], [1], [0]]
        assert file["label_numeric"][:].tolist() == [1, 0, 1] and file["features"].dtype == np.float32
    assert _read(tmp_path / "f.nc").table["split"].tolist() == ["train", "dev", "test"]


def test_without_the_extra_it_is_named_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "netCDF4", None)
    write_features(Features(pd.DataFrame({"id": ["a"]}), np.ones((1, 2)), {}), tmp_path / "f.npz")
    assert cli.main(["export", "--fuse", str(tmp_path / "f.npz"), "--out", str(tmp_path / "f.nc")]) == 1
    error = capsys.readouterr().err
    assert "pip install 'ser_jax[audeep]'" in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == ["f.npz"]


# ------------------------------------------------------------------------------------------------ refusals


def test_bad_files_end_in_one_line(netcdf, tmp_path):
    def refused(name, text, match):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=match) as error:
            read_features(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)

    for suffix in AUDEEP:
        refused(f"noise{suffix}", "\x00\x01nonsense\xff" * 5, "noise")
        refused(f"empty{suffix}", "", "empty")
    refused("a.audeep.csv", "name,feature_0\nx,1\n", "no attribute 'filename'")
    refused("b.csv", "filename,chunk_nr,feature_0\nx,0,1\ny,0,one\n", "cannot be read as csv")
    refused("c.csv", "filename,chunk_nr\nx,0\n", "no values")
    refused("d.csv", "filename,chunk_nr,feature_0\nx,0,1\n,0,2\n", "row 1 has no filename")
    refused("e.csv", "filename,chunk_nr,feature_0\nx,0.5,1\n", "must be whole numbers")
    refused("f.csv", "filename,chunk_nr,feature_0\nx,0,1\nx,0,1\n", "repeat an id")
    head = "@relation r\n@attribute filename string\n@attribute chunk_nr integer\n@attribute f {}\n@data\n"
    refused("a.arff", head.format("date 'yyyy'") + "x,0,1\n", "attribute f is of type \"date 'yyyy'\"")
    refused("b.arff", head.format("string") + "x,0,1\n", "attribute 'f' is not a number")
    refused("c.arff", head.format("real") + "{0 x, 2 1}\n", "sparse rows")
    refused("d.arff", head.format("real") + "x,0\n", "cannot be read as arff")
    refused("e.arff", "@relation r\n@attribute f real\n", "no @data")
    with netcdf.Dataset(str(tmp_path / "other.nc"), "w") as file:
        file.createDimension("x", 1)
    with pytest.raises(UserError, match="other.nc: not a data set of auDeep"):
        read_features(tmp_path / "other.nc")


@pytest.mark.parametrize("suffix", AUDEEP)
def test_what_they_cannot_hold_is_refused(tmp_path, suffix):
    steps = Features(pd.DataFrame({"id": ["a", "a"], "frame": [0, 1]}), np.ones((2, 2)), {})
    frames = Features(pd.DataFrame({"id": ["a"]}), np.ones((1, 3)), {
        "columns": [{"layer": "mel", "start": 0, "stop": 3, "frames": [1, 2]}]})
    for features, message in ((steps, "one row per step"), (frames, "layer mel holds frames")):
        with pytest.raises(UserError, match=message):
            write_features(features, tmp_path / f"f{suffix}")
    assert not list(tmp_path.iterdir())


def test_our_csv_is_not_taken_for_theirs(tmp_path):
    features = Features(pd.DataFrame({"id": ["a"], "filename": ["a.wav"]}), np.ones((1, 2)), dict(METADATA))
    write_features(features, tmp_path / "f.csv")
    assert not audeep.is_csv(tmp_path / "f.csv") and read_features(tmp_path / "f.csv").metadata["kind"] == "autoencoder"
