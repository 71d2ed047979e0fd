"""Regression heads, selection of features, layer sets and their comparison: parity, no leak, the stamped leak."""

import argparse
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax import probe
from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, read_features, write_features
from ser_jax.heads import make_head
from ser_jax.heads.comparison import compare
from ser_jax.heads.cross_validation import cross_validate
from ser_jax.heads.layers import layer_sets
from ser_jax.heads.linear import load_head
from ser_jax.heads.selection import f_scores, strongest
from ser_jax.intervals import paired_test, speaker_bootstrap
from ser_jax.metrics import ccc, mse, pearson
from ser_jax.protocols.protocol import Fold, Protocol
from ser_jax.results import print_rows, read_rows

LAYERS = ["gcu_01", "gcu_02", "gcu_03", "gcu_04"]
WIDTH = 6  # values of a layer


def _toy(speakers=5, each=16, signal=0.7, seed=0, chunks=1):
    """Valence in layers 1 and 2, arousal in layer 4."""
    rng = np.random.default_rng(seed)
    n = speakers * each
    speaker = np.repeat(np.arange(speakers), each)
    ratings = np.clip(3 + rng.normal(size=(n, 2)), 1, 5).round(2)
    x = rng.normal(size=(n, len(LAYERS) * WIDTH)) + 0.5 * rng.normal(size=(speakers, 1))[speaker]
    x[:, : 2 * WIDTH] += signal * (ratings[:, :1] - 3) * rng.normal(size=2 * WIDTH)
    x[:, 3 * WIDTH :] += signal * (ratings[:, 1:] - 3) * rng.normal(size=WIDTH)
    table = pd.DataFrame(
        {
            "id": [f"u{i:03d}" for i in range(n)],
            "corpus": "toy",
            "speaker_id": [f"s{i}" for i in speaker],
            "emotion": np.array(["angry", "happy", "sad"])[rng.integers(0, 3, n)],
            "valence": ratings[:, 0],
            "arousal": ratings[:, 1],
            "age": 20 + speaker,
            "audio_sha256": [f"h{i}" for i in range(n)],
        }
    )
    table = pd.concat([table.assign(chunk=c) for c in range(chunks)], ignore_index=True)
    x = np.concatenate([x + 0.5 * rng.normal(size=x.shape) for _ in range(chunks)]).astype(np.float32)
    columns = [{"layer": name, "start": i * WIDTH, "stop": (i + 1) * WIDTH} for i, name in enumerate(LAYERS)]
    return Features(table, x, {"kind": "toy", "layer": "gcu_*", "pooling": "mean", "columns": columns})


def _run(*options):
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args([str(option) for option in options]))


@pytest.fixture
def toy_file(tmp_path):
    write_features(_toy(), tmp_path / "toy.parquet")
    return tmp_path / "toy.parquet"


@pytest.mark.parametrize("count", [5, 24, None])
def test_ols_is_the_pipeline_of_scikit_learn(count):
    from sklearn.feature_selection import SelectKBest, f_regression
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline

    features = _toy()
    x, y = features.embedding.astype(np.float64), features.table["valence"].to_numpy()
    pipeline = make_pipeline(SelectKBest(f_regression, k=count or "all"), LinearRegression())
    expected = cross_val_predict(pipeline, x, y, groups=features.table["speaker_id"], cv=LeaveOneGroupOut())
    outcome = cross_validate(features, "valence", "loso", "ols", select=count)
    found = outcome.predictions.set_index("id").loc[features.table["id"]]
    assert found["prediction"].to_numpy() == pytest.approx(expected, abs=1e-9)
    assert (found["truth"].to_numpy() == y).all()


def test_ols_with_more_features_than_rows_takes_the_least_norm_and_says_so():
    from sklearn.linear_model import LinearRegression

    features = _toy(speakers=3, each=6)
    outcome = cross_validate(features, "arousal", "loso", "ols")
    for speaker, part in outcome.predictions.groupby("speaker_id"):
        test = (features.table["speaker_id"] == speaker).to_numpy()
        x, y = features.embedding.astype(np.float64), features.table["arousal"].to_numpy()
        reference = LinearRegression().fit(x[~test], y[~test])
        assert part["prediction"].to_numpy() == pytest.approx(reference.predict(x[test]), abs=1e-6)
    assert any("no single answer in 3 of 3 folds" in note for note in outcome.notes)
    assert outcome.row["folds"][0]["chosen"] == {"rank": 11}


