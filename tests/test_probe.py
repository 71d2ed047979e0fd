"""The probe verb and its heads: the published recipe, no leak into selection, votes, comparisons, errors."""

import argparse
import json

import numpy as np
import pandas as pd
import pytest

from ser_jax import probe
from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, read_features, write_features
from ser_jax.heads import HEADS, is_seeded, make_head
from ser_jax.heads.comparison import compare
from ser_jax.heads.cross_validation import cross_validate
from ser_jax.heads.linear import load_head, save_head
from ser_jax.heads.svm import CompareHead, upsampling_factors
from ser_jax.heads.vote import unit_labels, vote
from ser_jax.intervals import speaker_bootstrap
from ser_jax.metrics import uar
from ser_jax.protocols.protocol import Fold, Protocol, read_protocol
from ser_jax.results import read_rows

EMOTIONS = np.array(["angry", "happy", "sad"])


def _toy(speakers=6, each=20, size=8, signal=0.8, seed=0, chunks=1):
    rng = np.random.default_rng(seed)
    n = speakers * each
    speaker, label = np.repeat(np.arange(speakers), each), rng.integers(0, 3, n)
    x = signal * rng.normal(size=(3, size))[label] + 0.4 * rng.normal(size=(speakers, size))[speaker]
    table = pd.DataFrame(
        {
            "id": [f"u{i:03d}" for i in range(n)],
            "corpus": "toy",
            "speaker_id": [f"s{i}" for i in speaker],
            "gender": np.where(speaker % 2, "male", "female"),
            "session": [f"session{i // 2}" for i in speaker],
            "emotion": EMOTIONS[label],
            "text": [f"sentence {i}" for i in range(n)],
            "split": [["train", "train", "train", "dev", "test", "test"][i % 6] for i in speaker],
            "audio_sha256": [f"h{i}" for i in range(n)],
        }
    )
    table = pd.concat([table.assign(chunk=c) for c in range(chunks)], ignore_index=True)
    x = np.concatenate([x + rng.normal(size=x.shape) for _ in range(chunks)]).astype(np.float32)
    metadata = {
        "kind": "toy",
        "layer": "conv",
        "pooling": "mean",
        "checkpoint": {"hash": "c0", "step": 5},
        "experiment": {"name": "toy_run"},
        "corpus": {"name": "toy", "fingerprint": "fp", "synthetic": False},
    }
    return Features(table, x, metadata)


def _run(*options):
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args([str(option) for option in options]))


@pytest.fixture
def toy_file(tmp_path):
    write_features(_toy(), tmp_path / "toy.parquet")
    return tmp_path / "toy.parquet"


