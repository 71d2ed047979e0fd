"""Replicas of small nets: each is trained as if alone, whoever is trained beside it; the best epoch is kept."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.errors import UsageError
from ser_jax.heads import replicas
from ser_jax.heads.replicas import Replica, Schedule, train_replicas


@dataclasses.dataclass(frozen=True)
class Counter:
    """Its one parameter is the sum of the values of the rows that it was trained on; the nearer that is to the mean
    value of the dev rows, the better."""

    def optimiser(self):
        return optax.sgd(1.0)

    def init(self, key, constants):
        return {"sum": jnp.float32(0)}

    def loss(self, params, constants, batch, weight, key):
        return -params["sum"] * (weight * batch["value"]).sum()

    def outputs(self, params, constants, batch):
        return {"sum": jnp.full(len(batch["id"]), params["sum"]), "id": batch["id"]}

    def score(self, outputs, batch, weight):
        return -jnp.abs(((outputs["sum"] - batch["value"]) * weight).sum() / weight.sum())


def bits(key, shape):
    """Zeros and ones: those of the key itself, which compile at once."""
    places = jnp.arange(np.prod(shape)).reshape(shape)
    return (jax.random.key_data(key)[places % 2] >> (places // 2 % 32).astype(jnp.uint32) & 1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Logistic regression with dropout: depends on order, keys and constants."""

    def optimiser(self):
        return optax.adam(0.01)

    def init(self, key, constants):
        return {"kernel": 0.1 * bits(key, (6, 3)), "bias": jnp.zeros(3)}

    def logits(self, params, constants, x):
        return (x - constants["shift"]) @ params["kernel"] + params["bias"]

    def loss(self, params, constants, batch, weight, key):
        x = 2 * batch["x"] * bits(key, batch["x"].shape)
        each = optax.softmax_cross_entropy_with_integer_labels(self.logits(params, constants, x), batch["label"])
        return (each * weight).sum() / jnp.maximum(weight.sum(), 1)

    def outputs(self, params, constants, batch):
        return {"logits": self.logits(params, constants, batch["x"])}

    def score(self, outputs, batch, weight):
        return ((outputs["logits"].argmax(1) == batch["label"]) * weight).sum() / weight.sum()


RANDOM = np.random.default_rng(0)
VALUES = {"value": np.array([1, 2, 4, 8, 16, 32, 37, 93, 5], np.float32), "id": np.arange(9, dtype=np.int32)}
POINTS = {"x": RANDOM.normal(size=(60, 6)).astype(np.float32), "label": RANDOM.integers(0, 3, 60).astype(np.int32)}
# Their sums after each epoch: 7, 14, 21…; 31, 62, 93…; the peaks are 37, 93 and 5.
COUNTERS = [
    Replica(0, np.array([0, 1, 2]), np.array([6]), np.array([5, 3])),
    Replica(1, np.array([4, 0, 3, 1, 2]), np.array([7]), np.array([8, 0, 2, 1])),
    Replica(0, np.array([0, 1, 2]), np.array([8, 8]), np.array([1])),
]


def softmax_replicas():
    """Three of unequal size with constants of their own; 10, 9 and 7 steps of 4 rows in two epochs."""
    rows = np.random.default_rng(1).permutation(60)
    return [
        Replica(seed, rows[:size], rows[40:50], rows[50:], {"shift": np.full(6, shift, np.float32)})
        for seed, size, shift in ((3, 18, 0.0), (4, 17, 0.3), (3, 13, -0.2))
    ]


def params_of(trained):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trained.params)])


@pytest.mark.parametrize("together", [1, 2])
def test_every_row_counts_once_an_epoch_and_the_best_epoch_is_kept(together):
    first, second, third = train_replicas(Counter(), VALUES, COUNTERS, Schedule(epochs=7, batch_size=2), together)
    assert (first.best_epoch, first.best_score, first.last_score, first.epochs) == (5, -2, -12, 7)
    assert (second.best_epoch, second.best_score, second.last_score, second.epochs) == (3, 0, -124, 7)
    assert (third.best_epoch, third.best_score, third.last_score, third.epochs) == (1, -2, -44, 7)
    for replica, trained, total in zip(COUNTERS, (first, second, third), (35, 93, 7)):
        assert float(trained.params["sum"]) == total
        assert trained.outputs["sum"].tolist() == [total] * len(replica.test)  # with the parameters of that epoch
        assert trained.outputs["id"].tolist() == replica.test.tolist()


@pytest.mark.parametrize("together", [1, 2])
def test_a_replica_that_ended_early_stays_as_it_was_while_others_go_on(together):
    schedule = Schedule(epochs=7, batch_size=2, patience=2)
    first, second, third = train_replicas(Counter(), VALUES, COUNTERS, schedule, together)
    assert (first.best_epoch, first.epochs, first.last_score) == (5, 7, -12)
    assert (second.best_epoch, second.epochs, second.last_score) == (3, 5, -62)
    assert (third.best_epoch, third.epochs, third.last_score) == (1, 3, -16)
    assert [float(trained.params["sum"]) for trained in (first, second, third)] == [35, 93, 7]


