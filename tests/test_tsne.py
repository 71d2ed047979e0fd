"""t-SNE maps of `ser-jax report --tsne`."""

import numpy as np
import pandas as pd
import pytest

from ser_jax.cli import main
from ser_jax.errors import UserError
from ser_jax.export.features import Features, write_features
from ser_jax.report import page, tsne, tsne_figures

GROUPS = ("neutral", "angry", "sad")


def features_file(path, x, table, **metadata):
    about = {"kind": "autoencoder", "layer": "representation", "pooling": "mean", "corpus": {"name": "played"}}
    frame = {"id": [f"u{i}" for i in range(len(x))], "corpus": "played", **table}
    write_features(Features(pd.DataFrame(frame), x, {**about, **metadata}), path)
    return path


def grouped(count=36, width=6, seed=0):
    """(float32[count, width] in [-1, 1], the group of each row): three groups, far apart."""
    rng = np.random.default_rng(seed)
    group = np.arange(count) % len(GROUPS)
    centres = rng.choice([-0.7, 0.7], (len(GROUPS), width)) + 0.1 * np.eye(len(GROUPS), width)
    x = np.clip(centres[group] + 0.05 * rng.normal(size=(count, width)), -1, 1)
    return x.astype(np.float32), np.array(GROUPS)[group]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A file of 36 utterances in two pieces each: three emotions, some without, ratings of some, 3 speakers."""
    x, emotion = grouped()
    emotion[:2] = ["", ""]
    rng = np.random.default_rng(1)
    table = pd.DataFrame({
        "id": [f"u{i}" for i in range(36)], "emotion": emotion, "speaker_id": [f"s{i % 3}" for i in range(36)],
        "gender": "female", "valence": np.where(np.arange(36) < 9, np.nan, rng.uniform(1, 5, 36)),
        "seen_in_pretraining": np.arange(36) < 7,
    })  # fmt: skip
    both = pd.concat([table.assign(chunk=0), table.assign(chunk=1)], ignore_index=True)
    wide = np.concatenate([x, x])
    wide[:36] += 0.02
    wide[36:] -= 0.02
    path = tmp_path_factory.mktemp("tsne") / "ae.parquet"
    fused = [{"kind": "autoencoder", "pretrained_synthetic": True, "checkpoint": {"hash": "cafe", "step": 7}}]
    return features_file(path, np.clip(wide, -1, 1), both.to_dict("list"), fused=fused)


@pytest.fixture(scope="module")
def projection(played):
    return tsne.project(played)


def test_what_is_alike_lies_together(projection):
    place, emotion = projection.table[["x", "y"]].to_numpy(), grouped()[1]
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1) + np.eye(len(place)) * 1e9
    assert (emotion[distance.argmin(1)] == emotion).all()
    assert projection.table["unit"].tolist() == [f"u{i}" for i in range(36)]  # the pieces are averaged


def test_the_second_row_has_no_neutral_ones_and_no_unlabelled_ones(projection):
    (whole, every), (title, others) = projection.views
    assert (whole, int(every.sum()), title) == ("all", 36, "without neutral")
    assert set(projection.table["emotion"][others]) == {"angry", "sad"} and others.sum() == 23
    assert projection.columns == ["emotion", "valence", "gender", "speaker"]


def test_the_caption_says_what_was_done(projection):
    text = tsne.caption(projection)
    assert "36 utterances of played" in text and "not standardised" in text and "left out: arousal" in text
    assert f"perplexity {35 / 3:.3g}" in text and "TRANSDUCTIVE: 7 of the utterances" in text
    assert projection.stamps == ["TRANSDUCTIVE", "SYNTHETIC"]  # what a part of a fused file rests on counts


def test_scaling_of_values_does_not_matter_where_they_are_standardised(tmp_path):
    x, emotion = grouped(12)
    maps = []
    for number, factor in enumerate((2.0, 2.0 ** np.arange(6))):  # powers of two: no rounding
        path = features_file(tmp_path / f"{number}.parquet", 4 * x * np.float32(factor), {"emotion": emotion})
        maps.append(tsne.project(path))
    assert all(each.scaled and each.perplexity == pytest.approx(11 / 3) for each in maps)
    pd.testing.assert_frame_equal(maps[0].table[["x", "y"]], maps[1].table[["x", "y"]], rtol=1e-3)
    assert "each value standardised" in tsne.caption(maps[0])


def test_of_many_utterances_a_part_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(tsne, "MOST", 12)
    x, emotion = grouped(30)
    each = tsne.project(features_file(tmp_path / "f.parquet", x, {"emotion": emotion}))
    assert (len(each.table), each.whole) == (12, 30) and each.table["unit"].is_unique
    assert "12 drawn at random, seed 0, of 30" in tsne.caption(each).replace("(", "")
    rows = [int(name[1:]) for name in each.table["unit"]]
    assert each.table["emotion"].tolist() == emotion[rows].tolist()


def test_frames_are_refused_but_not_the_layers_beside_them(tmp_path):
    x, emotion = grouped(12, width=7)
    columns = [{"layer": "logmel26", "start": 0, "stop": 5, "frames": [2, 2]}, {"layer": "code", "start": 5, "stop": 7}]
    path = features_file(tmp_path / "f.parquet", x, {"emotion": emotion}, columns=columns)
    with pytest.raises(UserError, match="logmel26 holds frames.*--tsne-layers, e.g. code"):
        tsne.project(path)
    with pytest.raises(UserError, match="logmel26 holds frames.*e.g. code"):
        tsne.project(path, ["logmel26"])
    assert tsne.project(path, ["code"]).layer == "code"
    assert main(["report", "--tsne", str(path), "--tsne-layers", "cod", "--out", str(tmp_path / "r.html")]) == 1
    assert main(["report", "--tsne-layers", "code", "--workdir", "w", "--out", str(tmp_path / "r.html")]) == 2
    only = features_file(tmp_path / "g.parquet", x[:, :5], {"emotion": emotion}, columns=columns[:1])
    with pytest.raises(UserError, match="export pooled embeddings"):
        tsne.project(only)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.eye(9), "9 utterances"), (np.ones((12, 3)), "equal vectors"), (np.arange(12.0)[:, None], "one value"),
        (np.where(np.eye(12) > 0, np.nan, 1), "embedding of 'u0' is not finite"),
    ],
)  # fmt: skip
def test_a_file_without_a_map_is_named(tmp_path, x, says):
    path = features_file(tmp_path / "f.parquet", x.astype(np.float32), {})
    with pytest.raises(UserError, match=says) as error:
        page.render([], [], tmp_path / "r.html", projections=[path])
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert not (tmp_path / "r.html").exists()


def test_every_category_looks_different_and_the_rarest_have_no_name():
    names = [f"s{i}" for i in range(tsne_figures.MOST_NAMES)]
    looks = tsne_figures._look(names)
    assert len(set(looks.values())) == len(names)
    counts = {"s1": 3, **{f"r{i}": 1 for i in range(27)}, "s2": 2}
    table = pd.DataFrame({"speaker": [name for name, count in counts.items() for _ in range(count)]})
    each = tsne.Projection("f", {}, table, 32, 5.0, 1.0, False, 0)
    found = tsne_figures._categories(each, "speaker")
    assert len(found) == tsne_figures.MOST_NAMES and {"s1", "s2"} <= set(found) and found[0] == "r0"


def test_equal_files_give_equal_pages_and_names_are_text(tmp_path, played):
    evil = "<script>alert(1)</script>"
    x, emotion = grouped(12)
    other = features_file(
        tmp_path / "f.parquet", x, {"emotion": evil, "speaker_id": evil}, layer=evil, corpus={"name": evil}
    )
    for name in ("a", "b"):
        out = page.render([], [], tmp_path / name / "r.html", projections=[other, played, other])[0]
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    assert set(files[0]) == {"r.html", "r_tsne_1.png", "r_tsne_1.csv", "r_tsne_2.png", "r_tsne_2.csv"}
    text = out.read_text()
    assert "<script" not in text and "TRANSDUCTIVE" in text and "SYNTHETIC" in text and "2 t-SNE maps" in text
    table = pd.read_csv(tmp_path / "a" / "r_tsne_2.csv")
    assert len(table) == 36 and list(table)[-2:] == ["x", "y"] and table["valence"].isna().sum() == 9
