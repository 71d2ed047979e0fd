"""Optimisers by name: MaxProp by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax import optim
from ser_jax.config import Optim
from ser_jax.errors import UsageError


def steps(transform, weights, gradients):
    """Weights after each of the gradients."""
    state, found = transform.init(weights), []
    for gradient in gradients:
        update, state = jax.jit(transform.update)(gradient, state, weights)
        weights = optax.apply_updates(weights, update)
        found.append(jax.tree.map(np.asarray, weights))
    return found


def test_three_steps_of_maxprop_by_hand():
    """m = |2|, then 0.99·2 + 1e-8 > |−1|, then |3| > 0.99·1.98: each step is lr · g / m, whatever the size of g."""
    transform = optim.build(Optim(name="maxprop", learning_rate=0.1), steps=10)
    gradients = [{"w": jnp.array([g, 0.0, 1e-30])} for g in (2.0, -1.0, 3.0)]
    found = steps(transform, {"w": jnp.array([1.0, 5.0, 1.0])}, gradients)
    after_1 = 1.0 - 0.1
    after_2 = after_1 + 0.1 / (0.99 * 2 + 1e-8)
    after_3 = after_2 - 0.1
    np.testing.assert_allclose([step["w"][0] for step in found], [after_1, after_2, after_3], rtol=1e-6)
    assert [step["w"][1] for step in found] == [5.0] * 3  # no gradient, no step, and no division by zero
    assert [step["w"][2] for step in found] == [1.0] * 3  # a gradient below epsilon moves next to nothing


def test_maxprop_is_numpys_recursion_leaf_by_leaf_under_a_schedule():
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    gradients = [{"a": rng.normal(size=(3, 2)) * scale, "b": rng.normal(size=4) * scale} for scale in (1, 0.01, 100, 1, 1e-3)]
    config = Optim(name="maxprop", learning_rate=0.01, warmup_steps=2, decay="linear")
    with jax.enable_x64(True):
        found = steps(optim.build(config, steps=6), jax.tree.map(jnp.asarray, weights), gradients)
    rates = [0.0, 0.005, 0.01, 0.0075, 0.005]
    for name, w in weights.items():
        m = np.zeros_like(w)
        for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
            m = np.maximum(0.99 * m + 1e-8, np.abs(gradient[name]))
            w = w - rate * gradient[name] / m
            np.testing.assert_allclose(found[step][name], w, rtol=1e-6, err_msg=f"{name}, step {step + 1}")


def test_maxprop_takes_no_weight_decay():
    with pytest.raises(UsageError, match="optim.weight_decay"):
        optim.build(Optim(name="maxprop", weight_decay=0.1), steps=10)


def test_clip_value_bounds_every_element_before_the_optimiser_sees_it():
    transform = optim.build(Optim(name="sgd", learning_rate=1.0, clip_value=2.0), steps=10)
    [found] = steps(transform, {"w": jnp.zeros(3)}, [{"w": jnp.array([5.0, -0.5, -3.0])}])
    [plain] = steps(optim.build(Optim(name="sgd", learning_rate=1.0), steps=10), {"w": jnp.zeros(3)},
                    [{"w": jnp.array([2.0, -0.5, -2.0])}])
    np.testing.assert_array_equal(found["w"], plain["w"])
    with pytest.raises(UsageError, match="optim.clip_value=-1"):
        optim.build(Optim(clip_value=-1), steps=10)
