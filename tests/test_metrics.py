"""Metrics against scikit-learn and scipy; the clustered interval on simulated speakers; the paired test."""

import json

import jiwer
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.errors import UserError
from ser_jax.intervals import paired_test, speaker_bootstrap
from ser_jax.metrics import (
    METRICS,
    ccc,
    chance_level,
    confusion,
    evaluate,
    macro_f1,
    mse,
    pearson,
    uar,
    war,
)
from ser_jax.results import JsonlWriter, append_jsonl, append_row, print_table, read_jsonl, read_rows, result_row

LABELS = ["angry", "happy", "sad"]
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)
texts = st.text("ab ", max_size=9)
transcripts = st.lists(st.tuples(texts.filter(str.strip), texts), min_size=1, max_size=12)
values = st.lists(st.tuples(st.floats(-5, 5, width=16), st.floats(-5, 5, width=16)), min_size=3, max_size=50)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_classification_metrics_agree_with_scikit_learn(both):
    truth, prediction = map(list, zip(*both))
    assert uar(truth, prediction, LABELS, absent="skip") == pytest.approx(
        sklearn.metrics.recall_score(truth, prediction, labels=sorted(set(truth)), average="macro", zero_division=0)
    )
    assert war(truth, prediction) == pytest.approx(sklearn.metrics.accuracy_score(truth, prediction))
    assert macro_f1(truth, prediction, LABELS) == pytest.approx(
        sklearn.metrics.f1_score(truth, prediction, labels=LABELS, average="macro", zero_division=0)
    )
    expected = sklearn.metrics.confusion_matrix(truth, prediction, labels=LABELS)
    assert (confusion(truth, prediction, LABELS) == expected).all()
    for name, value in (("WAR", war(truth, prediction)), ("macro_F1", macro_f1(truth, prediction, LABELS))):
        assert evaluate(name, truth, prediction, LABELS) == pytest.approx(value)
    if set(truth) == set(LABELS):
        assert uar(truth, prediction) == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, prediction))
        assert evaluate("UAR", truth, prediction) == pytest.approx(uar(truth, prediction))


def test_uar_refuses_a_class_without_reference():
    with pytest.raises(ValueError, match="no utterance of class sad"):
        uar(["angry", "happy"], ["angry", "sad"], LABELS)
    assert uar(["angry", "happy"], ["angry", "sad"], LABELS, absent="skip") == 0.5
    assert np.isnan(evaluate("UAR", ["angry", "happy"], ["angry", "sad"], LABELS))
    with pytest.raises(ValueError, match="'bored' is not in the label list"):
        uar(["angry", "bored"], ["angry", "angry"], LABELS)


@given(values)
@settings(max_examples=60, deadline=None)
def test_regression_metrics_agree_with_numpy_and_scipy(both):
    t, p = np.array(both).T
    assert mse(t, p) == pytest.approx(np.mean((t - p) ** 2), abs=1e-9)
    spread = t.var() + p.var() + (t.mean() - p.mean()) ** 2
    if spread > 1e-6:
        assert ccc(t, p) == pytest.approx(2 * np.mean((t - t.mean()) * (p - p.mean())) / spread, abs=1e-6)
    if t.std() > 1e-3 and p.std() > 1e-3:
        assert pearson(t, p) == pytest.approx(scipy.stats.pearsonr(t, p)[0], abs=1e-6)


def test_regression_metrics_of_constants():
    assert np.isnan(pearson([0.1] * 5, [1, 2, 3, 4, 5.0]))
    assert np.isnan(pearson([1, 2, 3.0], [0.1, 0.1, 0.1]))
    assert np.isnan(ccc([0.1] * 7, [0.1] * 7))
    assert ccc([0.1] * 7, [0.2] * 7) == pytest.approx(0)
    assert ccc([1, 2, 3.0], [1, 2, 3.0]) == pytest.approx(1)
    with pytest.raises(ValueError, match="not finite"):
        ccc([1, 2.0], [1, np.nan])


def test_ccc_keeps_its_digits_on_a_large_offset():
    rng = np.random.default_rng(0)
    t = rng.normal(size=200)
    p = 0.5 * t + rng.normal(size=200)
    assert ccc(t + 1e6, p + 1e6) == pytest.approx(ccc(t, p), rel=1e-6)


def test_chance_levels():
    truth = ["a"] * 6 + ["b"] * 3 + ["c"]
    assert chance_level("UAR", truth) == pytest.approx(1 / 3)
    assert chance_level("WAR", truth) == pytest.approx(0.6)
    assert chance_level("MSE", [1.0, 3.0]) == evaluate("MSE", [1.0, 3.0], [2.0, 2.0]) == 1.0
    assert chance_level("CCC", [1.0, 2.0]) == 0.0


@given(transcripts)
@settings(max_examples=60, deadline=None)
def test_error_rates_agree_with_jiwer(both):
    truth, prediction = map(list, zip(*both))
    assert evaluate("WER", truth, prediction) == pytest.approx(jiwer.wer(truth, prediction))
    assert evaluate("CER", truth, np.array(prediction)) == pytest.approx(jiwer.cer(truth, prediction))