@pytest.mark.parametrize("each", [8, 4])  # more rows than features, and the other way round
def test_ridge_is_that_of_scikit_learn_with_the_penalty_of_whole_inner_speakers(each):
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = _toy(speakers=5, each=each)
    features.embedding[:, 3] = 2.0  # a constant feature
    x, y = features.embedding.astype(np.float64), features.table["valence"].to_numpy()
    speakers = features.table["speaker_id"].to_numpy(dtype=object)
    model = make_head("ridge").fit(features.embedding, y, speakers, None)
    errors = {}
    for alpha in make_head("ridge").grid:
        pipeline = make_pipeline(StandardScaler(), Ridge(alpha))
        errors[alpha] = np.mean((cross_val_predict(pipeline, x, y, groups=speakers, cv=GroupKFold(5)) - y) ** 2)
    assert list(model.chosen["inner_MSE"].values()) == pytest.approx(list(errors.values()))
    best = min(errors, key=errors.get)
    assert model.chosen["alpha"] == best and model.chosen["inner"] == "speakers"
    expected = make_pipeline(StandardScaler(), Ridge(best)).fit(x, y).predict(x)
    assert model.predict(x) == pytest.approx(expected, abs=1e-9)
    lone = make_head("ridge").fit(features.embedding, y, np.zeros(len(y)), None)
    assert lone.chosen["inner"] == "rows (one training speaker)"


@pytest.mark.parametrize("target", ["numbers", "labels"])
def test_scores_are_those_of_scikit_learn_and_ties_go_to_the_first(target):
    from sklearn.feature_selection import f_classif, f_regression

    rng = np.random.default_rng(1)
    numbers = rng.normal(size=50)
    labels = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, 50)]
    x = (10 + rng.normal(size=(50, 40)) * rng.gamma(1, size=40) + numbers[:, None] * rng.normal(size=40)).astype("f4")
    y, reference = (numbers, f_regression) if target == "numbers" else (labels, f_classif)
    assert f_scores(x, y) == pytest.approx(reference(x.astype(np.float64), y)[0], rel=1e-7)
    best = int(np.argmax(f_scores(x, y)))
    twice = np.concatenate([x, x[:, [best] * 3], np.full((50, 1), 0.1, "f4")], axis=1)
    assert strongest(twice, y, 3).tolist() == sorted([best, 40, 41])
    assert f_scores(twice, y)[-1] == 0
    exact = np.stack([x[:, 0], numbers if target == "numbers" else (labels == "a") * 1.0], axis=1)
    assert strongest(exact, numbers if target == "numbers" else exact[:, 1].astype(str), 1).tolist() == [1]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fold=st.integers(0, 3),
    head=st.sampled_from(["ols", "ridge", "linear"]),
    select=st.sampled_from([None, 1, 7]),
)
def test_labels_of_the_test_part_never_move_a_prediction(seed, fold, head, select):
    """Whatever the tested rows are called, the fold predicts the same."""
    features, rng = _toy(speakers=4, each=6, seed=seed % 7), np.random.default_rng(seed)
    target = "emotion" if head == "linear" else "valence"
    protocol = cross_validate(features, target, "loso", head, select=2).protocol
    single = Protocol("one", "", (protocol.folds[fold],))
    test = features.table["id"].isin(single.ids("test")).to_numpy()
    other = Features(features.table.copy(), features.embedding, features.metadata)
    values = rng.permutation(other.table[target][test]) if head == "linear" else rng.uniform(-100, 100, test.sum())
    other.table.loc[test, target] = values
    if head == "linear" and set(values) != set(features.table[target]):
        return  # UAR needs every class
    found = [cross_validate(f, target, single, head, select=select).predictions for f in (features, other)]
    assert (found[0]["prediction"] == found[1]["prediction"]).all()


