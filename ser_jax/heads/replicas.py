"""Many trainings of one small net at once: a replica is a fold and a seed.

The data lie on the device once; a replica is lists of row numbers, a seed and constants of its own. One compiled
program trains an epoch of one or several replicas (stacked, `jax.vmap`), asks for the score of their dev rows and keeps
the best parameters; the state is donated. Unequal replicas are padded with rows of weight 0 and steps that change
nothing, so that a replica's numbers do not depend on which others it is trained with: order of rows and dropout are
functions of its seed and the epoch.

On a CPU one replica after the other is quickest, spread over processes by `jobs`; accelerators take as many as fit.
Shapes: R replicas of a program, E steps of an epoch, B rows of a batch.
"""

import dataclasses
import functools
import os
import tempfile
from pathlib import Path
from typing import Protocol

import jax
import joblib
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ser_jax.errors import UsageError
from ser_jax.heads.replica_programs import keys_of, mesh_of, portions, programs
from ser_jax.progress import Progress


class Net(Protocol):
    """What is trained, as pure functions of one replica. Hashable (a frozen dataclass): programs are kept by it.

    `params` and `constants` are trees of arrays, `batch` is the tree of the data with rows in place of all rows.
    """

    def optimiser(self):
        """An `optax.GradientTransformation`."""

    def init(self, key, constants):
        """The parameters at the start."""

    def loss(self, params, constants, batch, weight, key):
        """Scalar; weight: f32[B], rows of weight 0 must not count (nor divide by zero when all are)."""

    def outputs(self, params, constants, batch):
        """What is known of each row in inference mode: tree of arrays [B, …]."""

    def score(self, outputs, batch, weight):
        """Scalar, greater is better, of the rows of weight 1."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and in which portions.

    Attributes:
      epochs: passes over the training rows.
      batch_size: rows of a step; the last step of an epoch takes what is left.
      patience: end after so many epochs without a better dev score; 0: never.
    """

    epochs: int = 100
    batch_size: int = 32
    patience: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.patience < 0:
            raise UsageError(f"patience={self.patience}: a number of epochs, or 0 to never end early")


