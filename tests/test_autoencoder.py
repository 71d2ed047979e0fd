"""The recurrent autoencoder: published sizes, a second opinion in numpy, what its decoders have read, whole-net gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ser_jax.errors import UsageError
from ser_jax.models.autoencoder import AutoencoderConfig

BANDS, FRAMES, LENGTHS = 6, 9, (9, 5, 1)
SMALL = {decoder: AutoencoderConfig(units=4, decoder=decoder) for decoder in ("bidirectional", "unidirectional")}


def number_of_parameters(config, bands=128):
    model = nnx.eval_shape(lambda: config.build(bands, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def batch(seed=0):
    x = np.random.default_rng(seed).uniform(-1, 1, (len(LENGTHS), FRAMES, BANDS)).astype(np.float32)
    mask = np.arange(FRAMES) < np.array(LENGTHS)[:, None]
    return x * mask[..., None], mask


def model_of(config, seed=0):
    model = config.build(BANDS, rngs=nnx.Rngs(seed))
    model.eval()
    return model


def test_numbers_of_parameters_are_the_published_ones():
    assert number_of_parameters(AutoencoderConfig()) == 2_659_968
    # encoder and decoder 689,664 each, representation 262,656, projections 32,896 and 16,512 (auDeep's sizes)
    assert number_of_parameters(AutoencoderConfig(decoder="unidirectional")) == 2 * 689_664 + 262_656 + 32_896 + 16_512


@pytest.mark.parametrize("cell, decoder, size", [("gru", "bidirectional", 1024), ("gru", "unidirectional", 512),
                                                 ("lstm", "bidirectional", 2048), ("lstm", "unidirectional", 1024)])
def test_size_of_the_representation(cell, decoder, size):
    model = nnx.eval_shape(lambda: AutoencoderConfig(cell=cell, decoder=decoder).build(128, rngs=nnx.Rngs(0)))
    assert model.representation.kernel.shape[1] == size


def numpy_gru(layer, x, h):
    """TensorFlow 1's cell over one utterance: x[F, D] -> outputs[F, H], final state[H]."""
    outputs = []
    for frame in x:
        gates = 1 / (1 + np.exp(-(np.concatenate([frame, h]) @ layer.gate_kernel[...] + layer.gate_bias[...])))
        reset, update = np.split(gates, 2)
        candidate = np.tanh(np.concatenate([frame, reset * h]) @ layer.candidate_kernel[...] + layer.candidate_bias[...])
        h = update * h + (1 - update) * candidate
        outputs.append(h)
    return np.array(outputs), h


def numpy_stack(stack, x, states):
    finals = []
    for i, state in enumerate(states, 1):
        x, final = numpy_gru(getattr(stack, f"layer_{i}"), x, state)
        finals.append(final)
    return x, finals


def numpy_reconstruction(model, x):
    """auDeep's graph for one utterance without padding: (representation[R], reconstruction[F, D])."""
    units = model.encoder.layer_1.units
    _, finals = numpy_stack(model.encoder, x, [np.zeros(units)] * 2)
    representation = np.tanh(np.concatenate(finals) @ model.representation.kernel[...] + model.representation.bias[...])
    target = x[::-1]
    given = np.concatenate([np.zeros((1, BANDS)), target[:-1]])
    halves = representation.reshape(2, -1, units)  # layer, direction
    y, _ = numpy_stack(model.forward, given, halves[:, 0])
    if model.bidirectional:
        y = np.concatenate([y, numpy_stack(model.backward, given[::-1], halves[:, 1])[0][::-1]], axis=1)
    else:
        y = np.tanh(y @ model.projection.kernel[...] + model.projection.bias[...])
    return representation, np.tanh(y @ model.output.kernel[...] + model.output.bias[...])[::-1]


@pytest.mark.parametrize("decoder", SMALL)
def test_whole_net_is_that_of_numpy_for_every_utterance_of_a_padded_batch(decoder):
    model, (x, mask) = model_of(SMALL[decoder]), batch()
    found = model(x, mask)
    representation, valid = found["taps"]["representation"]
    assert valid.shape == (3, 1) and valid.all()
    for i, length in enumerate(LENGTHS):
        expected, reconstruction = numpy_reconstruction(model, x[i, :length].astype(np.float64))
        np.testing.assert_allclose(representation[i, 0], expected, atol=1e-5)
        np.testing.assert_allclose(found["reconstruction"][i, :length], reconstruction, atol=1e-5)
        assert not found["reconstruction"][i, length:].any()
    np.testing.assert_array_equal(found["target"], x)


