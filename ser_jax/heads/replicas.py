"""Many trainings of one small net at once: a replica is a fold and a seed.

The data lie on the device once; a replica is lists of row numbers, a seed and constants of its own. One compiled program
trains an epoch of one or several replicas (stacked, `jax.vmap`), asks for the score of their dev rows and keeps the best
parameters; the state is donated. Unequal replicas are padded with rows of weight 0 and steps that change nothing, so that
a replica's numbers do not depend on which others it is trained with: order of rows and dropout are functions of its seed
and the epoch.

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
import jax.numpy as jnp
import joblib
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from ser_jax.errors import UsageError
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
      jobs: processes, each with a core of its own and its own copy of the data (CPU only).
      what: what the progress line says.

    Returns:
      `Trained`s in the order of `replicas`.

    Raises:
      UsageError: an option out of range.
    """
    if replicas_per_program < 0:
        raise UsageError(f"replicas_per_program={replicas_per_program}: must be at least 1, or 0 for the default")
    empty = [name for replica in replicas for name in ("train", "dev", "test") if not len(getattr(replica, name))]
    if empty:
        raise ValueError(f"a replica without {empty[0]} rows")
    jobs = max(min(jobs, len(replicas)), 1)
    on_cpu = jobs > 1 or jax.default_backend() == "cpu"
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
    """Steps of an epoch and portions of the dev part of the largest replica: one program serves all."""

    steps: int
    dev: int

    @classmethod
    def of(cls, replicas, rows):
        parts = [replica.train for replica in replicas], [replica.dev for replica in replicas]
        return cls(*(max(-(-len(part) // rows) for part in some) for some in parts))


def _train_group(group, data, size, net, schedule, shape, progress=None):
    """`Trained`s of a group of at most `size` replicas."""
    devices = tuple(jax.local_devices()[: min(size, len(jax.local_devices()))])
    each = -(-size // len(devices))
    start, epoch, predict = programs(net, schedule.patience, devices, each)
    mesh = jax.sharding.Mesh(np.array(devices), ("replica",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*names)) for names in (["replica"], []))
    put = functools.partial(jax.device_put, device=split)
    data = jax.device_put(data, whole)

    padded = [*group, *[group[-1]] * (len(devices) * each - len(group))]
    rows = schedule.batch_size
    constants = put(jax.tree.map(lambda *leaves: np.stack(leaves), *(replica.constants for replica in padded)))
    dev = put(portions([replica.dev for replica in padded], shape.dev, rows))
    state = start(put(np.stack([_keys(np.random.default_rng([replica.seed, 0])) for replica in padded])), constants)
    for number in range(1, schedule.epochs + 1):
        randoms = [np.random.default_rng([replica.seed, number]) for replica in padded]
        orders = [random.permutation(replica.train) for random, replica in zip(randoms, padded)]
        keys = np.stack([_keys(random, shape.steps) for random in randoms])
        state = epoch(state, constants, put(keys), *put(portions(orders, shape.steps, rows)), *dev, number, data)
        going_on = bool(np.asarray(state["active"]).any())
        if progress is not None:
            progress.update(len(group) if going_on else len(group) * (schedule.epochs - number + 1))
        if not going_on:
            break

    outputs = []
    for portion in range(max(-(-len(replica.test) // rows) for replica in group)):
        tests = [replica.test[portion * rows : (portion + 1) * rows] for replica in padded]
        index, _ = portions(tests, 1, rows)
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


def portions(parts, count, rows):
    """Row numbers in portions, padded: (int32[R, count, rows], weights f32[R, count, rows] in {0, 1})."""
    index = np.zeros((len(parts), count * rows), np.int32)
    weight = np.zeros(index.shape, np.float32)
    for i, part in enumerate(parts):
        index[i, : len(part)], weight[i, : len(part)] = part, 1
    shape = len(parts), count, rows
    return index.reshape(shape), weight.reshape(shape)


# ------------------------------------------------------------------------------------------------ programs


@functools.lru_cache(maxsize=8)
def programs(net, patience, devices, each):
    """(start, epoch, predict), compiled for `each` replicas on every one of `devices`, replicas on the leading axis."""
    optimiser = net.optimiser()

    def start(key, constants):
        params = net.init(_key(key), constants)
        lowest, none = jnp.float32(-jnp.inf), jnp.int32(0)
        return {"params": params, "moments": optimiser.init(params), "best": params, "best_score": lowest,
                "best_epoch": none, "last_score": lowest, "epochs": none, "active": jnp.bool_(True)}

    def step(state, constants, key, index, weight, data):
        gradient = jax.grad(net.loss)(state["params"], constants, _rows(data, index), weight, _key(key))
        updates, moments = optimiser.update(gradient, state["moments"], state["params"])
        new = {"params": optax.apply_updates(state["params"], updates), "moments": moments}
        return state | _choose(state["active"] & (weight > 0).any(), new, state)

    def finish(state, constants, dev, weight, number, data):
        outputs = jax.lax.map(lambda index: net.outputs(state["params"], constants, _rows(data, index)), dev)
        outputs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), outputs)
        score = net.score(outputs, _rows(data, dev.reshape(-1)), weight.reshape(-1))
        here = {"best": state["params"], "best_score": score, "best_epoch": number}
        new = _choose(score > state["best_score"], here, state) | {"last_score": score, "epochs": number}
        new["active"] = jnp.logical_or(patience == 0, number - new["best_epoch"] < patience)
        return state | _choose(state["active"], new, state)

    def predict(params, constants, index, data):
        with jax.default_matmul_precision("highest"):
            return net.outputs(params, constants, _rows(data, index))

    every_step = _for_each(step, each, (0, 0, 0, 0, 0, None))
    every_finish = _for_each(finish, each, (0, 0, 0, 0, None, None))

    def epoch(state, constants, keys, order, weight, dev, dev_weight, number, data):
        def body(state, item):
            needed = (item[-1] > 0).any() & state["active"].any()
            return jax.lax.cond(
                needed, lambda state: every_step(state, constants, *item, data), lambda state: state, state
            ), None

        items = [a.swapaxes(0, 1) for a in (keys, order, weight)]
        state, _ = jax.lax.scan(body, state, items)
        return every_finish(state, constants, dev, dev_weight, number, data)

    def compiled(function, split, whole, **options):
        if len(devices) > 1:
            specs = (*[PartitionSpec("replica")] * split, *[PartitionSpec()] * whole)
            mesh = jax.sharding.Mesh(np.array(devices), ("replica",))
            function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("replica"),
                                     check_vma=False)
        return jax.jit(function, **options)

    return (compiled(_for_each(start, each, (0, 0)), 2, 0), compiled(epoch, 7, 2, donate_argnums=0),
            compiled(_for_each(predict, each, (0, 0, 0, None)), 3, 1))


def _for_each(function, count, axes):
    """`function` of one replica for `count` of them; one alone is not a batch of one, which would be slower."""
    if count > 1:
        return jax.vmap(function, axes)

    def alone(*arguments):
        return jax.tree.map(lambda a: a[None], function(*(
            argument if axis is None else jax.tree.map(lambda a: a[0], argument)
            for argument, axis in zip(arguments, axes)
        )))

    return alone


def _keys(random, *count):
    """Key data of a `numpy.random.Generator`: the first of several do not depend on how many there are."""
    return random.integers(0, 2**32, (*count, 2), np.uint32)


def _key(data):
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def _choose(condition, new, old):
    """The entries of `new`, or those of `old` of the same names."""
    return {name: jax.tree.map(lambda a, b: jnp.where(condition, a, b), new[name], old[name]) for name in new}


def _rows(data, index):
    return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), data)


# ------------------------------------------------------------------------------------------------ processes


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
    if cores and not any(path.read_text() == str(os.getpid()) for path in claims.iterdir()):
        for number in range(len(cores)):
            try:
                (claims / str(number)).open("x").write(str(os.getpid()))
            except FileExistsError:
                continue
            os.sched_setaffinity(0, {cores[number]})
            break
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    return train(group, data, size)
