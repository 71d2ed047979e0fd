"""Training: what is trained on and in which order, which checkpoints are kept, and errors that say what to do."""

import collections
import dataclasses
import json
import zlib

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import arguments, assert_same_state, metrics, pretrain, saved_state, steps_of

from ser_jax import cli
from ser_jax.checkpoint import Trained
from ser_jax.config import Data
from ser_jax.data import pipeline, splits
from ser_jax.errors import UserError
from ser_jax.tasks.gender import GenderConfig
from ser_jax.train import train

SMALLER = ("model.stem_filters=4", "model.filters=4", "model.final_filters=4")  # quick to compile


class Numbers:
    """A task whose examples tell which utterance they are, and what random numbers they were given."""

    refuse = staticmethod(GenderConfig(min_samples=1_000).build().refuse)

    def sizes(self, index):
        return np.full(len(index), 1_000)

    def example(self, utterance, size, rng):
        return {"utterance": number(utterance.corpus, utterance.id), "draw": rng.random(3)}


def number(corpus, utterance):
    return np.int64(zlib.crc32(f"{corpus}/{utterance}".encode()))


@pytest.fixture(scope="module")
def corpora(two_corpora):
    return pipeline.open_corpora(two_corpora)


def batches(corpora, data, count, batch_size=8, start=0, hosts=1, host=0):
    """The next `count` batches, stacked."""
    table = splits.assign(corpora, data, Numbers())
    stream = pipeline.training_batches(corpora, table, Numbers(), data, batch_size, start, hosts, host)
    taken = [next(stream) for _ in range(count)]
    stream.close()
    return {name: np.stack([batch[name] for batch in taken]) for name in taken[0]}


def data_of(corpora, **fields):
    return Data(corpora=tuple(str(corpus.path) for corpus in corpora), seed=3, **fields)


# -------------------------------------------------------------------- the order is a function of (seed, step)
@pytest.mark.parametrize("weights", [(), (0.75, 0.25)], ids=["union", "weighted"])
def test_a_batch_does_not_depend_on_where_the_run_started_or_on_how_many_hosts(corpora, weights):
    data = data_of(corpora, weights=weights)
    whole = batches(corpora, data, 12)
    later = batches(corpora, data, 5, start=7)
    hosts = [batches(corpora, data, 5, start=7, hosts=2, host=host) for host in range(2)]
    for name in whole:
        np.testing.assert_array_equal(later[name], whole[name][7:])
        np.testing.assert_array_equal(np.concatenate([part[name] for part in hosts], axis=1), whole[name][7:])
    other = batches(corpora, dataclasses.replace(data, seed=4, holdout=0.0), 12)
    assert (other["utterance"] != whole["utterance"]).any()
    assert len(np.unique(whole["draw"])) == whole["draw"].size  # no two examples share their random numbers


def test_each_epoch_is_another_order_of_every_training_utterance(corpora):
    data = data_of(corpora, holdout=0.0)
    order = batches(corpora, data, 34, batch_size=4)["utterance"].reshape(2, 68)  # 48 + 20 utterances, twice
    everything = {number(corpus.name, i) for corpus in corpora for i in corpus.index["id"]}
    assert set(order[0]) == set(order[1]) == everything
    assert (order[0] != order[1]).any()


def test_weights_are_the_shares_of_the_corpora(corpora):
    data = data_of(corpora, weights=(3.0, 1.0))
    drawn = collections.Counter(batches(corpora, data, 50)["utterance"].ravel())
    shares = [sum(drawn[number(corpus.name, i)] for i in corpus.index["id"]) / 400 for corpus in corpora]
    assert shares == pytest.approx([0.75, 0.25], abs=0.01)


def test_held_out_speakers_are_not_trained_on(corpora):
    corpora = corpora[:1]
    data = data_of(corpora, holdout=0.2, test=0.2)
    table = splits.assign(corpora, data, Numbers())
    drawn = set(batches(corpora, data, 40)["utterance"].ravel())
    part_of = {number(row.corpus, row.id): row.part for row in table.itertuples()}
    assert {part_of[i] for i in drawn} == {"train"}
    assert drawn == {i for i, part in part_of.items() if part == "train"}
    assert {"dev", "test"} <= set(part_of.values())


