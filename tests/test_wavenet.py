"""The WaveNet recogniser: published sizes, receptive fields, PyTorch as a second opinion, gradients, and padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.audio import mfcc, waveform
from ser_jax.errors import UsageError
from ser_jax.models.layers import masked_mean
from ser_jax.models.wavenet import WaveNetConfig

RECEPTIVE_FIELDS = [7, 19, 43, 91, 187, 193, 205, 229, 277, 373, 379, 391, 415, 463, 559]  # frames, of every block
SMALL = WaveNetConfig(channels=6, kernel=5, dilations=(1, 3))


def _sizes(state):
    return sum(leaf.size for leaf in jax.tree.leaves(state))


def _shapes(config, symbols=28):
    return nnx.eval_shape(lambda: config.build(symbols, rngs=nnx.Rngs(0)))


# ------------------------------------------------------------------------------------------------ sizes and names


def test_parameter_counts_are_those_of_the_specification():
    net = _shapes(WaveNetConfig())
    assert _sizes(nnx.state(net, nnx.Param)) == 3_720_988
    assert _sizes(nnx.state(net, nnx.BatchStat)) == 12_032
    blocks = [_sizes(nnx.state(getattr(net, f"block_{i:02d}"), nnx.Param)) for i in range(1, 16)]
    assert blocks == [246_528] * 15
    layers = [(net.front, net.front_norm), (net.head, net.head_norm), (net.symbols,)]
    assert [sum(_sizes(nnx.state(part, nnx.Param)) for part in layer) for layer in layers] == [2_816, 16_640, 3_612]


def test_first_weights_are_uniform_within_the_published_bounds():
    net = WaveNetConfig(dilations=(1,)).build(28, rngs=nnx.Rngs(0))
    bounds = {"front": 0.1406, "block_01.gated": 0.0334, "block_01.out": 0.0884, "head": 0.0884, "symbols": 0.1292}
    for name, bound in bounds.items():
        weight = np.asarray(_part(net, name).kernel[...])
        assert np.abs(weight).max() == pytest.approx(bound, rel=0.01), name
        assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.03) and abs(weight.mean()) < 0.05 * bound, name
    for name in ("front_norm", "block_01.gated_norm", "block_01.out_norm", "head_norm"):
        norm = _part(net, name)
        assert (norm.scale[...] == 1).all() and (norm.bias[...] == 0).all(), name
    assert (net.symbols.bias[...] == 0).all()


def _part(net, name):
    for part in name.split("."):
        net = getattr(net, part)
    return net


def test_every_block_can_be_tapped_by_name():
    order = []

    def forward(x, mask):
        net = WaveNetConfig().build(28, rngs=nnx.Rngs(0))
        net.eval()
        outputs = net(x, mask)
        order.extend(outputs["taps"])
        return outputs

    outputs = jax.eval_shape(forward, jax.ShapeDtypeStruct((2, 50, 20), jnp.float32), jax.ShapeDtypeStruct((2, 50), bool))
    blocks = [f"{kind}_{i:02d}" for i in range(1, 16) for kind in ("filter", "gcu", "out")]
    assert order == ["front", *blocks, "skip", "head"]
    assert {(x.shape, mask.shape) for x, mask in outputs["taps"].values()} == {((2, 50, 128), (2, 50))}
    assert outputs["logits"].shape == (2, 50, 28)


@pytest.mark.parametrize("fields", [{"kernel": 4}, {"dilations": ()}, {"dilations": (1, 0)}], ids=str)
def test_a_config_that_makes_no_net_is_refused(fields):
    with pytest.raises(UsageError, match=f"model.{next(iter(fields))}"):
        WaveNetConfig(**fields)


# ------------------------------------------------------------------------------------------------ nets as functions


class Net:
    """A net with random parameters and statistics, none of them at a value where an error would not show."""

    def __init__(self, config, dtype=np.float32, symbols=28):
        self.config = config
        self.graphdef, params, stats = nnx.split(_shapes(config, symbols), nnx.Param, ...)
        rng = np.random.default_rng(0)
        self.params, self.stats = (_randomised(nnx.to_pure_dict(tree), rng, dtype) for tree in (params, stats))
        self.gradient = jax.jit(jax.value_and_grad(self.loss, has_aux=True))
        self.outputs = jax.jit(self.apply)

    def apply(self, params, stats, x, mask):
        net = nnx.merge(self.graphdef, params, stats)
        net.eval()
        return net(x, mask)

    def loss(self, params, stats, x, mask, symbols):
        """Mean cross entropy of the valid frames in training mode."""
        net = nnx.merge(self.graphdef, params, stats)
        net.train()
        outputs = net(x, mask, rngs=nnx.Rngs(dropout=0))
        frames = -jnp.take_along_axis(jax.nn.log_softmax(outputs["logits"]), symbols[..., None], 2)[..., 0]
        stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
        return jnp.where(outputs["mask"], frames, 0).sum() / mask.sum(), (outputs["logits"], stats)


def _randomised(tree, rng, dtype):
    made = {}
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            made[name] = _randomised(leaf, rng, dtype)
        elif name in ("scale", "var"):
            made[name] = rng.uniform(0.5, 1.5, leaf.shape).astype(dtype)
        elif name == "kernel":
            limit = np.sqrt(3 / np.prod(leaf.shape[:-1]))
            made[name] = rng.uniform(-limit, limit, leaf.shape).astype(dtype)
        else:
            made[name] = rng.normal(0, 0.2, leaf.shape).astype(dtype)
    return made


def _batch(lengths, size=None, dtype=np.float64, names=None, seed=1):
    """(x, mask, symbols): the row of a name is always the same, what is in its padding depends on `seed`."""
    rng, size, names = np.random.default_rng(seed), size or max(lengths), names or range(len(lengths))
    x = np.stack([np.random.default_rng(name).normal(size=(size, mfcc.COEFFICIENTS)) for name in names])
    symbols = np.stack([np.random.default_rng(name).integers(0, 28, size) for name in names])
    mask = np.arange(size) < np.array(lengths)[:, None]
    x[~mask] = rng.normal(0, 100, (int((~mask).sum()), mfcc.COEFFICIENTS))
    return x.astype(dtype), mask, symbols


def _relative(a, b):
    """Largest difference of two trees relative to the size of each leaf of the second (or a thousandth of the largest)."""
    a, b = ([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)] for tree in (a, b))
    floor = 1e-3 * max(np.abs(leaf).max() for leaf in b)
    return max(np.abs(x - y).max() / max(np.abs(y).max(), floor) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------ receptive fields


def test_receptive_fields_of_all_blocks():
    net = Net(WaveNetConfig(channels=2), symbols=3)
    size, centre = 701, 350
    x = np.random.default_rng(0).normal(size=(size, 20)).astype(np.float32)

    def heard(x):
        outputs = net.apply(net.params, net.stats, x[None], np.ones((1, size), bool))
        units = [outputs["taps"][f"gcu_{i:02d}"][0][0, centre].sum() for i in range(1, 16)]
        return jnp.stack([*units, outputs["logits"][0, centre].sum()])

    gradient = np.asarray(jax.jit(jax.jacrev(heard))(x))
    first, last = [], []
    for row in gradient:
        frames = np.flatnonzero(np.abs(row).max(1))
        first.append(centre - frames[0])
        last.append(frames[-1] - centre)
    assert first == last  # as far back as ahead
    assert [1 + 2 * reach for reach in first] == [*RECEPTIVE_FIELDS, 559]


# ------------------------------------------------------------------------------------------------ PyTorch and gradients


@pytest.fixture(scope="module")
def double():
    """A small net in float64, to be used within `jax.enable_x64`."""
    with jax.enable_x64(True):
        return Net(SMALL, np.float64)


def torch_net(torch, p, s, x, config, training):
    """The published net written for PyTorch: (logits, taps, running statistics). Channels first, unpadded."""
    taps, running = {}, {}

    def conv_bn(x, conv, params, stats, dilation=1):
        weight = conv["kernel"].permute(2, 1, 0)
        y = torch.nn.functional.conv1d(x, weight, padding=dilation * (weight.shape[2] // 2), dilation=dilation)
        mean, var = stats["mean"].clone(), stats["var"].clone()
        y = torch.nn.functional.batch_norm(y, mean, var, params["scale"], params["bias"], training, 0.01, 1e-8)
        # PyTorch keeps the unbiased variance, TensorFlow and we the population's.
        n, old = y.shape[0] * y.shape[2], 0.99 * stats["var"]
        return y, {"mean": mean, "var": old + (var - old) * (n - 1) / n}

    h, running["front_norm"] = conv_bn(x.permute(0, 2, 1), p["front"], p["front_norm"], s["front_norm"])
    z, skip = torch.tanh(h), 0
    taps["front"] = z
    for i, dilation in enumerate(config.dilations, 1):
        block, stats, kept = p[f"block_{i:02d}"], s[f"block_{i:02d}"], {}
        both, kept["gated_norm"] = conv_bn(z, block["gated"], block["gated_norm"], stats["gated_norm"], dilation)
        filters, gate = both[:, :config.channels].tanh(), both[:, config.channels:].sigmoid()
        out, kept["out_norm"] = conv_bn(filters * gate, block["out"], block["out_norm"], stats["out_norm"])
        z, skip = z + out.tanh(), skip + out.tanh()
        taps |= {f"filter_{i:02d}": filters, f"gcu_{i:02d}": filters * gate, f"out_{i:02d}": out.tanh()}
        running[f"block_{i:02d}"] = kept
    h, running["head_norm"] = conv_bn(skip, p["head"], p["head_norm"], s["head_norm"])
    taps |= {"skip": skip, "head": h.tanh()}
    return h.tanh().permute(0, 2, 1) @ p["symbols"]["kernel"] + p["symbols"]["bias"], taps, running


def test_the_same_net_in_pytorch_gives_the_same_numbers_and_gradients(double):
    torch = pytest.importorskip("torch", reason="PyTorch is the second opinion")
    x, mask, symbols = _batch([30, 30, 30])
    p = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), double.params)
    s = jax.tree.map(torch.tensor, double.stats)

    logits, taps, _ = torch_net(torch, p, s, torch.tensor(x), SMALL, training=False)
    with jax.enable_x64(True):
        ours = double.outputs(double.params, double.stats, x, mask)
    assert ours["taps"].keys() == taps.keys() and _relative(ours["logits"], logits.detach().numpy()) < 1e-9
    for name, tap in taps.items():
        assert _relative(ours["taps"][name][0], tap.detach().numpy().transpose(0, 2, 1)) < 1e-9, name

    logits, _, running = torch_net(torch, p, s, torch.tensor(x), SMALL, training=True)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(symbols).flatten())
    loss.backward()
    with jax.enable_x64(True):
        (our_loss, (our_logits, our_stats)), gradient = double.gradient(double.params, double.stats, x, mask, symbols)
    assert float(our_loss) == pytest.approx(loss.item(), rel=1e-9)
    assert _relative(our_logits, logits.detach().numpy()) < 1e-9
    assert _relative(gradient, jax.tree.map(lambda leaf: leaf.grad.numpy(), p)) < 1e-7
    assert _relative(our_stats, jax.tree.map(lambda leaf: leaf.detach().numpy(), running)) < 1e-9


def test_the_gradient_agrees_with_finite_differences_along_itself(double):
    batch = _batch([9, 22, 30], size=30)
    with jax.enable_x64(True):
        gradient = jax.tree.map(np.asarray, double.gradient(double.params, double.stats, *batch)[1])
        norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))

        def loss_at(distance):
            moved = jax.tree.map(lambda leaf, slope: leaf + distance / norm * slope, double.params, gradient)
            return float(double.gradient(moved, double.stats, *batch)[0][0])

        assert norm > 0.01
        assert (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6 == pytest.approx(norm, rel=1e-5)


# ------------------------------------------------------------------------------------------------ masks


def test_padding_changes_neither_the_loss_nor_the_gradient_nor_the_statistics_of_training(double):
    lengths = [9, 22, 30]
    with jax.enable_x64(True):
        results = [double.gradient(double.params, double.stats, *_batch(lengths, size)) for size in (30, 47)]
        ((loss_a, (_, stats_a)), gradient_a), ((loss_b, (_, stats_b)), gradient_b) = results
    assert float(loss_a) == pytest.approx(float(loss_b), rel=1e-12)
    assert _relative(gradient_a, gradient_b) < 1e-9 and _relative(stats_a, stats_b) < 1e-12

    x, mask, *_ = _batch(lengths)
    front = (x @ double.params["front"]["kernel"][0])[mask]  # what the first normalisation sees of the utterances
    for name, wanted in (("mean", front.mean(0)), ("var", front.var(0))):
        moved = 0.99 * double.stats["front_norm"][name] + 0.01 * wanted
        np.testing.assert_allclose(stats_a["front_norm"][name], moved, rtol=1e-9)


@pytest.fixture(scope="module")
def small():
    return Net(dataclasses.replace(SMALL, normalise_input=True))


def test_a_net_that_normalises_its_input_does_not_hear_level_and_offset():
    config = dataclasses.replace(SMALL, dilations=(2,), normalise_input=True)
    net, found = Net(config), []
    loss = jax.jit(net.loss)
    for scale, seed in ((1, 1), (3, 1), (1, 2)):  # another seed is another padding
        x, mask, symbols = _batch([30, 11], dtype=np.float32, seed=seed)
        value, _ = loss(net.params, net.stats, x * scale + np.arange(20, dtype=np.float32), mask, symbols)
        found.append(float(value))
    assert found == pytest.approx(found[:1] * 3, rel=1e-4)
    published = WaveNetConfig()
    sizes = [_sizes(nnx.state(_shapes(dataclasses.replace(published, normalise_input=on)), nnx.Param)) for on in (False, True)]
    assert not published.normalise_input and sizes == [3_720_988, 3_720_988 + 2 * 20]


@given(st.lists(st.integers(1, 40), min_size=3, max_size=3), st.permutations(range(3)))
@settings(deadline=None, max_examples=25)
def test_no_tap_depends_on_the_padding_or_on_the_other_rows(small, lengths, order):
    a = small.outputs(small.params, small.stats, *_batch(lengths, 45, np.float32)[:2])
    permuted = _batch([lengths[i] for i in order], 45, np.float32, names=order, seed=2)
    b = small.outputs(small.params, small.stats, *permuted[:2])
    for name, (x, mask) in {**a["taps"], "logits": (a["logits"], a["mask"])}.items():
        y = b["logits"] if name == "logits" else b["taps"][name][0]
        for place, row in enumerate(order):
            one, other = np.asarray(x[row]), np.asarray(y[place])
            length = lengths[row]
            assert int(mask[row].sum()) == length
            np.testing.assert_allclose(one[:length], other[:length], atol=1e-5 * np.abs(one[:length]).max())
            assert name == "logits" or not (one[length:].any() or other[length:].any()), name


def _sound(length, level):
    rng = np.random.default_rng(length)
    hum = sum(np.sin(rng.uniform(0.02, 1.5) * np.arange(length) + rng.uniform(0, 6)) for _ in range(12))
    swell = 1 + np.sin(rng.uniform(1e-3, 3e-3) * np.arange(length))
    return (level * (hum * swell + rng.normal(0, 0.1, length))).astype(np.int16)


def test_all_1920_features_of_the_full_net_depend_on_their_utterance_alone():
    """From the waveform: bare, padded, next to others in another order; running statistics that fit the sound."""
    net = Net(WaveNetConfig())
    sounds = [_sound(14_321, 900), _sound(20_000, 30), _sound(1_025, 2_000), _sound(17_777, 300)]

    def pooled(stats, speech, lengths):
        x, mask = mfcc.mfcc(waveform.to_float(speech), waveform.length_mask(lengths, speech.shape[1]))
        taps = net.apply(net.params, stats, x, mask)["taps"]
        return jnp.concatenate([masked_mean(*taps[f"gcu_{i:02d}"]) for i in range(1, 16)], axis=1)

    features = jax.jit(pooled)
    cepstra, _ = mfcc.mfcc(waveform.to_float(sounds[0][None]), np.ones((1, len(sounds[0])), bool))
    front = np.asarray(cepstra)[0] @ net.params["front"]["kernel"][0]
    stats = net.stats | {"front_norm": {"mean": front.mean(0), "var": front.var(0)}}

    def of_batch(order, size, padding):
        speech = np.full((len(order), size), padding, np.int16)
        for row, i in enumerate(order):
            speech[row, :len(sounds[i])] = sounds[i]
        return np.asarray(features(stats, speech, np.array([len(sounds[i]) for i in order])))

    together, elsewhere = of_batch([0, 1, 2, 3], 22_000, 0), of_batch([3, 2, 0, 1], 22_000, 12_345)[[2, 3, 1, 0]]
    alone = of_batch([0], len(sounds[0]), 0)
    assert together.shape == (4, 1920)
    blocks = together.reshape(4, 15, 128)
    assert (np.ptp(blocks, axis=0).max(1) > 0.05).all()  # every block tells the utterances apart
    scale = np.abs(blocks).max(2, keepdims=True).repeat(128, 2).reshape(4, 1920)
    assert (np.abs(elsewhere - together) <= 1e-5 * scale).all()
    assert (np.abs(alone - together[:1]) <= 1e-5 * scale[:1]).all()
