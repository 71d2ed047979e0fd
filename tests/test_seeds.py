"""Heads that depend on a seed: what a row says of several seeds, comparisons by seed, options, representations, frames."""

import argparse
import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax import cli, probe
from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, read_features, write_features
from ser_jax.heads import HEADS, FoldsOutcome, make_head
from ser_jax.heads.comparison import compare
from ser_jax.heads.cross_validation import cross_validate
from ser_jax.intervals import paired_test, speaker_bootstrap
from ser_jax.metrics import METRICS, ccc, confusion, uar, war
from ser_jax.options import read_options
from ser_jax.protocols.protocol import Fold, Protocol
from ser_jax.results import print_rows, read_rows

EMOTIONS = np.array(["angry", "happy", "sad"])
FRAMES, VECTOR = (2, 3), 6


@dataclasses.dataclass(frozen=True)
class ToyOptions:
    noise: float = 1.0
    epochs: int = 3
    shuffled: bool = True
    name: str | None = None

    def __post_init__(self):
        if self.epochs < 1:
            raise UsageError(f"epochs={self.epochs}: must be at least 1")


class ToyHead:
    """Distance to the mean of each class, and noise from the seed; ids in an order of its own."""

    name = "toy"
    predicts = "labels"
    seeded = True
    needs_dev = True
    selection = "nothing is chosen"
    Options = ToyOptions

    def __init__(self, options=None):
        self.options = options or ToyOptions()

    def predict_folds(self, features, target, protocol, seeds, jobs=1):
        x, ids = features.embedding[:, -VECTOR:], features.table["id"].to_numpy(dtype=object)
        y = features.table[target].to_numpy(dtype=object)
        labels = sorted(set(y)) if self.predicts == "labels" else []
        outcome = FoldsOutcome(labels, [], [], [])
        for seed in seeds:
            scores, chosen, kept = {}, {}, {}
            for fold in protocol.folds:
                rng = np.random.default_rng([seed, len(fold.name)])
                train, test = np.isin(ids, fold.train), np.flatnonzero(np.isin(ids, fold.test))
                test = rng.permutation(test) if self.options.shuffled else test
                if labels:
                    means = np.stack([x[train & (y == label)].mean(0) for label in labels])
                    found = -((x[test, None] - means) ** 2).sum(2).astype(np.float64)
                else:
                    found = y[test, None].astype(np.float64)
                order = np.argsort(np.argsort(test))  # noise by row, whatever the order
                found += self.options.noise * rng.normal(size=found.shape)[order]
                scores[fold.name], kept[fold.name] = (ids[test].tolist(), found), x[test]
                chosen[fold.name] = {"best_epoch": int(seed) + 1}
            outcome.scores.append(scores)
            outcome.chosen.append(chosen)
            outcome.representations.append(kept)
        return outcome


class ToyNumbers(ToyHead):
    name = "toy_numbers"
    predicts = "numbers"


class ForgetfulHead(ToyHead):
    name = "forgetful"

    def predict_folds(self, *args):
        outcome = super().predict_folds(*args)
        [(name, (ids, found)), *_] = outcome.scores[0].items()
        outcome.scores[0][name] = ids[1:], found[1:]
        return outcome


@pytest.fixture(autouse=True)
def heads(monkeypatch):
    for head in (ToyHead, ToyNumbers, ForgetfulHead):
        monkeypatch.setitem(HEADS, head.name, f"{__name__}:{head.__name__}")