# -------------------------------------------------------------------- who is held out
class Listed:
    """A corpus of which only the index is read."""

    name = "listed"

    def __init__(self, index):
        self.index = index


@st.composite
def indices(draw):
    """An index of 1–12 speakers of each gender, some utterances without a speaker, some without a gender."""
    rows = []
    for gender in ("male", "female"):
        for speaker in range(draw(st.integers(1, 12))):
            rows += [(f"{gender[0]}{speaker}", gender)] * draw(st.integers(1, 4))
    rows += [("", "male")] * draw(st.integers(0, 3)) + [("x", "")] * draw(st.integers(0, 3))
    table = pandas.DataFrame(rows, columns=["speaker_id", "gender"])
    table["id"] = [f"u{i}" for i in range(len(table))]
    return table.assign(split="", session="", num_samples=8_000, audio_sha256=table["id"], text="")


@settings(max_examples=25, deadline=None)
@given(indices(), st.sampled_from([0, 0.1, 0.2, 0.5, 0.9]), st.sampled_from([0, 0.1, 0.3]), st.integers(0, 5), st.randoms())
def test_the_hold_out(index, holdout, test, seed, shuffler):
    """Each part gets its share of the speakers of a gender, rounded up, the test part first; one of them is trained on."""
    data = Data(corpora=("listed",), holdout=holdout, test=test, seed=seed)
    per_gender = index[index["speaker_id"].ne("") & index["gender"].ne("")].groupby("gender")["speaker_id"].nunique()
    want = {"test": {g: min(int(np.ceil(test * n - 1e-9)), n - 1) for g, n in per_gender.items()}}
    want["dev"] = {g: min(int(np.ceil(holdout * n - 1e-9)), n - 1 - want["test"][g]) for g, n in per_gender.items()}
    empty = [part for part, share in (("test", test), ("dev", holdout)) if share and not any(want[part].values())]
    if empty:
        with pytest.raises(UserError, match=f"for {empty[0]} leaves no speaker to train on; lower data.holdout"):
            splits.assign([Listed(index)], data, Numbers())
        return
    table = splits.assign([Listed(index)], data, Numbers())
    speakers = {part: set(group["speaker_id"]) - {""} for part, group in table[table["part"] != ""].groupby("part")}
    assert not speakers["train"] & (speakers.get("dev", set()) | speakers.get("test", set()))
    assert not speakers.get("dev", set()) & speakers.get("test", set())
    trained_on = table[(table["part"] == "train") & (table["speaker_id"] != "")]
    assert set(trained_on["gender"]) == {"female", "male"}
    for part, counts in want.items():
        found = table[table["part"] == part].groupby("gender")["speaker_id"].nunique().to_dict()
        assert found == {g: n for g, n in counts.items() if n}
    assert (table.loc[table["gender"] == "", "part"] == "").all() and (table["size"] == 1_000).all()
    order = list(range(len(index)))
    shuffler.shuffle(order)
    again = splits.assign([Listed(index.iloc[order].reset_index(drop=True))], data, Numbers())
    assert dict(zip(again["id"], again["part"], strict=True)) == dict(zip(table["id"], table["part"], strict=True))


def test_a_test_speaker_is_taken_out_of_the_official_partitions_too():
    speakers = [f"{gender[0]}{i}" for gender in ("male", "female") for i in range(4)]
    rows = [{"speaker_id": s, "gender": "male" if s[0] == "m" else "female", "split": split} for s in speakers
            for split in ("train", "dev")]
    index = pandas.DataFrame(rows).assign(id=[f"u{i}" for i in range(16)], session="", num_samples=8_000, audio_sha256="", text="")
    data = Data(corpora=("listed",), splits=("train",), eval_splits=("dev",), test=0.25)
    table = splits.assign([Listed(index)], data, Numbers())
    held = set(table.loc[table["part"] == "test", "speaker_id"])
    assert len(held) == 2 and not held & set(table.loc[table["part"].isin(["train", "dev"]), "speaker_id"])