def test_the_leak_stands_beside_the_honest_row_and_is_stamped(tmp_path, capsys):
    rng = np.random.default_rng(0)
    noise = _toy(signal=0, speakers=6, each=10)
    noise = Features(noise.table, rng.normal(size=(60, 600)), {"kind": "noise"})
    write_features(noise, tmp_path / "noise.npz")
    options = ("--features", tmp_path / "noise.npz", "--protocol", "loso", "--out", tmp_path, "--select", 8)
    assert _run(*options, "--target", "valence", "--head", "ols", "--selection", "all-data") == 0
    honest, leak = read_rows(tmp_path)
    assert honest["stamps"] == [] and leak["stamps"] == ["LEAKY"]
    assert honest["value"] < 0.2 < 0.4 < leak["value"]  # CCC on pure noise
    assert honest["features"]["selection"] == "training" and leak["features"]["selection"] == "all-data"
    assert honest["head"] == "ols select=8" and leak["head"] == "ols select=8 selection=all-data"
    assert "historical leak" in leak["selection"] and any(note.startswith("LEAKY") for note in leak["notes"])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 3 and "LEAKY" not in lines[1] and lines[2].endswith("LEAKY") and "LEAKY" in printed.err
    assert honest["predictions"] != leak["predictions"]

    assert _run(*options, "--selection", "all-data", "--head", "compare") == 0  # labels too
    *_, honest, leak = read_rows(tmp_path)
    assert leak["value"] > honest["value"] + 0.1 and leak["stamps"] == ["LEAKY"] and "f_classif" in leak["selection"]
    # A comparison with "the last row" means the last honest one.
    _run(*options, "--target", "valence", "--head", "ols", "--versus", tmp_path)
    assert read_rows(tmp_path)[-1]["versus"]["difference"] == 0


def test_a_row_of_a_regression_can_be_had_from_its_predictions():
    outcome = cross_validate(_toy(), "valence", "loso", "ridge")
    row, table = outcome.row, outcome.predictions
    truth, prediction = table["truth"], table["prediction"]
    assert row["metric"] == "CCC" and row["value"] == pytest.approx(ccc(truth, prediction)) and row["value"] > 0.4
    assert tuple(row["ci"]) == speaker_bootstrap(truth, prediction, table["speaker_id"], "CCC")
    assert (row["n"], row["n_speakers"], row["chance"]) == (80, 5, 0) and "classes" not in row
    folds = [part for _, part in table.groupby("fold")]
    for name, function in {"CCC": ccc, "MSE": mse, "Pearson": pearson}.items():
        values = [function(part["truth"], part["prediction"]) for part in folds]
        assert [fold[name] for fold in row["folds"]] == pytest.approx(values)
        assert row["secondary"][name] == pytest.approx(function(truth, prediction))
        assert row["secondary"][f"{name}_fold_mean"] == pytest.approx(np.mean(values))
        assert row["secondary"][f"{name}_fold_std"] == pytest.approx(np.std(values))
    error = cross_validate(_toy(), "valence", outcome.protocol, "ridge", metric="MSE")
    assert error.row["value"] == pytest.approx(mse(truth, prediction)) and error.predictions.equals(table)
    assert error.row["chance"] == pytest.approx(np.var(truth)) and "ddof 0" in error.row["fold_pooling"]
    assert error.row["folds"][0]["value"] == error.row["folds"][0]["MSE"]


def test_a_fold_in_which_a_metric_is_not_defined_is_said():
    features = _toy()
    features.table.loc[features.table["speaker_id"] == "s0", "valence"] = 3.0
    row = cross_validate(features, "valence", "loso", "ols").row
    assert row["folds"][0]["Pearson"] is None and "Pearson is not defined in 1 of 5 folds" in row["fold_pooling"]
    assert row["secondary"]["Pearson_fold_mean"] == pytest.approx(np.mean([f["Pearson"] for f in row["folds"][1:]]))