def _published_recipe(x, y, dev):
    """ComParE 2020, as its scripts write it: a pipeline with the dual solver."""
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import LinearSVC

    def balanced(x, y):
        sizes = {label: int(np.sum(y == label)) for label in set(y)}
        rows = [i for i in range(len(y)) for _ in range(max(sizes.values()) // sizes[y[i]])]
        return x[rows], y[rows]

    best, scores = None, {}
    for c in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0):
        model = make_pipeline(MinMaxScaler(), LinearSVC(C=c, random_state=0, max_iter=10_000, dual=True))
        model.fit(*balanced(x[~dev], y[~dev]))
        scores[c] = recall_score(y[dev], model.predict(x[dev]), labels=sorted(set(y)), average="macro")
        best = c if best is None or scores[c] > scores[best] else best
    model = make_pipeline(MinMaxScaler(), LinearSVC(C=best, random_state=0, max_iter=10_000, dual=True))
    return best, scores, model.fit(*balanced(x, y))


@pytest.mark.parametrize("size", [8, 300])  # more rows than features, and the other way round
def test_compare_head_is_the_published_recipe(size):
    features = _toy(size=size, signal=0.3, seed=1)
    x, y = features.embedding, features.table["emotion"].to_numpy(dtype=object)
    keep = np.ones(len(y), bool)
    keep[np.flatnonzero(y == "sad")[::2]] = keep[np.flatnonzero(y == "sad")[1::4]] = False  # unequal classes
    x, y, dev = x[keep], y[keep], (features.table["speaker_id"] == "s1").to_numpy()[keep]
    model = CompareHead().fit(x, y, None, dev)
    c, scores, expected = _published_recipe(x.astype(np.float64), y, dev)
    assert model.chosen["C"] == c and list(model.chosen["dev_UAR"].values()) == pytest.approx(list(scores.values()))
    other = _toy(size=size, signal=0.3, seed=2).embedding
    assert model.scores(other) == pytest.approx(expected.decision_function(other), abs=5e-3)  # two solvers, one optimum
    assert (model.predict(other) == expected.predict(other)).all() and model.unconverged == 0


def test_upsampling_is_by_whole_factors():
    y = np.array(list("aaaaaaabbc"), dtype=object)
    assert dict(zip(y, upsampling_factors(y))) == {"a": 1, "b": 3, "c": 7}


@pytest.mark.parametrize("labels", ["ab", "abc"])
@pytest.mark.parametrize("size", [6, 39, 40, 60])  # more rows than features, as many, and the other way round
@pytest.mark.parametrize("name", ["linear", "logistic"])
def test_linear_and_logistic_are_those_of_scikit_learn(name, size, labels):
    """Our solver finds, for every C of the path, the optimum that scikit-learn creeps up to."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(size)
    y = np.array(list(labels), dtype=object)[(rng.random(40) ** 2 * len(labels)).astype(int)]  # unequal classes
    x = rng.normal(size=(40, size)) * rng.gamma(1, size=size) + 5 + (y == "a")[:, None] * rng.normal(size=size)
    x[:, 3] = 7.0  # a constant feature
    scaler, other = StandardScaler().fit(x), rng.normal(size=(40, size)) + 5
    grid = (1e-4, 1e-2, 1.0)
    for c, model in zip(grid, make_head(name).path(x, y, grid)):
        if name == "linear":
            reference = LinearSVC(C=c, class_weight="balanced", dual=False, tol=1e-10, max_iter=100_000)
        else:
            reference = LogisticRegression(C=c, class_weight="balanced", solver="newton-cg", tol=1e-8, max_iter=1000)
        reference.fit(scaler.transform(x), y.astype(str))
        expected = reference.decision_function(scaler.transform(other))
        if len(labels) == 2:
            expected = np.stack([-expected, expected], axis=1)
        assert model.scores(other) == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
        assert model.unconverged == 0 and (model.predict(other) == reference.predict(scaler.transform(other))).all()


def _heads(predicts):
    heads = [make_head(name) for name in HEADS]
    return [head.name for head in heads if head.predicts == predicts and not is_seeded(head)]


def test_equal_dev_scores_choose_the_smallest_c():
    y = np.array(["a", "b"] * 20, dtype=object)
    x = np.where(y == "a", 0.0, 1.0)[:, None].astype(np.float32)
    for name in _heads("labels"):
        head = make_head(name)
        model = head.fit(x, y, np.arange(40) % 4, np.arange(40) % 4 == 0)
        assert model.chosen["C"] == min(head.grid) and (model.predict(x) == y).all()


@pytest.mark.parametrize("select", [None, 5])
@pytest.mark.parametrize("name", _heads("labels"))
def test_selection_and_scaling_do_not_see_the_test_part(name, select):
    features = _toy(speakers=4)
    outcome = cross_validate(features, protocol="loso", head=name, select=select)
    fold = outcome.protocol.folds[0]
    test = features.table["id"].isin(fold.test).to_numpy()
    corrupt = Features(features.table.copy(), features.embedding.copy(), features.metadata)
    corrupt.embedding[test] = 1e4 * np.random.default_rng(0).normal(size=corrupt.embedding[test].shape)
    corrupt.table.loc[test, "emotion"] = np.roll(corrupt.table["emotion"][test].to_numpy(), 1)
    single = Protocol("one", "", (fold,))
    both = [cross_validate(f, protocol=single, head=name, select=select, keep_head=True) for f in (features, corrupt)]
    models = [outcome.head for outcome in both]
    assert models[0].chosen == models[1].chosen
    for field in ("shift", "scale", "coef", "intercept"):
        assert (getattr(models[0], field) == getattr(models[1], field)).all()
    train = features.embedding[~test].astype(np.float64)
    used = (models[0].coef != 0).any(axis=0)
    assert used.sum() == (select or 8)
    shift = train.min(0) if name == "compare" else train.mean(0)
    assert models[0].shift == pytest.approx(np.where(used, shift, 0))


def test_inner_folds_are_of_whole_speakers():
    """A feature that only tells speakers apart, whose labels are constant per speaker, must look worthless inside."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(12), 20)
    y = np.array(["a", "b"], dtype=object)[speaker % 2]
    x = (np.eye(12)[speaker] + 0.01 * rng.normal(size=(240, 12))).astype(np.float32)
    inner = make_head("linear").fit(x, y, speaker.astype(str), np.zeros(240, bool)).chosen["inner_UAR"]
    assert max(inner.values()) < 0.75
    lone = make_head("linear").fit(x, y, np.zeros(240), np.zeros(240, bool)).chosen
    assert lone["inner"] == "rows (one training speaker)" and max(lone["inner_UAR"].values()) == 1


def test_pooled_numbers_can_be_had_from_the_predictions():
    outcome = cross_validate(_toy(), protocol="loso", head="linear")
    row, table = outcome.row, outcome.predictions
    assert row["value"] == pytest.approx(uar(table["truth"], table["prediction"])) and row["value"] > 0.5
    assert (row["n"], row["n_speakers"], row["chance"]) == (120, 6, pytest.approx(1 / 3))
    assert row["ci"][0] < row["value"] < row["ci"][1] and "6 speakers: too narrow" in row["ci_method"]
    assert tuple(row["ci"]) == speaker_bootstrap(table["truth"], table["prediction"], table["speaker_id"], "UAR")
    assert np.sum(row["confusion"]) == 120 and len(row["folds"]) == 6
    assert row["secondary"]["UAR_fold_mean"] == pytest.approx(np.mean([fold["value"] for fold in row["folds"]]))
    assert row["secondary"]["WAR"] == pytest.approx(np.mean(table["truth"] == table["prediction"]))
    assert row["experiment"] == "toy_run" and row["checkpoint"] == {"hash": "c0", "step": 5} and row["stamps"] == []
    features, fold = _toy(), outcome.protocol.folds[0]
    train = features.table["id"].isin(fold.train + fold.dev).to_numpy()
    labels, speakers = (features.table[column][train].to_numpy(dtype=object) for column in ("emotion", "speaker_id"))
    alone = make_head("linear").fit(features.embedding[train], labels, speakers, None)
    assert row["folds"][0]["chosen"] == alone.chosen
    again = cross_validate(_toy(), protocol=outcome.protocol, head="linear")
    assert again.predictions.equals(table) and again.row["ci"] == row["ci"]
    parallel = cross_validate(_toy(), protocol=outcome.protocol, head="linear", jobs=2)
    assert parallel.predictions.equals(table)


def test_noise_is_at_chance():
    features = _toy(speakers=8, each=30, signal=0)
    row = cross_validate(features, protocol="loso", head="compare").row
    assert abs(row["value"] - 1 / 3) < 0.1


def test_votes_and_ties():
    classes = ["angry", "happy", "sad"]
    scores = np.array(
        [
            [3.0, 0, 0],
            [0, 1, 0],
            [0, 1, 0],  # u: one loud angry, two weak happy
            [0, 0, 1],
            [0, 1, 0],  # v: sad and happy once each
            [-1, -1, -1],
        ]
    )  # w: all equal
    units = ["u", "u", "u", "v", "v", "w"]
    names, found = vote(scores, units, classes)
    assert names.tolist() == ["u", "v", "w"] and found.tolist() == ["angry", "happy", "angry"]
    assert vote(scores, units, classes, "compare2020")[1].tolist() == ["happy", "happy", "angry"]
    order = [5, 3, 1, 4, 0, 2]
    assert vote(scores[order], [units[i] for i in order], classes)[1].tolist() == found.tolist()
    assert unit_labels(["sad", "happy", "sad", "sad", "happy"], ["b", "a", "a", "a", "c"])[1].tolist() == [
        "sad",
        "sad",
        "happy",
    ]
    assert unit_labels(["sad", "happy"], ["a", "a"])[1].tolist() == ["happy"]


def test_chunks_vote_for_utterances_and_utterances_for_stories():
    single, double = _toy(signal=0.5), _toy(signal=0.5, chunks=5)
    one, five = (cross_validate(f, protocol="loso").row for f in (single, double))
    assert one["n"] == five["n"] == 120 and five["value"] > one["value"]
    stories = _toy()
    stories.table["chunk_of"] = stories.table["speaker_id"] + stories.table["emotion"]
    outcome = cross_validate(stories, protocol="loso", vote="compare2020")
    assert outcome.row["n"] == 18 and outcome.row["head"] == "linear vote=compare2020"
    assert set(outcome.predictions["id"]) == set(stories.table["chunk_of"])


def test_probe_writes_row_predictions_and_protocol(toy_file, tmp_path, capsys):
    assert (
        _run(
            "--features",
            toy_file,
            "--protocol",
            "loso",
            "--head",
            "compare",
            "--out",
            tmp_path / "out",
            "--save-protocol",
            tmp_path / "loso.json",
        )
        == 0
    )
    printed = capsys.readouterr().out.splitlines()
    [row] = read_rows(tmp_path / "out")
    header, cells = printed[0].split("\t"), printed[1].split("\t")
    shown = dict(zip(header, cells))
    assert shown["value"] == f"{100 * row['value']:.1f}" and shown["n"] == "120" and shown["speakers"] == "6"
    assert shown["chance"] == "33.3" and shown["protocol"] == "loso" and ".." in shown["95% CI"]
    assert printed[3].split("\t") == ["truth \\ prediction", "angry", "happy", "sad"]
    assert printed[4].split("\t") == ["angry", *map(str, row["confusion"][0])]
    predictions = pd.read_parquet(tmp_path / "out" / row["predictions"])
    assert list(predictions.columns) == ["id", "speaker_id", "audio_sha256", "fold", "truth", "prediction"]
    assert len(predictions) == 120
    [kept] = (tmp_path / "out" / "protocols").iterdir()
    assert read_protocol(kept).hash == row["protocol"]["hash"] == read_protocol(tmp_path / "loso.json").hash
    assert row["features"]["hash"] == read_features(toy_file).metadata["features_hash"]

    # The saved protocol gives the same folds and thus the same predictions.
    assert (
        _run(
            "--features",
            toy_file,
            "--protocol",
            tmp_path / "loso.json",
            "--head",
            "compare",
            "--out",
            tmp_path / "again" / "rows.jsonl",
            "--versus",
            tmp_path / "out",
        )
        == 0
    )
    [again] = map(json.loads, (tmp_path / "again" / "rows.jsonl").read_text().splitlines())
    assert again["value"] == row["value"] and again["protocol"]["hash"] == row["protocol"]["hash"]
    assert again["versus"]["p_value"] == 1 and again["versus"]["difference"] == 0 and again["versus"]["n"] == 120


def test_versus_counts_what_is_missing_on_one_side(toy_file, tmp_path, capsys):
    out = tmp_path / "out"
    _run("--features", toy_file, "--protocol", "loso", "--out", out)
    _run(
        "--features",
        toy_file,
        "--protocol",
        "official",
        "--head",
        "compare",
        "--out",
        out,
        "--versus",
        f"{out}/results.jsonl:1",
    )
    versus = read_rows(out)[1]["versus"]
    assert (versus["n"], versus["only_here"], versus["only_there"], versus["n_speakers"]) == (40, 0, 80, 2)
    assert 0 < versus["p_value"] <= 1 and "only there" in capsys.readouterr().out
    predictions = pd.read_parquet(out / read_rows(out)[0]["predictions"])
    with pytest.raises(UserError, match="truth differs for 120 of 120"):
        compare(predictions, predictions.assign(truth="calm"), "UAR", list(EMOTIONS))
    with pytest.raises(UserError, match="no tested unit in common"):
        compare(predictions, predictions.assign(id="x" + predictions["id"]), "UAR", list(EMOTIONS))
    with pytest.raises(UserError, match="has 2 rows"):
        _run("--features", toy_file, "--protocol", "loso", "--out", out, "--versus", f"{out}/results.jsonl:3")
    with pytest.raises(UserError, match="no row with predictions of target 'gender'"):
        _run("--features", toy_file, "--protocol", "loso", "--target", "gender", "--out", out, "--versus", out)


def test_rows_left_out_are_counted_and_said(tmp_path, capsys):
    features = _toy()
    features.table.loc[features.table["speaker_id"] == "s0", "emotion"] = ""
    features.table.loc[[30, 31], "emotion"] = "bored"
    write_features(features, tmp_path / "f.npz")
    _run(
        "--features",
        tmp_path / "f.npz",
        "--protocol",
        "kfold",
        "--folds",
        3,
        "--classes",
        "sad,happy+angry",
        "--where",
        "gender=female,male",
        "--where",
        "speaker_id!=s5",
        "--out",
        tmp_path,
    )
    said = capsys.readouterr().err
    assert "20 utterances without emotion left out" in said and "2 utterances of other classes left out (bored)" in said
    [row] = read_rows(tmp_path)
    assert row["n"] == 78 and row["classes"] == ["happy", "sad"] and row["features"]["where"][1] == "speaker_id!=s5"
    assert any("without emotion" in note for note in row["notes"])


def test_a_protocol_of_which_ids_are_missing(tmp_path):
    features = _toy()
    protocol = cross_validate(features, protocol="loso").protocol
    part = features.rows((features.table["speaker_id"] != "s3") & (features.table["id"] != "u000"))
    outcome = cross_validate(part, protocol=protocol)
    assert "21 of 120 utterances of the protocol are not among the labelled rows, e.g. 'u000'" in outcome.notes
    assert "1 of 6 folds left out: nothing to train on or test" in outcome.notes
    assert outcome.row["n"] == 99 and outcome.row["protocol"]["hash"] != protocol.hash
    few = Protocol("few", "", protocol.folds[:2])
    assert cross_validate(features, protocol=few).row["n"] == 40
    partial = Protocol("partial", "", (Fold("f", protocol.folds[0].train, (), protocol.folds[0].test),))
    assert any("in no fold of partial" in note for note in cross_validate(features, protocol=partial).notes)
    foreign = Protocol("foreign", "", (Fold("f", ("x",), (), ("y",)),))
    with pytest.raises(UserError, match="are these the features of that corpus"):
        cross_validate(features, protocol=foreign)


def test_stamps_reach_the_row(tmp_path):
    features = _toy()
    features.table["text"] = "kids are talking by the door"
    features.table.loc[0, "seen_in_pretraining"] = True
    features.metadata["corpus"]["synthetic"] = True
    assert cross_validate(features, protocol="loso").row["stamps"] == ["TEXT-SHARED", "TRANSDUCTIVE", "SYNTHETIC"]
    features.metadata["linguistic"] = True
    assert cross_validate(features, protocol="loso").row["stamps"] == ["LEAKY", "TRANSDUCTIVE", "SYNTHETIC"]
    features.table["speaker_id"] = ""
    outcome = cross_validate(features, protocol="official")
    assert outcome.row["stamps"] == ["LEAKY", "SYNTHETIC", "UNAUDITED"] and outcome.row["n_speakers"] == 0
    assert "unknown speaker" in outcome.row["ci_method"]


def test_saved_head_scores_alike_and_refuses_other_features(toy_file, tmp_path):
    _run(
        "--features",
        toy_file,
        "--protocol",
        "official",
        "--head",
        "compare",
        "--out",
        tmp_path,
        "--save-head",
        tmp_path / "h.npz",
    )
    features = read_features(toy_file)
    model = load_head(tmp_path / "h.npz", features)
    test = features.table["split"] == "test"
    [row] = read_rows(tmp_path)
    truth = features.table["emotion"][test]
    assert uar(truth, model.predict(features.embedding[test.to_numpy()])) == pytest.approx(row["value"])
    other = Features(features.table, features.embedding, {**features.metadata, "layer": "conv_2"})
    with pytest.raises(UserError, match="layer conv but here conv_2"):
        load_head(tmp_path / "h.npz", other)
    wide = Features(features.table, np.tile(features.embedding, 2), features.metadata)
    with pytest.raises(UserError, match="dimension 8 but here 16"):
        load_head(tmp_path / "h.npz", wide)
    with pytest.raises(UserError, match="not a head"):
        load_head(toy_file, features)
    outcome = cross_validate(features, protocol="loso", head="compare", keep_head=True)
    assert outcome.head_rows == "all 120 labelled units, those of the test parts included"
    save_head(outcome.head, tmp_path / "all.npz", features.metadata)
    loaded = load_head(tmp_path / "all.npz", features)
    assert (loaded.scores(features.embedding) == outcome.head.scores(features.embedding)).all()


def test_fits_that_do_not_converge_are_counted_not_shouted(monkeypatch, recwarn):
    monkeypatch.setattr("ser_jax.heads.newton.NEWTON_STEPS", 1)
    notes = cross_validate(_toy(speakers=3), protocol="loso").notes
    assert any("fits stopped at the limit of iterations" in note for note in notes)
    assert not list(recwarn)


def test_bad_input_ends_in_one_line(toy_file, tmp_path):
    def refused(kind, match, *options):
        given = dict(zip(options[::2], options[1::2]))
        given = {"--features": toy_file, "--protocol": "loso", "--out": tmp_path / "out", **given}
        with pytest.raises(kind, match=match) as error:
            _run(*[word for pair in given.items() for word in pair])
        assert "\n" not in str(error.value)

    refused(UserError, "no such features file", "--features", tmp_path / "absent.parquet")
    refused(UsageError, "did you mean 'kfold'", "--protocol", "k-fold")
    refused(UsageError, "did you mean 'compare'", "--head", "compere")
    refused(UsageError, "did you mean 'emotion'", "--target", "emotions")
    refused(UsageError, "holds numbers", "--target", "valence", "--head", "linear")
    refused(UserError, "no row has a number", "--target", "valence")
    refused(UsageError, "holds text", "--head", "ols")
    refused(UsageError, "--metric CCC: head linear predicts labels", "--metric", "CCC")
    refused(UsageError, "there are 8 features only", "--select", 9)
    refused(UsageError, "nothing is selected without --select", "--selection", "all-data")
    refused(UsageError, "did you mean 'all-data'", "--selection", "alldata")
    refused(UserError, "do not tell which values belong to which layer", "--layers", "first-3")
    refused(UsageError, "did you mean 'happy'", "--classes", "hapy,sad")
    refused(UsageError, "--vote", "--vote", "majority")
    refused(UsageError, "number of speakers, 6", "--protocol", "kfold", "--folds", 7)
    refused(UsageError, "did you mean 'split'", "--where", "splt=test")
    refused(UserError, "no row is left; split has the values dev, test, train", "--where", "split=eval")
    refused(UserError, "only one class, 'sad'", "--classes", "sad")
    refused(UserError, "no row has a label", "--target", "language")
    refused(UserError, "cannot be read", "--versus", tmp_path / "absent.jsonl")
    refused(UserError, "cannot be read", "--protocol", tmp_path / "absent.json")
    assert not (tmp_path / "out").exists()

    features = _toy()
    features.embedding[17, 3] = np.nan
    write_features(features, tmp_path / "nan.parquet")
    refused(UserError, "embedding of 'u017' is not finite", "--features", tmp_path / "nan.parquet")
    two = _toy(speakers=2)
    write_features(two, tmp_path / "two.parquet")
    refused(
        UserError,
        "fold 's0': --head compare needs a dev part",
        "--features",
        tmp_path / "two.parquet",
        "--head",
        "compare",
    )
    apart = _toy(speakers=2)
    apart.table["emotion"] = np.where(apart.table["speaker_id"] == "s0", "sad", "happy")
    write_features(apart, tmp_path / "apart.parquet")
    refused(
        UserError, "fold 's0': the training part of a fold has one class only", "--features", tmp_path / "apart.parquet"
    )
    rare = _toy()
    rare.table.loc[rare.table["split"] == "test", "emotion"] = "sad"
    write_features(rare, tmp_path / "rare.parquet")
    refused(
        UserError,
        "'angry', 'happy' is trained but never tested",
        "--features",
        tmp_path / "rare.parquet",
        "--protocol",
        "official",
    )


def test_importing_the_verb_is_cheap():
    import subprocess
    import sys

    heavy = "('numpy', 'pandas', 'sklearn', 'jax', 'pyarrow')"
    code = f"import sys, ser_jax.probe; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_merged_classes_are_said_and_keep_their_own_predictions(toy_file, tmp_path):
    common = ("--features", toy_file, "--protocol", "kfold", "--folds", 2, "--head", "logistic", "--out", tmp_path / "out")
    for classes in ("angry+sad,happy", "angry,happy+sad"):
        assert _run(*common, "--classes", classes) == 0
    first, second = read_rows(tmp_path / "out")
    assert any("sad into angry" in note for note in first["notes"])
    assert any("sad into happy" in note for note in second["notes"])
    tables = [pd.read_parquet(tmp_path / "out" / row["predictions"]) for row in (first, second)]
    assert first["predictions"] != second["predictions"] and not tables[0]["truth"].equals(tables[1]["truth"])


def test_versus_another_corpus_of_equal_ids_is_refused(toy_file, tmp_path):
    common = ("--protocol", "kfold", "--folds", 2, "--head", "logistic", "--out", tmp_path / "out")
    assert _run("--features", toy_file, *common) == 0
    other = _toy()
    other.table["audio_sha256"] = "x" + other.table["audio_sha256"]
    write_features(other, tmp_path / "other.parquet")
    with pytest.raises(UserError, match="other recordings"):
        _run("--features", tmp_path / "other.parquet", *common, "--versus", tmp_path / "out")


def test_wrong_numbers_are_refused_before_the_work(toy_file, tmp_path):
    for option in ("--seed", "--jobs"):
        with pytest.raises(UsageError, match=option):
            _run("--features", toy_file, "--protocol", "loso", "--out", tmp_path, option, "-1")