# -------------------------------------------------------------------- checkpoints
def test_the_last_and_the_best_checkpoints_are_kept(two_corpora, tmp_path):
    workdir = tmp_path / "run"
    overrides = ("train.steps=16", "train.eval_every=4", "train.save_every=1", "optim.learning_rate=0.01", *SMALLER)
    assert pretrain(two_corpora, workdir, *overrides) == 0
    scores = {line["step"]: line["accuracy"] for line in metrics(workdir, "eval")}
    highest = max(scores.values())
    best = Trained(workdir).step
    assert scores[best] == highest
    assert steps_of(workdir) == sorted({best, 15, 16})
    assert [Trained(workdir, step).step for step in ("last", "16", best)] == [16, 16, best]
    assert cli.main(["evaluate", str(workdir), "--out", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "utterance" in row["definition"].split("(")[0]]
    assert {row["checkpoint"]["step"] for row in rows} == {best}
    again = sum(row["value"] * row["n"] for row in rows) / sum(row["n"] for row in rows)
    assert again == pytest.approx(scores[best], abs=1e-9)
    with pytest.raises(UserError, match=r"--step 3: .* has checkpoints of steps \["):
        Trained(workdir, 3)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(("learning_rate", "message", "kept"), [
    ("1e30", "is nan at step 2;", [1]),  # the first update is finite, what the model makes of it is not
    ("1e39", "the updated model is not finite at step 1;", []),  # infinite in float32
])
def test_a_run_that_diverges_saves_nothing_that_is_not_finite(learning_rate, message, kept, two_corpora, tmp_path, capsys):
    workdir = tmp_path / "run"
    overrides = (f"optim.learning_rate={learning_rate}", "optim.decay=constant", "train.save_every=1", *SMALLER)
    assert pretrain(two_corpora, workdir, *overrides) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last and str(workdir) in last and "optim.learning_rate" in last
    assert steps_of(workdir) == kept
    for step in kept:
        assert all(np.isfinite(leaf).all() for leaf in saved_state(workdir, step).values())


# -------------------------------------------------------------------- one line that says what to do
@pytest.mark.parametrize(("overrides", "code", "words"), [
    (["data.splits=trian"], 2, ["data.splits", "'trian'", "'train'"]),
    (["data.weights=1"], 2, ["data.weights", "1 values for 2 corpora"]),
    (["data.weights=1,0"], 2, ["data.weights", "greater than 0"]),
    (["data.splits=train", "data.holdout=0"], 2, ["data.weights", "ravdess"]),  # has no split of that name
    (["data.holdout=1"], 2, ["data.holdout=1.0", "less than 1"]),
    (["data.test=0.9"], 1, ["holding out 0.2 for dev", "data.test", "to train on"]),
    (["task.crop_seconds=1", "task.min_samples=16000"], 1, ["nothing to train on", "shorter than 16000"]),
    (["train.keep=0"], 2, ["train.keep=0"]),
    (["train.batch_size=0"], 2, ["train.batch_size=0"]),
    (["train.sharding=both"], 2, ["train.sharding=both", "fsdp"]),
    (["optim.name=adan"], 2, ["optim.name=adan", "adam"]),
    (["optim.decay=cosin"], 2, ["optim.decay=cosin", "cosine"]),
    (["data.corpora=nowhere"], 1, ["nowhere", "no prepared.json"]),
])
def test_wrong_settings(overrides, code, words, two_corpora, tmp_path, capsys):
    assert pretrain(two_corpora, tmp_path / "run", *overrides) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines


@pytest.mark.parametrize("override", ["optim.learning_rate=0.5", "model.dropout=0.1", "task.noise=0.1", "data.seed=9",
                                      "train.steps=60", "data.weights=1,1", "name=other"])
def test_a_workdir_of_another_run_is_refused(override, two_corpora, uninterrupted, capsys):
    assert pretrain(two_corpora, uninterrupted, override) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(uninterrupted) in lines[0]
    assert f"another run: {override.partition('=')[0]} differ" in lines[0]


def test_a_workdir_of_other_data_is_refused(two_corpora, uninterrupted, capsys):
    assert pretrain(two_corpora[::-1], uninterrupted) == 2
    assert "data.corpora differ" in capsys.readouterr().err


def test_the_workdir_tells_what_was_trained_on(two_corpora, uninterrupted):
    used = pandas.read_parquet(uninterrupted / "pretrained_on.parquet")
    assert len(used) == 68 and set(used["part"]) == {"train", "dev"}
    config = json.loads((uninterrupted / "config.json").read_text())
    assert [corpus["name"] for corpus in config["prepared"]] == ["ravdess", "manifest"]
    assert arguments(two_corpora, uninterrupted)[1].endswith("small_config.py") and config["name"] == "small"


# -------------------------------------------------------------------- early stopping, speakers held out by name
def test_a_run_ends_early_and_says_so_again(tiny_experiment, tmp_path):
    """Without a learning rate the score of every evaluation is the same: the first is the best, the second is not better."""
    experiment = dataclasses.replace(
        tiny_experiment, optim=dataclasses.replace(tiny_experiment.optim, learning_rate=0.0, plateau=1),
        model=dataclasses.replace(tiny_experiment.model, filters=(4,)),
        train=dataclasses.replace(tiny_experiment.train, steps=50, eval_every=2, save_every=0, patience=2))
    assert train(experiment, tmp_path / "run", stop_after=4) == 75  # where an evaluation is due: it is made up for
    assert train(experiment, tmp_path / "run") == 0
    evaluations = metrics(tmp_path / "run", "eval")
    assert evaluations[-1]["step"] <= 12 and steps_of(tmp_path / "run")[-1] == evaluations[-1]["step"]
    scores = [line["accuracy"] for line in evaluations]
    assert max(scores[-2:]) <= max(scores[:-2])
    assert train(experiment, tmp_path / "whole") == 0
    assert_same_state(saved_state(tmp_path / "run"), saved_state(tmp_path / "whole"))
    assert metrics(tmp_path / "run", "eval") == metrics(tmp_path / "whole", "eval")
    state = saved_state(tmp_path / "run")
    assert state["['training']['opt']['since_best']"] == 2 and state["['training']['opt']['scale']"] <= 0.25
    assert train(experiment, tmp_path / "run") == 0 and metrics(tmp_path / "run", "eval") == evaluations
    other = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, eval_every=3))
    with pytest.raises(UserError, match="train.eval_every differ"):
        train(other, tmp_path / "run")
    for wrong, message in (({"patience": -1}, "train.patience=-1"), ({"eval_every": 0}, "follow the periodic evaluations")):
        with pytest.raises(UserError, match=message):
            train(dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **wrong)), tmp_path / "wrong")


