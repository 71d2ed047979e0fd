"""ConvNet over windows of frames: published sizes, fast forms against plain ones, windows, masks, gradients, freezing."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax import config as configs
from ser_jax.config import Experiment
from ser_jax.errors import UsageError
from ser_jax.models import conv2d, convnet
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.tasks.gender import GenderConfig

SMALL = ConvNetConfig(context=5, conv_channels=(3, 4), conv_kernels=((3, 2), (2, 2)), dense=(6, 5, 4), bands=14)
LAYERS = ("layer_1", "layer_2", "layer_3", "layer_4", "layer_5")


def net(config=SMALL, classes=3, seed=0):
    """A net with nothing left at 0 or 1, as (graphdef, params, stats) of plain arrays."""
    graphdef, params, stats = nnx.split(config.build(classes, rngs=nnx.Rngs(seed)), nnx.Param, ...)
    random = np.random.default_rng(seed)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.1 * random.normal(size=p.shape).astype(np.float32),
                          nnx.to_pure_dict(params))
    stats = jax.tree.map(lambda s: np.asarray(s) + random.uniform(0, 0.5, s.shape).astype(np.float32),
                         nnx.to_pure_dict(stats))
    return graphdef, params, stats


@pytest.fixture(scope="module")
def small():
    """Functions of (frames, mask[, centres]) in inference mode."""
    graphdef, params, stats = net()

    def apply(frames, mask, centres=None):
        model = nnx.merge(graphdef, params, stats)
        model.eval()
        return model(frames, mask, centres)

    return jax.jit(apply)


def noise(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def ragged(lengths, size, bands=SMALL.bands, seed=0):
    """(frames, mask); what is beyond a row's length is loud."""
    mask = np.arange(size) < np.array(lengths)[:, None]
    rows = [noise(length, bands, seed=seed + i) for i, length in enumerate(lengths)]
    frames = np.full((len(lengths), size, bands), 1e3, np.float32)
    for row, frame in zip(rows, frames):
        frame[: len(row)] = row
    return frames, mask


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape and np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1e-6)


# ------------------------------------------------------------------------------------------------ sizes and options


@pytest.mark.parametrize(("orientation", "classes", "count"), [
    ("mel_time", 144, 8_621_008), ("mel_time", 5, 8_478_533), ("time_mel", 144, 7_572_432), ("time_mel", 5, 7_429_957)])
def test_parameter_counts_are_the_published_ones(orientation, classes, count):
    config = ConvNetConfig(orientation=orientation)
    made = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: config.build(classes, rngs=nnx.Rngs(0))), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == count
    assert tuple(sorted(made)) == ("head", *config.layer_patterns) and config.layer_patterns == LAYERS
    assert made["layer_1"].keys() == {"conv", "norm"} and made["layer_5"].keys() == {"dense", "norm"}


def test_weights_start_with_a_variance_of_two_by_fan_in():
    made = ConvNetConfig(dense=(64, 64, 64)).build(5, rngs=nnx.Rngs(0))
    kernels = [made.layer_1.conv.kernel, made.layer_2.conv.kernel, made.layer_3.dense.kernel, made.layer_4.dense.kernel]
    for kernel in kernels:
        fan_in = kernel.size // kernel.shape[-1]
        assert float(kernel[...].var()) * fan_in == pytest.approx(2, rel=0.1)
        assert float(abs(kernel[...]).max()) > 2.5 * (2 / fan_in) ** 0.5  # not truncated at two deviations
    assert float(abs(made.head.bias[...]).max()) == 0


@pytest.mark.parametrize(("change", "names"), [
    ({"orientation": "up"}, "orientation"), ({"dropout": 1.0}, "dropout"), ({"context": 3}, "conv_kernels"),
    ({"dense": (8,)}, "dense"), ({"conv_kernels": ((3, 3),)}, "conv_kernels"), ({"context": -1}, "context")])
def test_a_wrong_size_is_named(change, names):
    with pytest.raises(UsageError, match=f"model.*{names}") as error:
        dataclasses.replace(ConvNetConfig(), **change)
    assert "\n" not in str(error.value)


def test_a_config_survives_json():
    experiment = Experiment("x", SMALL, GenderConfig())
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(experiment)))) == experiment


# ------------------------------------------------------------------------------------------------ forms


