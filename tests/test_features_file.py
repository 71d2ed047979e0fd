"""The features file: exact floats, provenance, and files made elsewhere, in all formats."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ser_jax.errors import UserError
from ser_jax.export.features import FORMATS, Features, content_hash, extractor_hash, read_features, write_features

METADATA = {
    "kind": "sample_cnn",
    "layer": "conv_4",
    "pooling": "mean",
    "checkpoint": {"hash": "abc", "step": 7},
    "corpus": {"name": "toy", "fingerprint": "f", "synthetic": True},
}


def _features(embedding):
    n = len(embedding)
    table = pd.DataFrame(
        {
            "id": [f"0{i}" for i in range(n)],
            "speaker_id": [f"00{i % 3}" for i in range(n)],
            "text": ['Größe, "quoted"\nand; two\tlines' if i % 2 else "" for i in range(n)],
            "emotion": ["sad"] * n,
            "valence": np.linspace(0.1, 1 / 3, n),
            "chunk": np.arange(n),
            "seen_in_pretraining": [i % 2 == 0 for i in range(n)],
            "level": [f"L{i}" for i in range(n)],
        }
    )
    if n > 1:
        table.loc[1, "valence"] = np.nan
    return Features(table, embedding, dict(METADATA))


@pytest.mark.parametrize("suffix", FORMATS)
@given(
    embedding=arrays(
        np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(width=32, allow_nan=False)
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_is_exact(tmp_path, suffix, embedding):
    features = _features(embedding)
    path = tmp_path / f"features{suffix}"
    written = write_features(features, path)
    found = read_features(path)
    assert (found.embedding.view(np.uint32) == embedding.view(np.uint32)).all()
    pd.testing.assert_frame_equal(found.table, features.table)
    assert found.metadata == {**METADATA, "features_hash": written}


def test_random_bits_survive_and_the_hash_is_of_the_content(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (300, 20), dtype=np.uint32)
    bits[(bits & 0x7F800000) == 0x7F800000] = 0x00000001  # not NaN or infinite: the smallest denormal
    features = _features(bits.view(np.float32))
    hashes = {write_features(features, tmp_path / f"f{suffix}") for suffix in FORMATS}
    for suffix in FORMATS:
        assert (read_features(tmp_path / f"f{suffix}").embedding.view(np.uint32) == bits).all()
    order = rng.permutation(300)
    shuffled = Features(features.table.iloc[order], features.embedding[order], {})
    assert hashes == {content_hash(shuffled)}
    shuffled.embedding[0, 0] += 1
    assert content_hash(shuffled) not in hashes
    relabelled = Features(features.table.assign(emotion="happy"), features.embedding, {})
    assert content_hash(relabelled) not in hashes


def test_parquet_is_what_other_tools_expect(tmp_path):
    import pyarrow.parquet as pq

    write_features(_features(np.ones((4, 3), np.float32)), tmp_path / "f.parquet")
    schema = pq.read_schema(tmp_path / "f.parquet")
    assert str(schema.field("embedding").type).startswith("fixed_size_list<")
    assert schema.field("embedding").type.list_size == 3
    assert json.loads(schema.metadata[b"ser_jax"])["layer"] == "conv_4"
    assert not list(tmp_path.glob(".*"))  # no temporary file left


def test_files_made_elsewhere_get_defaults_and_a_warning(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("id,emotion,e0,e1\n007,sad,0.1,2\n008,,3,-4\n")
    np.savez(tmp_path / "b.npz", id=np.array(["007", "008"]), embedding=np.ones((2, 2)))
    pd.DataFrame({"id": ["007", "008"], "embedding": [[0.5, 1.0], [2.0, 3.0]]}).to_parquet(tmp_path / "c.parquet")
    for name in ("a.csv", "b.npz", "c.parquet"):
        found = read_features(tmp_path / name)
        assert "no ser_jax metadata" in capsys.readouterr().err
        assert found.table["id"].tolist() == ["007", "008"] and found.embedding.shape == (2, 2)
        assert found.embedding.dtype == np.float32 and found.metadata["kind"] == "unknown"
        assert not found.table["seen_in_pretraining"].any() and found.table["valence"].isna().all()
        assert found.units.tolist() == ["007", "008"]
    assert read_features(tmp_path / "a.csv").table["emotion"].tolist() == ["sad", ""]


def test_a_changed_csv_is_noticed(tmp_path, capsys):
    path = tmp_path / "f.csv"
    write_features(_features(np.ones((3, 2), np.float32)), path)
    read_features(path)
    assert capsys.readouterr().err == ""
    path.write_text(path.read_text().replace('"sad"', '"happy"', 1))
    assert read_features(path).table["emotion"].tolist() == ["happy", "sad", "sad"]
    assert "not what was exported" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", FORMATS)
def test_layers_can_be_told_apart(tmp_path, suffix):
    columns = [{"layer": "gcu_01", "start": 0, "stop": 2}, {"layer": "gcu_02", "start": 2, "stop": 3},
               {"layer": "gcu_03", "start": 3, "stop": 5}]
    embedding = np.arange(20, dtype=np.float32).reshape(4, 5)
    path = tmp_path / f"f{suffix}"
    features = Features(_features(embedding).table, embedding, {**METADATA, "layer": "gcu_*", "columns": columns})
    written = write_features(features, path)
    found = read_features(path)
    assert found.layers == ["gcu_01", "gcu_02", "gcu_03"] and found.metadata["columns"] == columns
    some = found.select_layers(["gcu_03", "gcu_02"])
    assert some.embedding.tolist() == embedding[:, [3, 4, 2]].tolist()
    assert some.metadata["columns"] == [{"layer": "gcu_03", "start": 0, "stop": 2},
                                        {"layer": "gcu_02", "start": 2, "stop": 3}]
    assert some.metadata["layer"] == "gcu_03,gcu_02" and some.metadata["features_hash"] == written
    assert some.rows([True, False, True, False]).select_layers(["gcu_02"]).embedding.tolist() == [[2], [12]]
    pd.testing.assert_frame_equal(some.table, found.table)
    assert found.metadata["layer"] == "gcu_*" and found.embedding.shape == (4, 5)  # left as it was
    assert found.select_layers(found.layers) is found
    by_name = {**found.metadata, "layer": ",".join(found.layers)}
    assert extractor_hash(by_name, 5) == extractor_hash(found.metadata, 5)
    assert extractor_hash(some.metadata, 3) != extractor_hash(found.select_layers(["gcu_01", "gcu_02"]).metadata, 3)
    with pytest.raises(UserError, match="no layer 'gcu_3' in the features .did you mean 'gcu_03'.*; layers: gcu_01, "):
        found.select_layers(["gcu_3"])
    for names in ([], ["gcu_01", "gcu_01"]):
        with pytest.raises(UserError, match="each once"):
            found.select_layers(names)


def test_files_that_do_not_tell_their_layers_are_read(tmp_path):
    write_features(_features(np.ones((3, 2), np.float32)), tmp_path / "f.npz")
    found = read_features(tmp_path / "f.npz")
    assert found.layers == [] and "columns" not in found.metadata
    with pytest.raises(UserError, match="export them again"):
        found.select_layers(["conv_4"])


@pytest.mark.parametrize("columns", [
    [{"layer": "a", "start": 0, "stop": 1}],  # one value too few
    [{"layer": "a", "start": 0, "stop": 2}, {"layer": "b", "start": 1, "stop": 2}],
    [{"layer": "a", "start": 0, "stop": 1}, {"layer": "a", "start": 1, "stop": 2}],
    [{"layer": "a", "start": 0}],
])
def test_layers_that_cannot_be_are_refused(tmp_path, columns):
    path = tmp_path / "f.csv"
    write_features(_features(np.ones((3, 2), np.float32)), path)
    sidecar = tmp_path / "f.csv.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "columns": columns}))
    with pytest.raises(UserError, match="f.csv: .*") as error:
        read_features(path)
    assert "\n" not in str(error.value)


def test_bad_files_end_in_one_line(tmp_path):
    def refused(name, match):
        with pytest.raises(UserError, match=match) as error:
            read_features(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)

    refused("absent.parquet", "no such features file")
    refused("f.arrow", "must end in .parquet, .npz, .csv")
    for suffix in FORMATS:
        (tmp_path / f"noise{suffix}").write_bytes(b"\x00\x01nonsense\xff" * 5)
        refused(f"noise{suffix}", "noise")
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        refused(f"empty{suffix}", "empty")
    (tmp_path / "a.csv").write_text("id,e0,e2\nx,1,2\n")
    refused("a.csv", "without gaps")
    (tmp_path / "b.csv").write_text("name,e0\nx,1\n")
    refused("b.csv", "no column 'id'")
    (tmp_path / "c.csv").write_text("id,e0\nx,1\nx,2\n")
    refused("c.csv", "repeat an id")
    (tmp_path / "d.csv").write_text("id,e0\nx,1\ny,one\n")
    refused("d.csv", "cannot be read as csv")
    np.savez(tmp_path / "e.npz", id=np.array(["x"], dtype=object), embedding=np.ones((1, 2)))  # a pickle inside
    refused("e.npz", "cannot be read as npz")
    pd.DataFrame({"id": ["x", "y"], "embedding": [[1.0], None]}).to_parquet(tmp_path / "g.parquet")
    refused("g.parquet", "row 1 has no embedding")
    pd.DataFrame({"id": ["x", "y"], "embedding": [[1.0], [1.0, 2.0, 3.0]]}).to_parquet(tmp_path / "h.parquet")
    refused("h.parquet", "same length")


def test_extractor_hash_ignores_the_corpus_but_not_the_layer():
    same = {**METADATA, "corpus": {"name": "other"}, "versions": {"jax": "9"}}
    assert extractor_hash(METADATA, 5) == extractor_hash(same, 5)
    for other in ({**METADATA, "layer": "conv_5"}, {**METADATA, "checkpoint": {"hash": "abd"}}):
        assert extractor_hash(METADATA, 5) != extractor_hash(other, 5)
    assert extractor_hash(METADATA, 5) != extractor_hash(METADATA, 6)