def test_the_numbers_of_chunks_are_averaged():
    features = _toy(chunks=3)
    outcome = cross_validate(features, "valence", "loso", "ols", keep_head=True)
    assert outcome.row["n"] == 80
    ids, test = features.table["id"], features.table["speaker_id"] == "s1"
    single = Protocol("one", "", (Fold("s1", tuple(ids[~test]), (), tuple(ids[test])),))
    model = cross_validate(features, "valence", single, "ols", keep_head=True).head
    mean = pd.Series(model.predict(features.embedding)).groupby(features.table["id"]).mean()
    of_s1 = outcome.predictions[outcome.predictions["fold"] == "s1"]
    assert of_s1["prediction"].to_numpy() == pytest.approx(mean.loc[of_s1["id"]].to_numpy())


def test_layer_sets_of_the_command_line(toy_file, tmp_path, capsys):
    common = ("--features", toy_file, "--protocol", "loso", "--target", "arousal", "--head", "ols", "--out", tmp_path)
    for text in ("first-3", "last-1", "all", "gcu_04,gcu_02"):
        assert _run(*common, "--layers", text) == 0
    rows = read_rows(tmp_path)
    assert [row["features"]["layer"] for row in rows] == ["first-3", "last-1", "all", "gcu_04,gcu_02"]
    assert [row["features"]["layers"] for row in rows] == [LAYERS[:3], LAYERS[3:], LAYERS, ["gcu_02", "gcu_04"]]
    assert rows[1]["value"] > rows[0]["value"] + 0.3  # arousal is in layer 4
    whole = cross_validate(read_features(toy_file), "arousal", "loso", "ols")
    assert rows[2]["value"] == pytest.approx(whole.row["value"]) and whole.row["features"]["layer"] == "gcu_*"
    capsys.readouterr()

    _run(*common, "--layers", "each", "--select", 2, "--metric", "Pearson", "--versus", f"{tmp_path}/results.jsonl:1")
    each = read_rows(tmp_path)[4:]
    assert [row["features"]["layers"] for row in each] == [[name] for name in LAYERS]
    assert [row["features"]["layer"] for row in each] == LAYERS and {row["metric"] for row in each} == {"Pearson"}
    printed = capsys.readouterr()
    rows_table, versus_table = (part.splitlines() for part in printed.out.split("\n\n"))
    assert len(rows_table) == len(versus_table) == 5 and "4 comparisons, each by itself" in printed.err
    assert rows_table[0].split("\t")[9:13] == ["fold std", "CCC", "MSE", "Pearson"]
    assert versus_table[4].split("\t")[0] == "gcu_04:mean"
    with pytest.raises(UsageError, match="takes one set of layers"):
        _run(*common, "--layers", "each", "--save-head", tmp_path / "h.npz")
    for text, match in (
        ("first-9", "the features have 4 layer"),
        ("gcu_1", "did you mean 'gcu_01'"),
        ("frist-3", "did you mean 'first-3'"),
    ):
        with pytest.raises(UsageError, match=match):
            _run(*common, "--layers", text)
    with pytest.raises(UserError, match="do not tell"):
        layer_sets(Features(whole.predictions[["id"]], np.zeros((80, 3)), {}), "all")


def test_selected_features_are_counted_per_layer(toy_file):
    row = cross_validate(read_features(toy_file), "arousal", "loso", "ols", select=4).row
    assert [sum(fold["selected"].values()) for fold in row["folds"]] == [4] * 5
    assert sum(fold["selected"]["gcu_04"] for fold in row["folds"]) > 15  # of 20
    assert row["features"]["select"] == 4 and "inside every training part" in row["selection"]


def test_layer_sets_are_compared_over_speakers(toy_file, tmp_path):
    features = read_features(toy_file)
    last, first = (cross_validate(features, "arousal", "loso", "ols", layers=text) for text in ("last-1", "first-3"))
    found = compare(last.predictions, first.predictions, "MSE")
    both = last.predictions.merge(first.predictions, on="id")
    expected = paired_test(both["truth_x"], both["prediction_x"], both["prediction_y"], both["speaker_id_x"], "MSE")
    assert {key: found[key] for key in expected} == expected
    assert found["difference"] < 0 and found["p_value"] == 2 / 2**5 and found["only_here"] == 0

    common = ("--features", toy_file, "--protocol", "loso", "--head", "ols", "--out", tmp_path / "out")
    _run(*common, "--target", "arousal", "--layers", "first-3")
    _run(*common, "--target", "arousal", "--layers", "last-1", "--metric", "MSE", "--versus", tmp_path / "out")
    versus = read_rows(tmp_path / "out")[1]["versus"]
    assert versus["difference"] == pytest.approx(found["difference"]) and versus["p_value"] == found["p_value"]
    _run(*common, "--target", "emotion", "--head", "logistic")
    with pytest.raises(UserError, match="no numbers"):
        _run(*common, "--target", "arousal", "--versus", f"{tmp_path}/out/results.jsonl:3")
    moved = first.predictions.assign(truth=first.predictions["truth"] + 1)
    with pytest.raises(UserError, match="truth differs for 80 of 80"):
        compare(last.predictions, moved, "CCC")