def test_the_first_of_equally_good_epochs_is_kept():
    still = {**VALUES, "value": np.where(VALUES["id"] < 3, 0, VALUES["value"]).astype(np.float32)}
    [trained] = train_replicas(Counter(), still, [COUNTERS[0]], Schedule(epochs=3, batch_size=2))
    assert (trained.best_epoch, trained.best_score, trained.last_score) == (1, -37, -37)


def test_together_is_alone_and_the_same_seed_gives_the_same_numbers():
    group, schedule = softmax_replicas(), Schedule(epochs=2, batch_size=4)
    alone = [train_replicas(Softmax(), POINTS, [replica], schedule)[0] for replica in group]
    in_turn = train_replicas(Softmax(), POINTS, group, schedule, 1)
    together = train_replicas(Softmax(), POINTS, group, schedule, 3)
    for others in (in_turn, together):
        for one, other in zip(alone, others):
            np.testing.assert_allclose(params_of(other), params_of(one), rtol=0, atol=1e-6)
            np.testing.assert_allclose(other.outputs["logits"], one.outputs["logits"], rtol=0, atol=1e-5)
            assert (other.best_epoch, other.best_score) == (one.best_epoch, pytest.approx(one.best_score))
    for one, other in zip(in_turn, train_replicas(Softmax(), POINTS, group, schedule, 1)):
        assert (params_of(one) == params_of(other)).all()
    # Replicas 0 and 2 share a seed, not the rows; the start is the same, what follows is not.
    assert np.abs(params_of(alone[0]) - params_of(alone[2])).max() > 1e-3
    other_seed = dataclasses.replace(group[0], seed=5)
    assert (
        np.abs(params_of(train_replicas(Softmax(), POINTS, [other_seed], schedule)[0]) - params_of(alone[0])).max()
        > 1e-3
    )


def test_parts_must_not_be_empty_and_options_are_checked():
    for name in ("train", "dev", "test"):
        bad = dataclasses.replace(COUNTERS[0], **{name: np.arange(0)})
        with pytest.raises(ValueError, match=f"without {name} rows"):
            train_replicas(Counter(), VALUES, [COUNTERS[1], bad], Schedule())
    with pytest.raises(UsageError, match="--seed -2"):
        train_replicas(Counter(), VALUES, [COUNTERS[1], dataclasses.replace(COUNTERS[0], seed=-2)], Schedule())
    with pytest.raises(UsageError, match="replicas_per_program=-1"):
        train_replicas(Counter(), VALUES, COUNTERS, Schedule(), -1)
    for wrong in ({"epochs": 0}, {"batch_size": 0}, {"patience": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Schedule(**wrong)


def test_an_accelerator_takes_as_many_as_fit(monkeypatch):
    tried = []

    def train_group(group, data, size, **rest):
        tried.append((len(group), size))
        if size > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory while allocating")
        return list(group)

    monkeypatch.setattr(replicas, "_train_group", train_group)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    many = [dataclasses.replace(COUNTERS[0], seed=seed) for seed in range(7)]
    assert [replica.seed for replica in train_replicas(Counter(), VALUES, many, Schedule())] == list(range(7))
    assert tried == [(7, 7), (4, 4), (2, 2), (2, 2), (2, 2), (1, 2)]
    with pytest.raises(jax.errors.JaxRuntimeError):  # who asks for a number gets it or hears of it
        train_replicas(Counter(), VALUES, many, Schedule(), 3)


def test_progress_counts_every_epoch(capsys):
    train_replicas(Counter(), VALUES, COUNTERS, Schedule(epochs=7, batch_size=2, patience=2), 1, what="train tiny")
    assert "train tiny: 3 replicas: 21/21 epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_and_devices_change_nothing(tmp_path):
    group, schedule = softmax_replicas(), Schedule(epochs=2, batch_size=4)
    alone = train_replicas(Softmax(), POINTS, group, schedule)
    spread = train_replicas(Softmax(), POINTS, group, schedule, jobs=2)
    for one, other in zip(alone, spread):
        assert (params_of(one) == params_of(other)).all() and one.best_epoch == other.best_epoch
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.path.dirname(__file__)])
    subprocess.run([sys.executable, __file__, tmp_path / "two.npy"], check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), [params_of(one) for one in alone], rtol=0, atol=1e-6)


if __name__ == "__main__":
    assert len(jax.devices()) == 2
    made = train_replicas(Softmax(), POINTS, softmax_replicas(), Schedule(epochs=2, batch_size=4), 3)
    np.save(sys.argv[1], [params_of(one) for one in made])