@pytest.mark.parametrize("form", ["conv2d", "conv2d_rows", "conv2d_patches"])
@pytest.mark.parametrize(("size", "c_in"), [((5, 4), 1), ((3, 3), 1), ((2, 4), 3), ((1, 1), 2)])
def test_every_form_of_the_convolution_is_the_plain_one(form, size, c_in):
    if form == "conv2d_patches" and c_in > 1:
        pytest.skip("of one channel")
    with jax.enable_x64(True):
        x, kernel = noise(3, 7, 9, c_in, dtype=np.float64), noise(*size, c_in, 5, seed=1, dtype=np.float64)
        cotangent = noise(3, 8 - size[0], 10 - size[1], 5, seed=2, dtype=np.float64)

        def result(convolve):
            return jax.jit(jax.value_and_grad(lambda *args: (convolve(*args) * cotangent).sum(), (0, 1)))(x, kernel)

        for a, b in zip(*map(jax.tree.leaves, (result(getattr(conv2d, form)), result(conv2d.conv2d_plain))), strict=True):
            close(a, b, 1e-12)
    taps = [(i, j) for i in range(size[0]) for j in range(size[1])]
    naive = sum(x[:, i : 8 - size[0] + i, j : 10 - size[1] + j] @ kernel[i, j] for i, j in taps)
    close(conv2d.conv2d_plain(x.astype(np.float32), kernel.astype(np.float32)), naive)


@pytest.mark.parametrize("windows", [1, 7, 12, 22])
def test_the_weight_gradient_takes_all_windows_whatever_their_number(windows):
    x, kernel, cotangent = noise(windows, 4, 4, 2), noise(2, 2, 2, 3), noise(windows, 3, 3, 3, seed=1)
    ours, plain = (jax.jit(jax.grad(lambda kernel, form=form: (form(x, kernel) * cotangent).sum()))(kernel)
                   for form in (conv2d.conv2d, conv2d.conv2d_plain))
    close(ours, plain)


@pytest.mark.parametrize("shape", [(2, 6, 8), (3, 5, 7), (1, 2, 3)])
def test_normalisation_with_pooling_is_the_plain_one(shape):
    with jax.enable_x64(True):
        x, scale, bias = noise(*shape, 4, dtype=np.float64), np.array([1.5, -0.7, 0.0, 2]), noise(4, seed=1)
        cotangent = noise(shape[0], shape[1] // 2, shape[2] // 2, 4, seed=2, dtype=np.float64)

        def result(form):
            def loss(*args):
                y, mean, var = form(*args, 1e-5)
                return (y * cotangent).sum(), (y, mean, var)
            return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(x + 0.5, scale, bias.astype(np.float64))

        for a, b in zip(*map(jax.tree.leaves, (result(conv2d.normalise_pool), result(conv2d.normalise_pool_plain))),
                        strict=True):
            close(a, b, 1e-10)


def test_equal_maxima_send_the_gradient_where_pytorch_does():
    torch = pytest.importorskip("torch", reason="PyTorch states the rule")
    cells = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, 16).T.reshape(16, 2, 2, 1)  # all ties of a window
    x = np.pad(cells, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=9.0)  # and an odd row and column
    weight = np.arange(1.0, 17.0).reshape(16, 1, 1, 1)
    ours = jax.grad(lambda x: (conv2d.max_pool2d(x) * weight).sum())(x)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    (torch.nn.functional.max_pool2d(theirs, 2) * torch.tensor(weight)).sum().backward()
    assert (np.asarray(ours) == theirs.grad.numpy().transpose(0, 2, 3, 1)).all()


# ------------------------------------------------------------------------------------------------ windows and masks


@given(st.lists(st.integers(1, 12), min_size=2, max_size=2), st.data())
@settings(deadline=None, max_examples=25)
def test_a_window_repeats_the_valid_ends(lengths, data):
    frames, mask = ragged(lengths, 12)
    centres = np.array([[data.draw(st.integers(0, length - 1)) for _ in range(3)] for length in lengths])
    cut = np.asarray(convnet.windows(frames, mask, centres, SMALL.context)).reshape(2, 3, SMALL.window, -1)
    for row, length in enumerate(lengths):
        for k in range(3):
            wanted = [frames[row, min(max(centres[row, k] + d, 0), length - 1)] for d in range(-5, 6)]
            assert (cut[row, k] == np.stack(wanted)).all()


@pytest.mark.parametrize(("orientation", "pieces"), [("mel_time", (14, 4)), ("time_mel", (99, 128))])
def test_whole_utterances_give_what_their_windows_give(orientation, pieces, monkeypatch):
    monkeypatch.setattr(convnet, "CHUNK", pieces[0])
    monkeypatch.setattr(convnet, "MIN_CHUNK", pieces[1])
    graphdef, params, stats = net(dataclasses.replace(SMALL, orientation=orientation, context=6))
    lengths = [23, 9, 1]
    frames, mask = ragged(lengths, 23)
    centres = np.minimum(np.arange(23), np.array(lengths)[:, None] - 1)

    @jax.jit
    def both(params, stats):
        model = nnx.merge(graphdef, params, stats)
        model.eval()
        return model(frames, mask), model(frames, mask, centres)

    whole, cut = both(params, stats)
    assert (np.asarray(whole["mask"]) == mask).all() and np.asarray(cut["mask"]).all()
    for row, length in enumerate(lengths):
        close(whole["logits"][row, :length], cut["logits"][row, :length])
        for name in LAYERS:
            tap, valid = whole["taps"][name]
            close(tap[row, :length], cut["taps"][name][0][row, :length])
            assert (np.asarray(valid) == mask).all() and (np.asarray(tap)[row, length:] == 0).all()
    assert [cut["taps"][name][0].shape[-1] for name in LAYERS] == [3, 4, 6, 5, 4]


