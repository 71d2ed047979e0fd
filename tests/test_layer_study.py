"""The layer study of `ser-jax report`: correlations of each cell with the ratings, and what chance gives."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ser_jax.cli import main
from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, write_features
from ser_jax.report import layer_scores, layer_study, page, rows
from ser_jax.report.layer_study import BEYOND, UNDEFINED

LAYERS, WIDTH = 3, 8


def features_file(path, x, table, layers=LAYERS, **metadata):
    """A features file of `layers` layers of equal width with these embeddings and columns."""
    width = x.shape[1] // layers
    columns = [{"layer": f"gcu_{i + 1:02d}", "start": i * width, "stop": (i + 1) * width} for i in range(layers)]
    about = {"kind": "wavenet", "layer": "gcu_*", "pooling": "mean", "columns": columns, "corpus": {"name": "played"}}
    frame = {"id": [f"u{i}" for i in range(len(x))], "corpus": "played", **table}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(Features(pd.DataFrame(frame), x, {**about, **metadata}), path)
    return path


def played(path, speakers=3, each=40, seed=0, strength=0.0, **metadata):
    """Features that do not depend on the ratings, but for the first cell of the last layer if `strength` is given."""
    rng = np.random.default_rng(seed)
    count = speakers * each
    x = rng.normal(size=(count, LAYERS * WIDTH)).astype(np.float32)
    valence, arousal = rng.uniform(1, 5, (2, count))
    x[:, (LAYERS - 1) * WIDTH] += strength * valence
    names = [f"s{i + 1}" for i in range(speakers) for _ in range(each)]
    return features_file(path, x, {"speaker_id": names, "valence": valence, "arousal": arousal}, **metadata)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 12).flatmap(
        lambda n: st.tuples(*[st.lists(st.floats(-1e3, 1e3, width=32), min_size=n, max_size=n)] * 3)
    )
)
def test_correlations_are_those_of_scipy(columns):
    *x, y = [np.array(column) for column in columns]
    assume(all(np.ptp(column) > 1e-3 * np.abs(column).max() for column in (*x, y)))
    found = layer_study.correlations(np.stack(x, axis=1), y)
    np.testing.assert_allclose(found, [scipy.stats.pearsonr(column, y)[0] for column in x], atol=1e-9)


def test_every_order_is_a_correlation_with_the_same_ratings_moved():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 5)), np.array([1.0, 2.0, 4.0, 8.0])
    pool = layer_study.permuted_correlations(x, y, 300, np.random.default_rng(0))
    np.testing.assert_allclose(pool[:, 0], layer_study.correlations(x, y), atol=1e-6)
    import itertools

    possible = np.array([layer_study.correlations(x, np.array(order)) for order in itertools.permutations(y)])
    nearest = np.abs(pool.T[:, None] - possible[None]).max(-1)
    assert nearest.min(1).max() < 1e-6
    assert len(set(nearest.argmin(1))) == 24  # all of them come up


def test_what_is_planted_is_found_and_the_rest_is_noise(tmp_path):
    study = layer_study.study(played(tmp_path / "f.parquet", strength=0.8))
    mean = study.maps["valence"][0]
    assert mean.state[2, 0] == BEYOND and mean.r[2, 0] > 0.5
    assert mean.outside - 1 <= mean.expected_high and study.maps["arousal"][0].beyond == 0
    assert mean.p_value > 0.01  # one cell of 24 is no unusual number
    assert int(np.argmax(study.shared["valence"].value)) == 2
    assert study.shared["valence"].value[2] > study.shared["valence"].high[2]
    assert (mean.band > 0.05).all() and mean.limit > mean.band.max()


def test_chance_is_what_it_says(tmp_path):
    """In noise, 5 % of the cells are outside their band, and 5 % of the maps have a cell beyond the common limit."""
    maps = []
    for seed in range(24):
        study = layer_study.study(played(tmp_path / "f.parquet", speakers=2, each=12, seed=seed), orders=200, seed=seed)
        maps += [study.maps[target][view] for target in study.targets for view in (0, 1, 2)]
    outside, cells = sum(each.outside for each in maps), sum(each.defined for each in maps)
    assert 0.03 < outside / cells < 0.07
    assert 0.01 < np.mean([each.beyond > 0 for each in maps]) < 0.1
    assert 0.01 < np.mean([each.p_value <= 0.05 for each in maps]) < 0.1
    assert all(each.expected <= 0.05 * each.defined for each in maps)


def test_undefined_is_never_zero(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, LAYERS * WIDTH)).astype(np.float32)
    x[:, 3] = 0.25
    x[:20, 4] = 1e6 + 0.06 * rng.integers(0, 2, 20)  # constant for s1, up to the rounding of float32
    speakers = ["s1"] * 20 + ["s2"] * 20 + ["s3"] * 2 + ["s10"] * 8
    valence, arousal = rng.uniform(1, 5, (2, 50))
    valence[20:40], arousal[40:] = 3.0, np.nan
    path = features_file(tmp_path / "f.parquet", x, {"speaker_id": speakers, "valence": valence, "arousal": arousal})
    study = layer_study.study(path)
    assert study.views == ["mean over speakers", "s1", "s2", "s3", "s10"]
    mean, s1, s2, s3, s10 = study.maps["valence"]
    assert s1.state[0, 3] == s1.state[0, 4] == UNDEFINED and np.isnan(s1.r[0, 3:5]).all() and s1.defined == 22
    assert s2.defined == s3.defined == 0 and np.isnan(s2.r).all() and np.isnan(s3.r).all()
    assert s10.defined == 23 and s10.utterances == 8
    assert mean.state[0, 3] == UNDEFINED and mean.r[0, 4] == s10.r[0, 4]
    np.testing.assert_allclose(mean.r[1], (s1.r[1] + s10.r[1]) / 2)
    assert study.maps["arousal"][3].defined == study.maps["arousal"][4].defined == 0
    out, _ = page.render([], [], tmp_path / "r.html", [path])
    cells = pd.read_csv(tmp_path / "r_layers_1.csv")
    first = cells[(cells["target"] == "valence") & (cells["layer"] == "gcu_01") & (cells["feature"] == 3)].iloc[0]
    assert first["mean_state"] == "undefined" and first[["mean", "mean_band", "r s1"]].isna().all()
    text = out.read_text()
    assert "1 are undefined" in text and "s2 (valence), s3 (valence), s3 (arousal), s10 (arousal)" in text


def test_three_utterances_are_too_few_to_show_anything(tmp_path):
    study = layer_study.study(played(tmp_path / "f.parquet", each=3))
    assert all(each.outside == 0 and each.defined == 24 for maps in study.maps.values() for each in maps[1:])


def test_pieces_of_an_utterance_are_averaged_first(tmp_path):
    rng = np.random.default_rng(3)
    pieces = rng.normal(size=(30, 2, LAYERS * WIDTH)).astype(np.float32)
    valence = rng.uniform(1, 5, 30)
    whole = features_file(tmp_path / "w.parquet", pieces.mean(1), {"speaker_id": "a", "valence": valence})
    table = {
        "id": [f"u{i}" for i in range(30)] * 2, "chunk": [0] * 30 + [1] * 30, "speaker_id": "a", "valence": [*valence] * 2
    }  # fmt: skip
    split = features_file(tmp_path / "p.parquet", pieces.swapaxes(0, 1).reshape(60, -1), table)
    one, two = (layer_study.study(path) for path in (whole, split))
    assert two.utterances == 30 and two.targets == ["valence"]
    np.testing.assert_allclose(one.maps["valence"][1].r, two.maps["valence"][1].r, atol=1e-6)


def test_speakers_of_two_corpora_stay_apart(tmp_path):
    path = played(tmp_path / "f.parquet", speakers=2)
    from ser_jax.export.features import read_features

    features = read_features(path)
    features.table["speaker_id"], features.table["corpus"] = "1", ["a"] * 40 + ["b"] * 40
    write_features(features, path)
    assert layer_study.study(path).views[1:] == ["a 1", "b 1"]


def test_features_have_the_names_of_their_pooling(tmp_path):
    study = layer_study.study(played(tmp_path / "f.parquet", pooling="mean+std"))
    assert [study.feature(place) for place in (0, 3, 4, 7)] == ["mean 0", "mean 3", "std 0", "std 3"]


@pytest.mark.parametrize(
    ("table", "options", "says"),
    [
        ({}, {"layers": 1}, "only the layer gcu_01"),
        ({}, {"columns": None}, "no named layers"),
        ({}, {"columns": [{"layer": "a", "start": 0, "stop": 5}, {"layer": "b", "start": 5, "stop": 24}]}, "5 to 19"),
        ({"valence": np.nan, "arousal": np.nan}, {}, "no valence or arousal"),
        ({"speaker_id": ""}, {}, "no speaker_id"),
        ({"speaker_id": ["a", "a", "b", "b"]}, {}, "no speaker has 3"),
    ],
)
def test_a_file_without_a_layer_study_is_named(tmp_path, table, options, says):
    x = np.arange(96, dtype=np.float32).reshape(4, 24)
    path = features_file(tmp_path / "f.parquet", x, {"speaker_id": "a", "valence": [1.0, 2, 3, 5], **table}, **options)
    with pytest.raises(UserError, match=says) as error:
        page.render([], [], tmp_path / "r.html", [path])
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert not (tmp_path / "r.html").exists()


def test_the_page_holds_every_value_and_one_script_allowed_by_its_hash(tmp_path):
    path = played(tmp_path / "f.parquet", strength=0.8, pretrained_synthetic=True)
    assert main(["report", "--layer-study", str(path), "--speaker", "s2", "--speaker", "s1", "--out", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    allowed = re.search(r"script-src '(sha256-[^']+)'", text)[1]
    assert allowed == "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert not re.search(r"(src|href)=\"(?!#|data:image/png)", text) and "import(" not in script and "fetch(" not in script
    data, study = json.loads(data), layer_study.study(path)
    for view, shown in enumerate(data["views"]):
        for target, packed in zip(data["targets"], shown["maps"]):
            code = np.frombuffer(base64.b64decode(packed), "<u2").reshape(LAYERS, WIDTH)
            each = study.maps[target][view]
            assert ((code >> 14) == each.state).all()
            np.testing.assert_allclose((code & 16383).astype(float) / 8000 - 8192 / 8000, each.r, atol=1 / 16000 + 1e-9)
    assert "SYNTHETIC" in text and data["layers"] == study.layers
    assert sorted(file.name for file in tmp_path.glob("r_*")) == [
        "r_layers_1.csv", "r_layers_1_curves.png", "r_layers_1_mean.png", "r_layers_1_speaker_1.png",
        "r_layers_1_speaker_2.png",
    ]  # fmt: skip
    assert not (tmp_path / "r.csv").exists()  # no result rows, no table of them


def test_equal_input_gives_equal_files(tmp_path):
    path = played(tmp_path / "f.parquet", each=10)
    for name in ("a", "b"):
        page.render([], [], tmp_path / name / "r.html", [path])
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert one == two and len(one) == 5


def test_markup_in_names_is_text(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x>"
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    columns = [{"layer": evil, "start": 0, "stop": 2}, {"layer": "b", "start": 2, "stop": 4}]
    path = features_file(tmp_path / "f.parquet", x, {"speaker_id": evil, "valence": np.arange(8.0)}, columns=columns,
                         corpus={"name": evil}, pooling=evil)  # fmt: skip
    text = page.render([], [], tmp_path / "r.html", [path])[0].read_text()
    assert text.count("<script") == 2 and "<img" not in text


def test_wrong_use_is_named(tmp_path):
    path = played(tmp_path / "f.parquet", each=5)
    with pytest.raises(UsageError, match="--speaker s11: .*did you mean 's1'"):
        page.render([], [], tmp_path / "r.html", [path], ["s11"])
    assert main(["report", "--out", str(tmp_path / "r.html")]) == 2
    assert main(["report", "--speaker", "s1", "--workdir", "w", "--out", str(tmp_path / "r.html")]) == 2


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a Chromium browser")
def test_the_script_fills_the_page_in_a_browser(tmp_path):
    out, _ = page.render([], [], tmp_path / "r.html", [played(tmp_path / "f.parquet", each=10)])
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom", str(out)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    box = re.search(r'<figure class="map".*?</figure>', shown, re.S)[0]
    assert not re.match(r"<figure[^>]* hidden", box)
    assert re.findall(r"<option[^>]*>([^<]*)", box) == ["mean over speakers", "s1", "s2", "s3"]
    assert box.count("cells lie outside their band; chance gives") >= 4  # two captions and two labels


def score_row(layer, target, value, number, metric="CCC", **changes):
    data = {
        "kind": "probe", "system": "wavenet", "metric": metric, "target": target, "value": value,
        "ci": [value - 0.1, value + 0.1], "chance": 0.0, "head": "ols", "stamps": [], "created": "2026-01-01",
        "secondary": {"MSE": 0.5, "MSE_fold_mean": 0.4, "MSE_fold_std": 0.1},
        "features": {"hash": "aa", "layer": layer, "layers": [layer]}, **changes,
    }  # fmt: skip
    return rows.Row(data, "results.jsonl", number, number)


def test_scores_of_single_layers_become_curves():
    given = [
        score_row("gcu_10", "arousal", 0.5, 1), score_row("gcu_2", "arousal", 0.3, 2), score_row("gcu_2", "valence", 0.1, 3),
        score_row("gcu_10", "valence", 0.2, 4, created="2026-01-02"), score_row("gcu_10", "valence", 0.9, 5),
        score_row("gcu_2", "valence", 0.8, 6, stamps=["LEAKY"]), score_row("gcu_2", "valence", 0.7, 7, head="ridge"),
        score_row("all", "valence", 0.9, 8, features={"hash": "aa", "layers": ["gcu_2", "gcu_10"]}),
    ]  # fmt: skip
    (scores,) = layer_scores.read_scores(given)  # one setting has two layers
    assert scores.layers == ["gcu_2", "gcu_10"] and scores.names == ["R1", "R2", "R3", "R4"]
    (metric, bars, targets), (other, other_bars, folds) = scores.panels
    assert (metric, list(targets), other) == ("CCC", ["valence", "arousal"], "MSE") and "folds" in other_bars
    assert [(point.layer, point.value) for point in targets["valence"]] == [("gcu_2", 0.1), ("gcu_10", 0.2)]
    assert (folds["valence"][0].value, folds["valence"][0].low) == (0.4, pytest.approx(0.3))
    assert layer_scores.best(targets["valence"], "CCC").layer == "gcu_10"
    assert layer_scores.best(targets["valence"], "MSE").layer == "gcu_2"
    assert layer_scores.read_scores(given, ["gcu_10", "gcu_2"])[0].layers == ["gcu_10", "gcu_2"]


def test_rows_that_are_drawn_as_curves_leave_the_headline_table(tmp_path):
    given = [score_row(f"gcu_{i}", "valence", i / 10, i).data for i in (1, 2)]
    given.append(score_row("all", "valence", 0.4, 3, features={"layer": "all", "layers": ["gcu_1", "gcu_2"]}).data)
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in given))
    text = page.render([file], [], tmp_path / "r.html")[0].read_text()
    head, _, study = text.partition('<h2 id="layers">')
    assert "2 results of single layers are in the" in head and ">gcu_1<" not in head and ">all<" in head
    assert "best CCC 0.200 at gcu_2" in study and ">gcu_1<" in study
    assert (tmp_path / "r_scores_1.png").is_file() and "<script" not in text
