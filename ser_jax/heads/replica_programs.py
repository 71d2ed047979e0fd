"""The compiled programs that train replicas (`heads.replicas`): their start, an epoch, predictions.

Each is written for one replica and made to serve several: stacked on the leading axis with `jax.vmap`, split over
devices with `jax.shard_map`. Shapes: R replicas of a program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec


@functools.lru_cache(maxsize=8)
def programs(net, devices, each):
    """Compiled for `each` replicas on every one of `devices`; `net` is a `heads.replicas.Net`.

    Returns:
      start: (keys uint32[R, 2], constants) -> state.
      epoch: (state, constants, keys uint32[R, steps, 2], rows int32[R, steps, B] and their weights, dev rows
        int32[R, portions, rows] and their weights, number of the epoch, patience, data) -> state; the given one is
        donated.
      predict: (params, constants, rows int32[R, rows], data) -> `Net.outputs`.

      state has "params", "moments" of the optimiser, "best" parameters, "best_score", "best_epoch", "last_score",
      "epochs" and "active": false, and nothing changes any more, once the replica ended early.
    """
    optimiser = net.optimiser()

    def start(key, constants):
        params = net.init(_key(key), constants)
        lowest, none = jnp.float32(-jnp.inf), jnp.int32(0)
        return {
            "params": params,
            "moments": optimiser.init(params),
            "best": params,
            "best_score": lowest,
            "best_epoch": none,
            "last_score": lowest,
            "epochs": none,
            "active": jnp.bool_(True),
        }

    def step(state, constants, key, index, weight, data):
        gradient = jax.grad(net.loss)(state["params"], constants, _rows(data, index), weight, _key(key))
        updates, moments = optimiser.update(gradient, state["moments"], state["params"])
        new = {"params": optax.apply_updates(state["params"], updates), "moments": moments}
        return state | _choose(state["active"] & (weight > 0).any(), new, state)

    def predict(params, constants, index, data):
        with jax.default_matmul_precision("highest"):
            return net.outputs(params, constants, _rows(data, index))

    def finish(state, constants, dev, weight, number, patience, data):
        outputs = jax.lax.map(lambda index: predict(state["params"], constants, index, data), dev)
        outputs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), outputs)
        score = net.score(outputs, _rows(data, dev.reshape(-1)), weight.reshape(-1))
        here = {"best": state["params"], "best_score": score, "best_epoch": number}
        new = _choose(score > state["best_score"], here, state) | {"last_score": score, "epochs": number}
        new["active"] = jnp.logical_or(patience == 0, number - new["best_epoch"] < patience)
        return state | _choose(state["active"], new, state)

    every_step = _for_each(step, each, (0, 0, 0, 0, 0, None))
    every_finish = _for_each(finish, each, (0, 0, 0, 0, None, None, None))

    def epoch(state, constants, keys, order, weight, dev, dev_weight, number, patience, data):
        def body(state, item):
            needed = (item[-1] > 0).any() & state["active"].any()
            return jax.lax.cond(
                needed, lambda state: every_step(state, constants, *item, data), lambda state: state, state
            ), None

        items = [a.swapaxes(0, 1) for a in (keys, order, weight)]
        state, _ = jax.lax.scan(body, state, items)
        return every_finish(state, constants, dev, dev_weight, number, patience, data)

    def compiled(function, split, whole, **options):
        if len(devices) > 1:
            each_own, same = PartitionSpec("replica"), PartitionSpec()
            specs = {"in_specs": (*[each_own] * split, *[same] * whole), "out_specs": each_own}
            function = jax.shard_map(function, mesh=mesh_of(devices), check_vma=False, **specs)
        return jax.jit(function, **options)

    return (
        compiled(_for_each(start, each, (0, 0)), 2, 0),
        compiled(epoch, 7, 3, donate_argnums=0),
        compiled(_for_each(predict, each, (0, 0, 0, None)), 3, 1),
    )


def _for_each(function, count, axes):
    """`function` of one replica for `count` of them; one alone is not a batch of one, which would be slower."""
    if count > 1:
        return jax.vmap(function, axes)

    def alone(*arguments):
        return jax.tree.map(
            lambda a: a[None],
            function(
                *(
                    argument if axis is None else jax.tree.map(lambda a: a[0], argument)
                    for argument, axis in zip(arguments, axes)
                )
            ),
        )

    return alone


def _key(data):
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def _choose(condition, new, old):
    """The entries of `new`, or those of `old` of the same names."""
    return {name: jax.tree.map(lambda a, b: jnp.where(condition, a, b), new[name], old[name]) for name in new}


def _rows(data, index):
    return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), data)


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(devices), ("replica",))


def keys_of(random, *count):
    """Key data of a `numpy.random.Generator`: the first of several do not depend on how many there are."""
    return random.integers(0, 2**32, (*count, 2), np.uint32)


def portions(parts, count, rows):
    """Row numbers in portions, padded: (int32[R, count, rows], weights f32[R, count, rows] in {0, 1})."""
    index = np.zeros((len(parts), count * rows), np.int32)
    weight = np.zeros(index.shape, np.float32)
    for i, part in enumerate(parts):
        index[i, : len(part)], weight[i, : len(part)] = part, 1
    shape = len(parts), count, rows
    return index.reshape(shape), weight.reshape(shape)
