"""Optimisers by name: MaxProp by hand."""

import dataclasses

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


def test_two_steps_of_rmsprop_by_hand():
    """ν ← ρ ν + (1 − ρ) g² from 0, step lr · g / √(ν + ε)."""
    transform = optim.build(Optim(name="rmsprop", learning_rate=0.1, average_decay=0.9, epsilon=1e-7), steps=10)
    found = steps(transform, {"w": jnp.array([1.0])}, [{"w": jnp.array([2.0])}, {"w": jnp.array([-1.0])}])
    first = 1 - 0.1 * 2 / np.sqrt(0.4 + 1e-7)
    np.testing.assert_allclose(found[0]["w"], [first], rtol=1e-5)
    np.testing.assert_allclose(found[1]["w"], [first + 0.1 * 1 / np.sqrt(0.9 * 0.4 + 0.1 + 1e-7)], rtol=1e-5)


def test_l2_is_the_gradient_of_its_penalty_on_the_named_parameters_alone():
    config = Optim(name="sgd", learning_rate=0.5, l2=0.01, l2_on=("conv/kernel",))
    weights = {"conv": {"kernel": jnp.array([3.0]), "bias": jnp.array([3.0])}, "frozen": None}
    nothing = jax.tree.map(jnp.zeros_like, weights)
    penalty = jax.grad(lambda w: 0.01 * (w["conv"]["kernel"] ** 2).sum())(weights)
    plain = steps(optim.build(Optim(name="sgd", learning_rate=0.5), steps=10), weights, [penalty])[0]
    found = steps(optim.build(config, steps=10), weights, [nothing])[0]
    assert found == plain and found["conv"]["bias"] == 3.0 and found["conv"]["kernel"] < 3.0
    optim.build(config, 10, ["conv/kernel", "conv/bias"])
    with pytest.raises(UsageError, match="optim.l2_on=dense names no parameter; there are conv/bias, conv/kernel"):
        optim.build(dataclasses.replace(config, l2_on=("dense",)), 10, ["conv/kernel", "conv/bias"])


def test_evaluations_without_a_better_score_halve_the_learning_rate():
    transform = optim.watched(optim.build(Optim(name="sgd", learning_rate=1.0), steps=10))
    state, gradient = transform.init({"w": jnp.array([0.0])}), {"w": jnp.array([1.0])}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    scales, since = [], []
    for score in (0.5, 0.5, 0.4, 0.6, 0.1, 0.1, 0.1, 0.1):  # the second 0.5 is not better
        state = optim.observe(state, score, plateau=2)
        scales.append(float(state["scale"]))
        since.append(int(state["since_best"]))
    assert scales == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125] and since == [0, 1, 2, 0, 1, 2, 3, 4]
    assert float(state["best"]) == pytest.approx(0.6)
    assert float(transform.update(gradient, state)[0]["w"][0]) == pytest.approx(-0.125 * 1.9)  # Nesterov momentum 0.9
    assert float(optim.observe(transform.init(gradient), 0.0, plateau=0)["scale"]) == 1