def test_error_rates_by_hand():
    truth, prediction = ["a cat sat down", "no"], ["the cat sat", "no no"]  # sub + del of 4 words; one inserted
    assert evaluate("WER", truth, prediction) == 3 / 5
    assert evaluate("CER", ["abc d", "xy"], ["abd", ""]) == (2 + 2) / 7  # the c and a space; x and y
    assert evaluate("WER", ["a"], ["a b c d"]) == 3  # more than 100 %
    assert (evaluate("WER", truth, truth), evaluate("CER", truth, ["", ""])) == (0, 1)
    assert chance_level("WER", ["a b", "a b", "c d e f"]) == 4 / 8  # always "a b"
    assert chance_level("CER", ["abc", "abc", "xyz uvw"]) == 7 / 13
    assert chance_level("CER", ["abcdefghij", "abcdefghij", *"uvwxyz"]) == 1  # nothing at all is better than the ten letters
    for name in ("WER", "CER"):
        with pytest.raises(ValueError, match="reference 1 is empty"):
            evaluate(name, ["a", "  "], ["a", "b"])
        with pytest.raises(ValueError, match="1 references but 2 predictions"):
            evaluate(name, ["a"], ["a", "b"])


def test_error_rates_are_resampled_by_speaker():
    rng = np.random.default_rng(0)
    truth = [" ".join(rng.choice(["one", "two", "three"], rng.integers(1, 6))) for _ in range(60)]
    speaker = np.repeat(np.arange(12), 5)
    spoilt = rng.random(60) < 0.2 + 0.6 * rng.random(12)[speaker]
    prediction = [text.replace("o", "x") if bad else text for text, bad in zip(truth, spoilt)]
    for name, rate in (("WER", jiwer.wer), ("CER", jiwer.cer)):
        by_hand = []
        for _ in range(800):
            rows = np.concatenate([np.flatnonzero(speaker == s) for s in rng.integers(0, 12, 12)])
            by_hand.append(rate([truth[i] for i in rows], [prediction[i] for i in rows]))
        low, high = speaker_bootstrap(truth, prediction, speaker, name)
        assert (low, high) == pytest.approx(np.percentile(by_hand, [2.5, 97.5]), abs=0.02)
        assert low < evaluate(name, truth, prediction) < high
        found = paired_test(truth, prediction, truth, speaker, name)
        assert found["a"] == pytest.approx(rate(truth, prediction)) and found["b"] == 0 and found["p_value"] < 0.005


def _simulated(rng, speakers=12, each=30, spread=0.15):
    """Truth and predictions whose accuracy differs from speaker to speaker around 0.6."""
    truth = np.tile(np.arange(3), speakers * each // 3)
    speaker = np.repeat(np.arange(speakers), each)
    accuracy = np.clip(0.6 + spread * rng.normal(size=speakers), 0.02, 0.98)[speaker]
    right = rng.random(len(truth)) < accuracy
    return truth, np.where(right, truth, (truth + 1 + rng.integers(0, 2, len(truth))) % 3), speaker


def test_clustered_interval_is_wider_and_covers():
    rng = np.random.default_rng(3)
    clustered, single, widths = 0, 0, []
    for trial in range(100):
        truth, prediction, speaker = _simulated(rng, speakers=16)
        low, high = speaker_bootstrap(truth, prediction, speaker, "UAR", n=400, seed=trial)
        low_item, high_item = speaker_bootstrap(truth, prediction, np.arange(len(truth)), "UAR", n=400, seed=trial)
        clustered += low <= 0.6 <= high
        single += low_item <= 0.6 <= high_item
        widths.append((high - low) / (high_item - low_item))
    assert np.median(widths) > 1.3
    assert clustered / 100 > 0.85  # nominal 0.95; the percentile interval of 16 clusters is a little narrow
    assert single / 100 < clustered / 100 - 0.1


def test_bootstrap_agrees_with_a_plain_loop():
    rng = np.random.default_rng(1)
    truth, prediction, speaker = _simulated(rng)
    means = []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(speaker == s) for s in rng.integers(0, 12, 12)])
        means.append(sklearn.metrics.balanced_accuracy_score(truth[rows], prediction[rows]))
    expected = np.percentile(means, [2.5, 97.5])
    assert speaker_bootstrap(truth, prediction, speaker, "UAR") == pytest.approx(expected, abs=0.02)


def test_bootstrap_is_repeatable_and_independent_of_order():
    truth, prediction, speaker = _simulated(np.random.default_rng(2))
    order = np.random.default_rng(0).permutation(len(truth))
    first = speaker_bootstrap(truth, prediction, speaker, "macro_F1")
    assert first == speaker_bootstrap(truth[order], prediction[order], speaker[order], "macro_F1")
    assert first != speaker_bootstrap(truth, prediction, speaker, "macro_F1", seed=1)