def what_was_read(config):
    """bool[F, F]: whether output t of the decoder depends on target s, for one utterance of all frames."""
    model, (x, mask) = model_of(config), batch()
    size = model.representation.bias.shape[0]
    representation = jnp.full((1, size), 0.3)

    def decoded(target):
        return model.decode(representation, target[None], mask[:1])[0]

    return np.abs(jax.jacrev(decoded)(jnp.asarray(x[0]))).max((1, 3)) > 0


def test_the_bidirectional_decoder_has_read_the_frame_that_it_is_asked_for():
    """Its backward half comes from the end: of all targets, only the last is never an input."""
    read = what_was_read(SMALL["bidirectional"])
    assert read[:, :-1].all()
    assert not read[:, -1].any()


def test_the_unidirectional_decoder_has_read_the_frames_before_only():
    np.testing.assert_array_equal(what_was_read(SMALL["unidirectional"]), np.tri(FRAMES, k=-1, dtype=bool))


def test_frame_dropout_blinds_the_encoder_and_leaves_target_and_decoder_alone():
    x, mask = batch()
    config = AutoencoderConfig(units=4, dropout=0.0, frame_dropout=0.999999)
    model = config.build(BANDS, rngs=nnx.Rngs(0))
    model.train()
    blind = model(x, mask, rngs=nnx.Rngs(dropout=1))
    silent = model_of(config)(np.zeros_like(x), mask)
    np.testing.assert_allclose(blind["taps"]["representation"][0], silent["taps"]["representation"][0], atol=1e-6)
    np.testing.assert_array_equal(blind["target"], x)
    half = AutoencoderConfig(units=4, dropout=0.0, frame_dropout=0.5).build(BANDS, rngs=nnx.Rngs(0))
    half.eval()
    representation = model_of(config)(x, mask)["taps"]["representation"][0]  # the same weights
    np.testing.assert_array_equal(half(x, mask)["taps"]["representation"][0], representation)
    half.train()
    seen = [half(x, mask, rngs=nnx.Rngs(dropout=key))["taps"]["representation"][0] for key in (1, 1, 2)]
    np.testing.assert_array_equal(seen[0], seen[1])
    assert np.abs(seen[0] - seen[2]).max() > 1e-3


def test_dropout_keeps_the_scale_and_the_share():
    """Around a layer 20 % are dropped; between two layers the dropouts of both, 36 %; what is kept is scaled up."""
    stack = AutoencoderConfig(units=4, dropout=0.2).build(BANDS, rngs=nnx.Rngs(0)).encoder
    ones = jnp.ones((200, 200))
    for dropout, kept in ((stack.outside, 0.8), (stack.between, 0.64)):
        y = np.asarray(dropout(ones, rngs=nnx.Rngs(dropout=0)))
        assert abs((y > 0).mean() - kept) < 0.01
        np.testing.assert_allclose(y[y > 0], 1 / kept, rtol=1e-6)


@pytest.mark.parametrize("decoder", SMALL)
def test_gradient_of_the_whole_net_by_finite_difference(decoder):
    x, mask = batch()
    model = model_of(SMALL[decoder])
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def loss(params):
        found = nnx.merge(graph, params, rest)(x, mask)
        return jnp.square(found["reconstruction"] - found["target"]).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    norm = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
    moved = [jax.tree.map(lambda p, g, s=sign: p + s * 3e-3 * g / norm, params, gradient) for sign in (1, -1)]
    slope = (loss(moved[0]) - loss(moved[1])) / 6e-3
    np.testing.assert_allclose(slope, norm, rtol=2e-3)


@pytest.mark.parametrize("field, value, said", [
    ("units", 0, "at least 1"), ("layers", 0, "at least 1"), ("cell", "grue", "did you mean"), ("decoder", "both", "known: bid"),
    ("dropout", 1.0, "a share"), ("frame_dropout", -0.1, "a share")])
def test_wrong_sizes_are_named(field, value, said):
    with pytest.raises(UsageError, match=f"model.{field}=.*{said}"):
        AutoencoderConfig(**{field: value})