def test_speakers_and_sessions_are_held_out_by_name(corpora):
    data = Data(corpora=("a", "b"), dev_speakers=("ses1",), test_speakers=("03", "s4"))
    table = splits.assign(corpora, data, Numbers())
    parts = table.groupby("part")["speaker_id"].agg(set)
    assert parts["dev"] == {"s1", "s2"} and parts["test"] == {"03", "s4"}
    assert parts["train"] == {"01", "02", "04", "05", "06", "s3"}
    share = splits.assign(corpora, dataclasses.replace(data, test_speakers=(), test=0.3), Numbers())
    assert {"s1", "s2"} == set(share.loc[share["part"] == "dev", "speaker_id"]) and (share["part"] == "test").any()
    with pytest.raises(UserError, match="data.test_speakers: no speaker or session 'ses9'.*there are 01, 02"):
        splits.assign(corpora, Data(test_speakers=("ses9",)), Numbers())
    with pytest.raises(UserError, match="both name s1, s2"):
        splits.assign(corpora, Data(dev_speakers=("s1", "s2"), test_speakers=("ses1",)), Numbers())
    with pytest.raises(UserError, match="nothing is left to train on"):
        splits.assign(corpora, Data(holdout=0.0, test_speakers=tuple(sorted(set(table["speaker_id"])))), Numbers())