def _toy(speakers=4, each=15, chunks=1):
    """A layer of frames and one of plain values."""
    rng = np.random.default_rng(0)
    n, width = speakers * each, 1 + FRAMES[0] * FRAMES[1]
    speaker, label = np.repeat(np.arange(speakers), each), rng.integers(0, 3, n)
    table = pd.DataFrame(
        {
            "id": [f"u{i:03d}" for i in range(n)],
            "corpus": "toy",
            "speaker_id": [f"s{i}" for i in speaker],
            "session": [f"session{i // 2}" for i in speaker],
            "emotion": EMOTIONS[label],
            "valence": rng.normal(size=n),
            "audio_sha256": [f"h{i}" for i in range(n)],
            "split": np.where(speaker == 0, "test", "train"),
        }
    )
    table = pd.concat([table.assign(chunk=c) for c in range(chunks)], ignore_index=True)
    x = np.zeros((len(table), width + VECTOR), np.float32)
    x[:, 0] = FRAMES[0]
    x[:, width:] = np.eye(3, VECTOR)[np.tile(label, chunks)] + 0.6 * rng.normal(size=(len(table), VECTOR))
    columns = [
        {"layer": "logmel26", "start": 0, "stop": width, "frames": list(FRAMES)},
        {"layer": "ae", "start": width, "stop": width + VECTOR},
    ]
    return Features(table, x, {"kind": "fused", "layer": "logmel26,ae", "columns": columns, "corpus": {"name": "toy"}})


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeds") / "toy.parquet"
    write_features(_toy(), path)
    return path


def _run(*options):
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args([str(option) for option in options]))


def _by_seed(table):
    return [(part["truth"].tolist(), part["prediction"].tolist()) for _, part in table.groupby("seed")]


def test_every_number_of_a_row_is_a_mean_over_seeds():
    outcome = cross_validate(_toy(), protocol="loso", head="toy", seed=4, seeds=3)
    row, table = outcome.row, outcome.predictions
    assert list(table.columns) == ["id", "speaker_id", "audio_sha256", "fold", "seed", "truth", "prediction"]
    assert table["seed"].dtype == np.int64 and row["seeds"] == [4, 5, 6] and len(table) == 3 * 60
    assert not table.duplicated(["id", "seed"]).any()
    each = [uar(*pair) for pair in _by_seed(table)]
    assert len(set(each)) == 3 and row["value"] == pytest.approx(np.mean(each))
    secondary = row["secondary"]
    assert secondary["UAR_seeds"] == pytest.approx(each)
    assert (secondary["UAR_seed_min"], secondary["UAR_seed_max"]) == (min(each), max(each))
    assert secondary["UAR_seed_std"] == pytest.approx(np.std(each, ddof=1))
    assert secondary["WAR"] == pytest.approx(np.mean([war(*pair) for pair in _by_seed(table)]))
    assert np.array(row["confusion"]) == pytest.approx(
        np.mean([confusion(*pair, list(EMOTIONS)) for pair in _by_seed(table)], axis=0)
    )
    assert np.array(row["confusion"]).sum() == pytest.approx(60) and (row["n"], row["n_speakers"]) == (60, 4)
    by_fold = [np.mean([uar(part["truth"], part["prediction"]) for _, part in fold.groupby("seed")])
               for _, fold in table.groupby("fold")]  # fmt: skip
    assert [fold["value"] for fold in row["folds"]] == pytest.approx(by_fold)
    assert [fold["n"] for fold in row["folds"]] == [15] * 4
    assert row["folds"][0]["chosen"] == [{"best_epoch": 5}, {"best_epoch": 6}, {"best_epoch": 7}]
    assert row["definition"] == f"mean over 3 seeds of {METRICS['UAR'].definition}"
    assert "mean over seeds" in row["ci_method"] and "mean over seeds" in row["fold_pooling"]
    assert tuple(row["ci"]) == speaker_bootstrap(
        table["truth"], table["prediction"], table["speaker_id"], "UAR", seed=4, runs=table["seed"]
    )
    assert row["options"] == {"noise": 1.0, "epochs": 3, "shuffled": True, "name": None} and row["head"] == "toy"