def test_bootstrap_where_a_class_is_missing_or_speakers_are_few():
    # Class b is spoken by one of three speakers: a third of resamples lack it and are left out.
    low, high = speaker_bootstrap(list("aaab"), list("aabb"), [0, 1, 2, 2], "UAR")
    assert 0.5 <= low <= high <= 1
    # Two classes with one speaker each: most resamples of these four speakers lack one of them.
    assert np.isnan(speaker_bootstrap(list("abcd"), list("abcd"), [0, 1, 2, 3], "UAR")).all()
    assert np.isnan(speaker_bootstrap(list("ab"), list("ab"), [0, 0], "WAR")).all()


def test_bootstrap_of_regression_metrics():
    rng = np.random.default_rng(0)
    t, speaker = rng.normal(size=300), np.repeat(np.arange(15), 20)
    p = 0.6 * t + 0.5 * rng.normal(size=300) + 0.4 * rng.normal(size=15)[speaker]
    for name, value in (("CCC", ccc(t, p)), ("MSE", mse(t, p)), ("Pearson", pearson(t, p))):
        low, high = speaker_bootstrap(t, p, speaker, name)
        assert low < value < high


def test_paired_test_of_a_result_with_itself():
    truth, prediction, speaker = _simulated(np.random.default_rng(0), speakers=20)
    for name in ("UAR", "WAR", "macro_F1"):
        found = paired_test(truth, prediction, prediction, speaker, name)
        assert (found["difference"], found["ci"], found["p_value"]) == (0, [0, 0], 1)


def test_paired_test_exact_and_random_agree_and_find_a_difference():
    rng = np.random.default_rng(4)
    truth, worse, speaker = _simulated(rng, speakers=10)
    exact = paired_test(truth, truth, worse, speaker, "UAR")
    assert exact["p_value"] == pytest.approx(2 / 2**10)  # better for every speaker: only all or none swapped is as far
    assert exact["ci"][0] > 0 and exact["difference"] == pytest.approx(1 - uar(truth, worse))
    slight = np.where(rng.random(len(truth)) < 0.03, truth, worse)
    slight = np.where(rng.random(len(truth)) < 0.03, (truth + 1) % 3, slight)
    exact = paired_test(truth, slight, worse, speaker, "UAR")
    random = paired_test(truth, slight, worse, speaker, "UAR", permutations=1000)
    assert "all 1024" in exact["method"] and "all" not in random["method"]
    assert random["p_value"] == pytest.approx(exact["p_value"], abs=0.06)


def test_paired_test_is_calibrated():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(150):
        truth, a, speaker = _simulated(rng, speakers=8, each=15)
        b = np.where(rng.random(len(truth)) < 0.4, (truth + 1) % 3, a)
        swap = rng.random(8)[speaker] < 0.5  # exchangeable within speakers by construction
        a, b = np.where(swap, a, b), np.where(swap, b, a)
        hits += paired_test(truth, a, b, speaker, "WAR", n=10, seed=trial)["p_value"] <= 0.05
    assert hits / 150 < 0.11


def test_metrics_say_what_they_are():
    assert "ddof 0" in METRICS["CCC"].definition
    assert all(metric.name == name and metric.definition for name, metric in METRICS.items())


def test_jsonl_survives_a_torn_line(tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    with JsonlWriter(path) as log:
        log.write({"step": np.int64(1), "loss": np.float32(0.5), "grads": np.arange(2), "bad": float("nan")})
        assert read_jsonl(path) == [{"step": 1, "loss": 0.5, "grads": [0, 1], "bad": None}]  # flushed at once
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    assert [record["step"] for record in read_jsonl(path)] == [1]
    append_jsonl(path, {"step": 3})
    assert [record["step"] for record in read_jsonl(path)] == [1, 3]
    path.write_text('{"step": 1}')  # whole, but without its newline
    append_jsonl(path, {"step": 2})
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:2"):
        read_jsonl(path)


def test_result_rows(tmp_path):
    row = result_row("probe", "UAR", 0.5, 10, stamps=["LEAKY"], confusion=np.eye(2, dtype=int))
    assert "balanced accuracy" in row["definition"] and row["versions"]["numpy"] == np.__version__
    append_row(tmp_path / "results.jsonl", row)
    assert read_rows(tmp_path) == [json.loads(json.dumps(row))]
    with pytest.raises(ValueError, match="unknown field 'stamp'"):
        result_row("probe", "UAR", 0.5, 10, stamp=[])
    (tmp_path / "results.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="not a result row"):
        read_rows(tmp_path)


def test_tables_are_tab_separated_when_piped_and_aligned_on_a_terminal(capsys):
    import io

    print_table(["name", "n"], [["a b", 5], ["c", None], ["dd", 123]])
    assert capsys.readouterr().out == "name\tn\na b\t5\nc\t-\ndd\t123\n"
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    print_table(["name", "n"], [["a b", 5], ["c", None], ["dd", 123]], terminal)
    assert terminal.getvalue() == "name    n\na b     5\nc       -\ndd    123\n"
