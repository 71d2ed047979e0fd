"""Who is held out of a run: official parts, and speakers that take turns. And figures over several folds."""

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax import intervals, metrics, papers, scored
from ser_jax.errors import UsageError
from ser_jax.held_out import Official, Rotation


def index_of(genders, sessions=None, split="train"):
    return pandas.DataFrame({"speaker_id": [f"s{i}" for i in range(len(genders))] * 2, "gender": list(genders) * 2,
                             "session": (sessions or [""] * len(genders)) * 2, "split": split})


def named(fold, part):
    return next(text for text in fold.settings if text.startswith(f"data.{part}_speakers=")).partition("=")[2].split(",")


@given(st.lists(st.sampled_from("fm"), min_size=5, max_size=14), st.integers(2, 9), st.booleans())
@settings(max_examples=25, deadline=None)
def test_every_speaker_but_those_of_dev_is_tested_once(genders, count, in_sessions):
    sessions = [f"Ses{i // 2}" for i in range(len(genders))] if in_sessions else None
    folds = Rotation().folds(index_of(genders, sessions), {"folds": str(count)})
    tested = [name for fold in folds for name in named(fold, "test")]
    dev = {name for fold in folds for name in named(fold, "dev")}
    assert len(tested) == len(set(tested)) and set(tested) | dev == {f"s{i}" for i in range(len(genders))}
    assert not set(tested) & dev and len(folds) == min(count, len(tested))
    if in_sessions:
        assert dev == {f"s{i}" for i in range(len(genders)) if sessions[i] == max(sessions)}
    else:
        assert sorted(genders[int(name[1:])] for name in dev) == sorted(set(genders))


def test_every_fold_tests_both_genders():
    folds = Rotation().folds(index_of("fmfmfmfm"), {"folds": "3"})
    assert all({"fm"["135".find(name[1]) >= 0] for name in named(fold, "test")} == {"f", "m"} for fold in folds)


@pytest.mark.parametrize("count", ["1", "0", "many"])
def test_no_folds(count):
    with pytest.raises(UsageError):
        Rotation().folds(index_of("fmfmfm"), {"folds": count})


def test_official_parts_are_those_that_the_corpus_has():
    official = Official(test="core-test|test")
    whole, = official.folds(pandas.DataFrame({"split": ["train", "dev", "test", "core-test"]}), {})
    assert whole.test == "--corpus {corpus} --split core-test"
    assert whole.settings == ("data.splits=train", "data.eval_splits=dev", "data.holdout=0")
    sample, = official.folds(pandas.DataFrame({"split": ["train", "test"]}), {})
    assert sample.test.endswith("--split test") and sample.settings[1:] == ("data.eval_splits=", "data.holdout=0.2")
    with pytest.raises(UsageError, match="in core-test or test; its splits: train"):
        official.folds(pandas.DataFrame({"split": ["train"]}), {})


# ------------------------------------------------------------------------------------------------ over folds
CELL = papers.Scored("A", "l=1", "UE", "run", "test", "UAR", "utterance", value=0.5, complement=True, versus="Base")
BASE = papers.Scored("A", "Base", "UE", "base", "test", "UAR", "utterance", complement=True)


def fold_row(truth, found, speakers):
    fields = intervals.scored(truth, found, speakers, "UAR", classes=range(3))
    return {"metric": "UAR", "n": len(truth), "definition": "", "chance": 1 / 3, "stamps": ["SYNTHETIC"], "notes": [],
            "classes": list("abc"), "confusion": metrics.confusion(truth, found, range(3)).tolist(),
            "corpus": {"name": "x"}, "split": "part, per utterance", **fields}


def draw(seed, folds=3, each=40):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(folds * each) % 3).reshape(folds, each)
    return truth, np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 3, truth.shape)), [
        [f"s{fold}{i % 4}" for i in range(each)] for fold in range(folds)]


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_pooled_is_the_metric_over_all_folds(seed):
    truth, found, speakers = draw(seed)
    rows = [(str(i), fold_row(*fold)) for i, fold in enumerate(zip(truth, found, speakers, strict=True))]
    line, = scored.table([CELL], {CELL: rows})
    assert line["pooled"] == pytest.approx(1 - metrics.uar(truth.ravel(), found.ravel(), range(3)))
    low, high = intervals.speaker_bootstrap(truth.ravel(), found.ravel(), sum(speakers, []), "UAR", classes=range(3))
    assert (line["95% CI low"], line["95% CI high"]) == pytest.approx((1 - high, 1 - low))
    each = [1 - metrics.uar(*pair, range(3)) for pair in zip(truth, found, strict=True)]
    assert (line["ours"], line["fold std"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert line["ours − paper"] == pytest.approx(np.mean(each) - 0.5) and line["chance"] == pytest.approx(2 / 3)
    assert (line["n"], line["speakers"], line["folds"]) == (120, 12, 3)
    row = scored.result(CELL, rows, "x")
    assert np.sum(row["confusion"]) == 120 and row["value"] == pytest.approx(1 - line["pooled"])


def test_the_difference_is_paired_over_speakers():
    truth, found, speakers = draw(1)
    worse = np.where(np.arange(40) % 5 == 0, (truth + 1) % 3, found)
    ours, base = ([(str(i), fold_row(*fold)) for i, fold in enumerate(zip(truth, side, speakers, strict=True))]
                  for side in (worse, found))
    line = scored.table([BASE, CELL], {BASE: base, CELL: ours})[1]
    paired = intervals.paired_test(truth.ravel(), worse.ravel(), found.ravel(), sum(speakers, []), "UAR", classes=range(3),
                                   permutations=10)
    assert line["versus"] == "Base" and line["pooled difference"] == pytest.approx(-paired["difference"]) and -paired["difference"] > 0
    assert [line["difference low"], line["difference high"]] == pytest.approx([-paired["ci"][1], -paired["ci"][0]])


def test_speakers_in_several_folds_are_one_cluster():
    truth, found, _ = draw(2)
    rows = [(str(i), fold_row(*pair, [f"s{j % 2}" for j in range(40)])) for i, pair in enumerate(zip(truth, found, strict=True))]
    line, = scored.table([CELL], {CELL: rows})
    assert (line["n"], line["speakers"]) == (120, 2)