def test_a_seed_does_not_depend_on_the_others_nor_on_the_order_of_ids():
    outcome = cross_validate(_toy(), protocol="losso", head="toy", seeds=3, dev="utterances")
    one = cross_validate(_toy(), protocol=outcome.protocol, head="toy", seed=1)
    both = outcome.predictions[outcome.predictions["seed"] == 1].reset_index(drop=True)
    assert one.predictions.equals(both) and one.row["definition"].startswith("mean over 1 seed of")
    assert one.row["secondary"]["UAR_seed_std"] is None and one.row["confusion"][0][0] % 1 == 0
    sound = cross_validate(_toy(), protocol=outcome.protocol, head="toy", seeds=3, options=["noise=0"])
    listed = cross_validate(_toy(), protocol=outcome.protocol, head="toy", options=["noise=0", "shuffled=no"])
    assert sound.predictions[sound.predictions["seed"] == 0].equals(listed.predictions)
    assert sound.row["secondary"]["UAR_seed_std"] == 0 and sound.row["value"] == listed.row["value"]


def test_chunks_vote_and_numbers_are_averaged():
    single, double = (cross_validate(_toy(chunks=n), protocol="loso", head="toy", seeds=2).row for n in (1, 4))
    assert single["n"] == double["n"] == 60 and double["value"] > single["value"]
    features = _toy(chunks=2)
    outcome = cross_validate(features, "valence", "loso", "toy_numbers", seeds=2, options=["noise=0.1"])
    each = [ccc(*pair) for pair in _by_seed(outcome.predictions)]
    assert outcome.row["value"] == pytest.approx(np.mean(each)) and outcome.row["n"] == 60
    assert outcome.row["secondary"]["CCC_seeds"] == pytest.approx(each) and min(each) > 0.9
    assert outcome.row["definition"].startswith("mean over 2 seeds of concordance")


runs_of = st.lists(st.lists(st.sampled_from("ab"), min_size=12, max_size=12), min_size=1, max_size=3)
TRUTH, SPEAKERS = np.array(list("aabb" * 3)), np.repeat(np.arange(3), 4)


@given(runs_of, runs_of)
@settings(max_examples=25, deadline=None)
def test_all_runs_of_a_speaker_change_sides_together(several_a, several_b):
    count = min(len(several_a), len(several_b))
    a, b = np.array(several_a[:count]), np.array(several_b[:count])
    found = paired_test(np.tile(TRUTH, count), a.reshape(-1), b.reshape(-1), np.tile(SPEAKERS, count), "UAR", n=50,
                        classes=["a", "b"], runs=np.repeat(np.arange(count), 12))  # fmt: skip

    def difference(swapped):
        both = [np.where(np.isin(SPEAKERS, swapped), other, one) for one, other in ((a, b), (b, a))]
        return np.mean([uar(TRUTH, one) - uar(TRUTH, other) for one, other in zip(*both)])

    sets = [kept for size in range(4) for kept in itertools.combinations(range(3), size)]
    differences = np.abs([difference(swapped) for swapped in sets])
    assert found["difference"] == pytest.approx(difference(()))
    assert found["p_value"] == np.mean(differences >= differences[0] - 1e-12)
    assert (found["n"], found["n_speakers"]) == (12, 3) and found["p_value"] >= 2 / 8  # however many runs agree
    each = [uar(TRUTH, one) - uar(TRUTH, other) for one, other in zip(a, b)]
    assert found["seeds"]["values"] == pytest.approx(each) and found["seeds"]["mean"] == pytest.approx(np.mean(each))


@given(st.lists(st.sampled_from("ab"), min_size=12, max_size=12), st.integers(2, 4))
@settings(max_examples=15, deadline=None)
def test_equal_runs_are_one_run(prediction, count):
    again = {"truth": np.tile(TRUTH, count), "speakers": np.tile(SPEAKERS, count), "runs": np.repeat(range(count), 12)}
    one = speaker_bootstrap(TRUTH, prediction, SPEAKERS, "WAR", n=60)
    assert speaker_bootstrap(prediction=np.tile(prediction, count), metric="WAR", n=60, **again) == pytest.approx(one)
    single = paired_test(TRUTH, prediction, TRUTH, SPEAKERS, "WAR", n=60)
    several = paired_test(prediction_a=np.tile(prediction, count), prediction_b=np.tile(TRUTH, count), metric="WAR",
                          n=60, **again)  # fmt: skip
    assert several["p_value"] == single["p_value"] and several["ci"] == pytest.approx(single["ci"])