def test_a_saved_regression_predicts_alike(toy_file, tmp_path):
    options = ("--features", toy_file, "--protocol", "loso", "--target", "valence", "--out", tmp_path)
    _run(*options, "--head", "ridge", "--select", 5, "--selection", "all-data", "--layers", "first-3", "--save-head",
         tmp_path / "h.npz")
    features = read_features(toy_file)
    part = features.select_layers(LAYERS[:3])
    model = load_head(tmp_path / "h.npz", part)
    assert (model.coef != 0).sum() == 5 and model.coef.shape == (1, 18) and model.classes == []
    outcome = cross_validate(features, "valence", "loso", "ridge", select=5, layers="first-3", keep_head=True)
    assert model.predict(part.embedding) == pytest.approx(outcome.head.predict(part.embedding), abs=1e-12)
    assert pearson(features.table["valence"], model.predict(part.embedding)) > 0.6
    assert outcome.head_rows == "all 80 labelled units, those of the test parts included"
    with pytest.raises(UserError, match="gcu_01,gcu_02,gcu_03 but here gcu_"):
        load_head(tmp_path / "h.npz", features)


def test_which_rows_and_columns_are_numbers(toy_file, tmp_path, capsys):
    features = _toy()
    features.table.loc[:15, "valence"] = np.nan
    outcome = cross_validate(features, "valence", "kfold", folds=2)  # ridge, the default for floats
    assert outcome.row["head"] == "ridge" and outcome.row["n"] == 64
    assert "16 utterances without valence left out" in outcome.notes
    assert "stratified" not in outcome.protocol.description
    assert cross_validate(features, "age", "loso", "ols").row["metric"] == "CCC"  # whole numbers, when asked to

    def refused(kind, match, **options):
        with pytest.raises(kind, match=match) as error:
            cross_validate(features, **{"target": "valence", "head": "ols", **options})
        assert "\n" not in str(error.value)

    refused(UsageError, "holds text, and this head predicts numbers; number columns: valence, a", target="emotion")
    refused(UsageError, "did you mean 'arousal'", target="arousel")
    refused(UsageError, "did you mean 'Pearson'", metric="Pearsn")
    refused(UsageError, "--vote compare2020: the numbers", vote="compare2020")
    refused(UsageError, "--classes: head ols predicts numbers", classes=["sad"])
    refused(UsageError, "more than one set", layers="each")
    refused(UserError, "no row has a number", target="dominance")
    features.table["valence"] = 3.0
    refused(UserError, "every row has the value 3; nothing to predict")


def test_rows_of_labels_and_numbers_are_printed_apart(toy_file, tmp_path, capsys):
    common = ("--features", toy_file, "--protocol", "loso", "--out", tmp_path / "rows.jsonl")
    _run(*common, "--target", "valence", "--head", "ols", "--metric", "MSE")
    _run(*common, "--target", "emotion", "--head", "logistic")
    capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    print_rows(rows)
    labels, numbers = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    shown = dict(zip(numbers[0].split("\t"), numbers[1].split("\t")))
    assert shown["value"] == shown["MSE"] == f"{rows[0]['value']:.3f}" and shown["speakers"] == "5"
    assert shown["fold std"] == f"{rows[0]['secondary']['MSE_fold_std']:.3f}" and shown["chance"] != "0.000"
    assert "WAR" in labels[0] and "fold std" not in labels[0] and len(labels) == len(numbers) == 2