def test_a_convolutions_tap_is_the_mean_of_its_pooled_map(small):
    frames, mask = ragged([11], 11)
    graphdef, params, stats = net()
    x = (frames - stats["input"]["mean"]) / np.sqrt(stats["input"]["var"] + 1e-5)
    p, s = params["layer_1"], stats["layer_1"]["norm"]
    y = conv2d.conv2d_plain(x[..., None], p["conv"]["kernel"]) + p["norm"]["input_bias"] - s["mean"]
    y = y / np.sqrt(s["var"] + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    pooled = conv2d.max_pool2d(np.maximum(y, 0))
    assert pooled.shape == (1, 5, 6, 3)
    close(small(frames, mask, np.array([[5]]))["taps"]["layer_1"][0][0, 0], np.mean(pooled, (0, 1, 2)))


@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_no_answer_depends_on_the_padding_or_on_the_other_rows(small, lengths, seed):
    frames, mask = ragged(lengths, 20, seed=seed)
    long_frames, long_mask = ragged(lengths, 33, seed=seed)
    ours, theirs = small(frames, mask), small(long_frames[::-1], long_mask[::-1])
    for row, length in enumerate(lengths):
        close(ours["logits"][row, :length], theirs["logits"][2 - row, :length])
        for name in LAYERS:
            close(ours["taps"][name][0][row, :length], theirs["taps"][name][0][2 - row, :length])


def test_an_empty_row_of_a_batch_is_harmless(small):
    frames, mask = ragged([7, 0, 0], 20)
    found = small(frames, mask)
    assert np.isfinite(found["logits"][0, :7]).all() and not np.asarray(found["mask"])[1:].any()
    close(found["logits"][0, :7], small(*ragged([7, 7, 20], 20))["logits"][0, :7])


# ------------------------------------------------------------------------------------------------ training


def training_loss(config=SMALL, frozen=()):
    graphdef, params, stats = net(config)
    frames, mask = ragged([12, 9, 4, 12], 12)
    centres, label = np.array([[1, 7], [8, 3], [0, 3], [11, 5]]), np.arange(8).reshape(4, 2) % 3

    def loss(params, stats, frames, key=0):
        model = nnx.merge(graphdef, params, stats)
        model.train()
        for name in frozen:
            getattr(model, name).norm.use_running_average = True
        logits = model(frames, mask, centres, rngs=nnx.Rngs(dropout=key))["logits"]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[..., None], -1).mean()
        return nll, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return jax.jit(loss), params, stats, frames


@pytest.mark.parametrize("frozen", [(), ("layer_1", "layer_3")], ids=["none frozen", "two frozen"])
def test_the_gradient_agrees_with_finite_differences_along_itself(frozen):
    with jax.enable_x64(True):
        loss, *arrays = training_loss(dataclasses.replace(SMALL, dropout=0.0), frozen)
        params, stats, frames = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), arrays)
        gradient = jax.jit(jax.grad(loss, has_aux=True))(params, stats, frames)[0]
        norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))

        def at(distance):
            moved = jax.tree.map(lambda leaf, slope: leaf + distance / norm * slope, params, gradient)
            return float(loss(moved, stats, frames)[0])

        assert norm > 0.01 and float(abs(gradient["layer_1"]["conv"]["kernel"]).max()) > 1e-4
        assert (at(1e-6) - at(-1e-6)) / 2e-6 == pytest.approx(norm, rel=1e-5)


def test_training_moves_the_statistics_of_layers_that_are_not_frozen_and_not_those_of_the_input():
    loss, params, stats, frames = training_loss(frozen=("layer_1", "layer_4"))
    moved = {name: any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), stats[name], new)))
             for name, new in loss(params, stats, frames)[1].items()}
    assert moved == {"input": False, "layer_1": False, "layer_2": True, "layer_3": True, "layer_4": False, "layer_5": True}


def test_running_statistics_include_the_bias_before_the_normalisation():
    loss, params, stats, frames = training_loss()
    new = loss(params, stats, frames)[1]
    shifted = params | {"layer_1": params["layer_1"] | {
        "norm": params["layer_1"]["norm"] | {"input_bias": params["layer_1"]["norm"]["input_bias"] + 10}}}
    (a, _), (b, after) = loss(params, stats, frames), loss(shifted, stats, frames)
    assert float(a) == float(b)
    close(after["layer_1"]["norm"]["mean"] - new["layer_1"]["norm"]["mean"], np.ones(3))


def test_dropout_is_there_in_training_alone(small):
    loss, params, stats, frames = training_loss()
    assert float(loss(params, stats, frames, jax.random.key(0))[0]) != float(loss(params, stats, frames, jax.random.key(1))[0])
    model = SMALL.build(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="centres"):
        model(*ragged([9], 9), rngs=nnx.Rngs(dropout=0))