def test_the_interval_is_that_of_the_mean_over_runs():
    rng = np.random.default_rng(0)
    truth, speaker = np.tile(np.arange(3), 40), np.repeat(np.arange(10), 12)
    runs = [np.where(rng.random(120) < 0.3 + 0.5 * rng.random(10)[speaker], truth, (truth + 1) % 3) for _ in range(4)]
    means = []
    for _ in range(800):
        rows = np.concatenate([np.flatnonzero(speaker == s) for s in rng.integers(0, 10, 10)])
        means.append(np.mean([uar(truth[rows], run[rows]) for run in runs]))
    found = speaker_bootstrap(np.tile(truth, 4), np.concatenate(runs), np.tile(speaker, 4), "UAR",
                              runs=np.repeat(range(4), 120))  # fmt: skip
    assert found == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)
    with pytest.raises(ValueError, match="each run needs every utterance"):
        speaker_bootstrap(truth, runs[0], speaker, "UAR", runs=speaker == 0)


def test_pairs_are_of_unit_and_seed():
    toy = {"features": _toy(), "protocol": "loso", "head": "toy"}
    a, b = (cross_validate(**toy, seeds=n, options=[f"noise={noise}"]) for n, noise in ((3, 0.5), (2, 3)))
    found = compare(a.predictions, b.predictions, "UAR", list(EMOTIONS))
    pairs = list(zip(_by_seed(a.predictions), _by_seed(b.predictions)))
    each = [uar(*one) - uar(*other) for one, other in pairs]
    assert found["seeds"]["names"] == [0, 1] and found["seeds"]["values"] == pytest.approx(each)
    assert found["difference"] == pytest.approx(np.mean(each)) and found["seeds_only_here"] == [2]
    assert (found["n"], found["only_here"], found["only_there"]) == (60, 0, 0) and "seeds_only_there" not in found

    plain = cross_validate(_toy(), protocol="loso", head="linear", layers="ae")
    found = compare(a.predictions, plain.predictions, "UAR", list(EMOTIONS))
    assert found["b"] == pytest.approx(plain.row["value"]) and found["a"] == pytest.approx(a.row["value"])
    assert found["seeds"]["values"] == pytest.approx([uar(*one) - found["b"] for one in _by_seed(a.predictions)])
    back = compare(plain.predictions, a.predictions, "UAR", list(EMOTIONS))
    assert back["difference"] == pytest.approx(-found["difference"]) and back["p_value"] == found["p_value"]

    part = plain.predictions[plain.predictions["speaker_id"] != "s0"]
    assert compare(a.predictions, part, "UAR", list(EMOTIONS))["only_here"] == 15
    with pytest.raises(UserError, match=r"no seed in common \(here 0..2, there 7, 8\)"):
        compare(a.predictions, b.predictions.assign(seed=b.predictions["seed"] + 7), "UAR", list(EMOTIONS))
    with pytest.raises(UserError, match="truth differs for 60 of 60 units"):
        compare(a.predictions, a.predictions.assign(truth="calm"), "UAR", list(EMOTIONS))