@dataclasses.dataclass(frozen=True)
class Replica:
    """One training. `train`, `dev` and `test` are row numbers, none empty; `constants` is a tree of arrays of the same
    shapes in all replicas (a fold's normalisation, say)."""

    seed: int
    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    constants: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is left of a replica.

    Attributes:
      outputs: `Net.outputs` of the test rows, in their order, with the parameters of the best epoch.
      params: those parameters.
      best_epoch: the first epoch, counted from 1, of the best dev score.
      best_score, last_score: the dev score of that epoch and of the last one.
      epochs: how many were trained.
    """

    outputs: dict
    params: dict
    best_epoch: int
    best_score: float
    last_score: float
    epochs: int


def train_replicas(net, data, replicas, schedule, replicas_per_program=0, jobs=1, what="train"):
    """Trains every replica.

    Args:
      net: a `Net`.
      data: tree of arrays [N, …], all rows.
      replicas: `Replica`s.
      schedule: a `Schedule`.
      replicas_per_program: trained together in one program; 0: one on a CPU, as many as fit on accelerators. Several
        devices share the replicas of a program.
      jobs: processes, each with a core of its own and its own copy of the data; accelerators need none.
      what: what the progress line says.

    Returns:
      `Trained`s in the order of `replicas`.

    Raises:
      UsageError: an option out of range.
    """
    if replicas_per_program < 0:
        raise UsageError(f"replicas_per_program={replicas_per_program}: must be at least 1, or 0 for the default")
    if min(replica.seed for replica in replicas) < 0:
        lowest = min(replica.seed for replica in replicas)
        raise UsageError(f"--seed {lowest}: must be at least 0 for a net that is trained")
    empty = [name for replica in replicas for name in ("train", "dev", "test") if not len(getattr(replica, name))]
    if empty:
        raise ValueError(f"a replica without {empty[0]} rows")
    on_cpu = jax.default_backend() == "cpu"
    jobs = max(min(jobs, len(replicas)), 1) if on_cpu else 1
    size = min(replicas_per_program or (1 if on_cpu else len(replicas)), -(-len(replicas) // jobs))
    train = functools.partial(_train_group, net=net, schedule=schedule, shape=_Shape.of(replicas, schedule.batch_size))
    with Progress(len(replicas) * schedule.epochs, f"{what}: {len(replicas)} replicas", "epochs") as progress:
        if jobs > 1:
            groups = [replicas[first : first + size] for first in range(0, len(replicas), size)]
            return _in_processes(train, groups, data, size, jobs, schedule.epochs, progress)
        trained = []
        while len(trained) < len(replicas):
            group = replicas[len(trained) : len(trained) + size]
            try:
                trained += train(group, data, size, progress=progress)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or size == 1 or replicas_per_program:
                    raise
                size = -(-size // 2)  # they did not all fit
        return trained


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What the largest replica needs, so that one program serves all: steps of an epoch, portions of the dev part, and
    the rows of a portion of dev and of test."""

    steps: int
    dev: int
    dev_rows: int
    test_rows: int

    @classmethod
    def of(cls, replicas, rows):
        train, dev, test = (max(len(getattr(one, part)) for one in replicas) for part in ("train", "dev", "test"))
        portions_of_dev, portions_of_test = -(-dev // rows), -(-test // rows)
        return cls(-(-train // rows), portions_of_dev, -(-dev // portions_of_dev), -(-test // portions_of_test))


def _train_group(group, data, size, net, schedule, shape, progress=None):
    """`Trained`s of a group of at most `size` replicas."""
    devices = tuple(jax.local_devices()[: min(size, len(jax.local_devices()))])
    each = -(-size // len(devices))
    start, epoch, predict = programs(net, devices, each)
    put = functools.partial(jax.device_put, device=NamedSharding(mesh_of(devices), PartitionSpec("replica")))
    data = jax.device_put(data, NamedSharding(mesh_of(devices), PartitionSpec()))

    padded = [*group, *[group[-1]] * (len(devices) * each - len(group))]
    constants = put(jax.tree.map(lambda *leaves: np.stack(leaves), *(replica.constants for replica in padded)))
    dev = put(portions([replica.dev for replica in padded], shape.dev, shape.dev_rows))
    state = start(put(np.stack([keys_of(np.random.default_rng([replica.seed, 0])) for replica in padded])), constants)
    for number in range(1, schedule.epochs + 1):
        randoms = [np.random.default_rng([replica.seed, number]) for replica in padded]
        orders = [random.permutation(replica.train) for random, replica in zip(randoms, padded)]
        keys = np.stack([keys_of(random, shape.steps) for random in randoms])
        state = epoch(
            state,
            constants,
            put(keys),
            *put(portions(orders, shape.steps, schedule.batch_size)),
            *dev,
            number,
            schedule.patience,
            data,
        )
        going_on = bool(np.asarray(state["active"]).any())
        if progress is not None:
            progress.update(len(group) if going_on else len(group) * (schedule.epochs - number + 1))
        if not going_on:
            break

    outputs, rows = [], shape.test_rows
    for first in range(0, max(len(replica.test) for replica in group), rows):
        index, _ = portions([replica.test[first : first + rows] for replica in padded], 1, rows)
        outputs.append(jax.device_get(predict(state["best"], constants, put(index[:, 0]), data)))
    outputs = jax.tree.map(lambda *portions: np.concatenate(portions, axis=1), *outputs)
    kept = jax.device_get({name: value for name, value in state.items() if name not in ("params", "moments")})
    trained = []
    for i, replica in enumerate(group):
        own = jax.tree.map(lambda a, i=i: a[i], kept)
        size = len(replica.test)
        tested = jax.tree.map(lambda a, i=i, size=size: a[i, :size], outputs)
        facts = int(own["best_epoch"]), float(own["best_score"]), float(own["last_score"]), int(own["epochs"])
        trained.append(Trained(tested, own["best"], *facts))
    return trained


def _in_processes(train, groups, data, size, jobs, epochs, progress):
    trained = []
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with tempfile.TemporaryDirectory(prefix="ser_jax_cores_") as folder:
        about = Path(folder), cores, jax.config.jax_compilation_cache_dir
        tasks = (joblib.delayed(_work)(train, group, data, size, *about) for group in groups)
        for group in joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks):
            trained += group
            progress.update(len(group) * epochs)
    return trained


def _work(train, group, data, size, claims, cores, cache):
    """Trains a group in a process of joblib's, on one core: XLA sizes its pool by the cores that it finds."""
    if not any(path.read_text() == str(os.getpid()) for path in claims.iterdir()):
        for core in cores:
            try:
                with open(claims / str(core), "x") as claim:
                    claim.write(str(os.getpid()))
            except FileExistsError:
                continue
            os.sched_setaffinity(0, {core})
            break
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    return train(group, data, size)