def test_rows_on_disk_compare_and_print(toy_file, tmp_path, capsys):
    common = ("--features", toy_file, "--protocol", "loso", "--out", tmp_path)
    assert _run(*common, "--head", "linear", "--layers", "ae") == 0
    assert "seed" not in capsys.readouterr().out.splitlines()[0]
    assert _run(*common, "--head", "toy", "--seeds", 3, "--option", "noise=0.7", "--option", "epochs=5") == 0
    first = capsys.readouterr().out.splitlines()
    assert _run(*common, "--head", "toy", "--seeds", 2, "--versus", tmp_path) == 0
    printed = capsys.readouterr().out.splitlines()
    linear, toy, versus = read_rows(tmp_path)
    assert "options" not in linear and linear["seeds"] == [0]
    assert toy["head"] == "toy noise=0.7 epochs=5" and toy["options"]["epochs"] == 5
    shown = dict(zip(first[0].split("\t"), first[1].split("\t")))
    assert shown["seeds"] == "3" and shown["seed max"] == f"{100 * toy['secondary']['UAR_seed_max']:.1f}"
    header = next(line for line in printed if line.startswith("features\thead\tversus"))
    shown = dict(zip(header.split("\t"), printed[printed.index(header) + 1].split("\t")))
    assert shown["seeds"] == "2" and shown["seed min"] == f"{100 * versus['versus']['seeds']['min']:.1f}"
    assert versus["versus"]["seeds_only_there"] == [2] and versus["versus"]["predictions"].endswith(
        toy["predictions"].split("/")[1]
    )
    print_rows([linear, toy])
    table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert table[1][table[0].index("seeds")] == "-" and table[2][table[0].index("seeds")] == "3"


def test_a_comparison_that_fails_does_not_cost_the_trainings(toy_file, tmp_path):
    other = _toy()
    other.table["audio_sha256"] = "x" + other.table["audio_sha256"]
    table = cross_validate(other, protocol="loso", head="toy").predictions
    table.to_parquet(tmp_path / "other.parquet")
    options = ("--head", "toy", "--out", tmp_path, "--versus", tmp_path / "other.parquet")
    with pytest.raises(UserError, match="60 of 60 units of the same name are other recordings.*the row itself was append"):
        _run("--features", toy_file, "--protocol", "loso", *options)
    [row] = read_rows(tmp_path)
    assert "versus" not in row and (tmp_path / row["predictions"]).exists()


def test_options_have_the_type_of_their_field():
    kinds = {"a": int, "b": float, "c": bool, "d": str, "e": float | None, "f": tuple[int, ...]}
    found = read_options(["a=1_000", "b=1e-3", "c=Yes", "d=x=y", "e=none", "f=(1, 2)"], kinds)
    assert found == {"a": 1000, "b": 1e-3, "c": True, "d": "x=y", "e": None, "f": (1, 2)}
    for text, said in (("a=1.5", "a=1.5"), ("b=nan", "b=nan"), ("c=perhaps", "c=perhaps"), ("f=1,x", "f=x")):
        with pytest.raises(UsageError, match=f"--option {said}: not a value of type"):
            read_options([text], kinds)
    head = make_head("toy", ["epochs=7", "name=none"])
    assert head.options == ToyOptions(epochs=7) and make_head("toy").options == ToyOptions()


def test_representations_are_a_features_file_of_tested_utterances(toy_file, tmp_path):
    out = tmp_path / "seen.parquet"
    options = ("--head", "toy", "--seeds", 2, "--out", tmp_path, "--save-representations", out)
    assert _run("--features", toy_file, "--protocol", "losso", "--dev", "utterances", *options) == 0
    found, given = read_features(out), _toy()
    assert found.metadata["kind"] == "toy" and found.layers == ["representation"] and not found.frame_layers
    assert found.metadata["fitted"]["protocol"]["name"] == "losso" and found.metadata["fitted"]["seed"] == 0
    assert sorted(found.table["id"]) == sorted(given.table["id"])
    place = given.table.set_index("id").index.get_indexer(found.table["id"])
    assert found.embedding == pytest.approx(given.embedding[place, -VECTOR:])
    for column in ("emotion", "speaker_id", "valence", "audio_sha256"):
        assert found.table[column].tolist() == given.table[column].iloc[place].tolist()
    fold = dict(zip(given.table["id"], given.table["session"]))
    assert found.table["fold"].tolist() == [fold[name] for name in found.table["id"]]
    again = cross_validate(found, protocol="loso")  # other folds: its nets have seen the labels of tested utterances
    assert again.row["stamps"] == ["LEAKY"] and any("trained on labels" in note for note in again.notes)
    pieces = cross_validate(_toy(chunks=3), protocol="loso", head="toy", keep_representations=True).representations
    mean = _toy(chunks=3).embedding[:, -VECTOR:].reshape(3, 60, VECTOR).mean(0)
    assert pieces.embedding[np.argsort(pieces.table["id"])] == pytest.approx(mean, abs=1e-6)


def test_other_heads_refuse_frames_and_name_the_other_layers():
    with pytest.raises(UsageError, match="--head linear: layer logmel26 holds frames.*--layers ae$"):
        cross_validate(_toy(), protocol="loso")
    with pytest.raises(UsageError, match="--head ridge: layer logmel26 holds frames"):
        cross_validate(_toy(), "valence", "loso", layers="all")
    only = _toy().select_layers(["logmel26"])
    with pytest.raises(UsageError, match="export embeddings or functionals"):
        cross_validate(only, protocol="loso", head="compare")
    assert cross_validate(_toy(), protocol="official", layers="ae").row["n"] == 15


def test_what_does_not_fit_a_head_is_refused_in_one_line(toy_file, tmp_path):
    def refused(kind, match, *options):
        given = {"--features": toy_file, "--protocol": "loso", "--head": "toy", "--out": tmp_path / "out"}
        given |= dict(zip(options[::2], options[1::2]))
        with pytest.raises(kind, match=match) as error:
            _run(*[word for pair in given.items() for word in pair])
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()

    refused(UsageError, "--seeds 3: head linear does not depend", "--seeds", 3, "--head", "linear", "--layers", "ae")
    refused(UsageError, "--seeds 0: must be at least 1", "--seeds", 0)
    refused(UsageError, "--select 2: head toy takes the features as they are", "--select", 2)
    refused(UsageError, "--save-head: the nets of head toy", "--save-head", tmp_path / "h.npz")
    refused(UsageError, "--save-representations: head compare has none", "--head", "compare",
            "--save-representations", tmp_path / "r.npz")  # fmt: skip
    refused(UsageError, "end it in one of .parquet", "--save-representations", tmp_path / "r.txt")
    refused(UsageError, "one set of layers", "--layers", "each", "--save-representations", tmp_path / "r.npz")
    refused(UsageError, "did you mean 'epochs'.*known: noise, epochs", "--option", "epoch=3")
    refused(UsageError, "--option epochs=3.5: not a value of type int", "--option", "epochs=3.5")
    refused(UsageError, "--option epochs=0: must be at least 1", "--option", "epochs=0")
    refused(UsageError, "head ols has no options", "--head", "ols", "--option", "epochs=3")
    refused(UsageError, "--dev people: unknown.*known: groups, utterances", "--dev", "people")
    with pytest.raises(UserError, match="'angry', 'happy' is trained but never tested"):  # before any training
        rare = _toy()
        rare.table.loc[rare.table["split"] == "test", "emotion"] = "sad"
        cross_validate(rare, protocol="official", head="forgetful")
    ids = _toy().table["id"].tolist()
    no_dev = Protocol("two", "", (Fold("first", tuple(ids[:30]), (), tuple(ids[30:])),))
    with pytest.raises(UserError, match="fold 'first': --head toy needs a dev part"):
        cross_validate(_toy(), protocol=no_dev, head="toy")
    with pytest.raises(ValueError, match="did not score the tested rows of fold 's0'"):
        cross_validate(_toy(), protocol="loso", head="forgetful")


def test_the_features_that_are_read_are_not_written_over(tmp_path, capsys):
    """Told before the file is even looked at."""
    file = str(tmp_path / "f.parquet")
    for option in ("--save-representations", "--save-head"):
        assert cli.main(["probe", "--features", file, "--protocol", "loso", option, file, "--out", str(tmp_path)]) == 2
        assert f"{option} {file}: is a file that is read here" in capsys.readouterr().err
