"""The attentive CNN and its head: published sizes, NumPy as a second opinion, gradients, what a fold may see."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, layer_columns
from ser_jax.heads import make_head
from ser_jax.heads.attentive import AttentiveHead, AttentiveNet, AttentiveOptions
from ser_jax.models.attentive_cnn import AttentiveCNN, AttentiveCNNConfig, conv_max, conv_max_plain
from ser_jax.models.layers import max_pool
from ser_jax.protocols.protocol import Fold, Protocol

PUBLISHED = {"emotion": 4, "arousal": 3, "valence": 3}
FRAMES, BANDS = 26, 3
TINY = AttentiveOptions(epochs=8, batch_size=4, learning_rate=0.03, dropout=0.2, filters=8, kernel=4, stride=2, pool=4)


# ------------------------------------------------------------------------------------------------ the net


@pytest.mark.parametrize(("values", "parameters"), [(0, 54_410), (1024, 64_650)])
def test_parameter_counts_are_those_of_the_specification(values, parameters):
    config = AttentiveCNNConfig()
    net = nnx.eval_shape(lambda: AttentiveCNN(config, 26, 8, values, PUBLISHED, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param))) == parameters
    assert net.kernel.shape == (10, 26, 200) and net.heads.shape == (200 + values, 10)


def test_windows_of_748_frames():
    config = AttentiveCNNConfig()
    assert (
        config.windows(748) == 8 and config.windows(config.frames(8)) == 8 and config.windows(config.frames(8) - 1) == 7
    )
    assert config.windows(96) == 0 and config.windows(config.frames(1)) == 1 and config.windows(3) == 0
    assert config.windows_with_sound(np.array([0, 1, 90, 91, 748])).tolist() == [0, 1, 1, 2, 9]


def test_glorot_bounds_are_those_of_an_image_convolution_and_of_each_head():
    net = AttentiveCNN(AttentiveCNNConfig(), 26, 8, 1024, PUBLISHED, rngs=nnx.Rngs(0))
    heads = np.asarray(net.heads[...])
    for found, bound in (
        (net.kernel[...], (6 / (260 + 52_000)) ** 0.5),
        (net.attention[...], (6 / 201) ** 0.5),
        (heads[:, :4], (6 / 1228) ** 0.5),
        (heads[:, 4:7], (6 / 1227) ** 0.5),
        (heads[:, 7:], (6 / 1227) ** 0.5),
    ):
        assert 0.95 * bound < np.abs(found).max() <= bound and np.std(found) == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not np.any(net.bias[...]) and not np.any(net.heads_bias[...])


def test_the_net_is_what_numpy_computes_from_its_definition():
    config = AttentiveCNNConfig(filters=5, kernel=4, stride=2, pool=3, dropout=0.5)
    random = np.random.default_rng(0)
    net = AttentiveCNN(config, BANDS, 3, 2, {"a": 3, "b": 2}, rngs=nnx.Rngs(0))
    for leaf in jax.tree.leaves(nnx.state(net, nnx.Param), is_leaf=lambda leaf: isinstance(leaf, nnx.Param)):
        leaf[...] = jnp.asarray(random.normal(size=leaf.shape), jnp.float32)
    net.eval()
    x, vector = random.normal(size=(2, 21, BANDS)), random.normal(size=(2, 2))
    outputs = jax.jit(net.__call__)(jnp.asarray(x, jnp.float32), jnp.asarray(vector, jnp.float32))
    kernel, bias, attention = (np.asarray(p[...], np.float64) for p in (net.kernel, net.bias, net.attention))
    for row in range(2):
        responses = [np.einsum("kd,kdc->c", x[row, 2 * p : 2 * p + 4], kernel) + bias for p in range(9)]
        pooled = np.maximum(np.array(responses), 0).reshape(3, 3, 5).max(1)
        share = np.exp(pooled @ attention) / np.exp(pooled @ attention).sum()
        representation = np.concatenate([share @ pooled, vector[row]])
        logits = representation @ np.asarray(net.heads[...], np.float64) + np.asarray(net.heads_bias[...])
        np.testing.assert_allclose(outputs["attention"][row], share, rtol=1e-4)
        np.testing.assert_allclose(outputs["representation"][row], representation, rtol=1e-4, atol=1e-5)
        for name, part in {"a": slice(3), "b": slice(3, 5)}.items():
            np.testing.assert_allclose(outputs["logits"][name][row], logits[part], rtol=1e-4, atol=1e-4)


def test_windows_of_padding_may_be_left_out_of_the_input_and_of_the_work():
    net = AttentiveCNN(AttentiveCNNConfig(6, 4, 2, 4), BANDS, 5, 0, PUBLISHED, rngs=nnx.Rngs(0))
    net.bias[...] = jnp.linspace(-1, 1, 6)
    net.eval()
    counts, x = np.array([0, 3, 18]), np.random.default_rng(0).normal(size=(3, 42, BANDS)).astype(np.float32)
    x = np.where(np.arange(42)[:, None] < counts[:, None, None], x, 0)
    whole = jax.jit(net.__call__)(x, jnp.zeros((3, 0)))
    short = jax.jit(net.__call__)(x[:, :26], jnp.zeros((3, 0)), jnp.array([0, 1, 3]))
    for name in ("representation", "attention"):
        np.testing.assert_allclose(short[name], whole[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "bands", "filters", "kernel", "stride", "pool"),
    [(50, 3, 6, 10, 3, 4), (17, 4, 3, 2, 5, 1), (31, 1, 7, 9, 1, 5)],
)
def test_conv_max_is_convolution_then_pooling_gradients_included(frames, bands, filters, kernel, stride, pool):
    random = np.random.default_rng(frames)
    x = jnp.asarray(random.normal(size=(3, frames, bands)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(kernel, bands, filters)), jnp.float32)
    cotangent = jnp.asarray(random.normal(size=conv_max_plain(x, weights, stride, pool).shape), jnp.float32)

    def both(op):
        def loss(x, weights):
            y = op(x, weights)
            return (jnp.sin(y) * cotangent).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, weights)

    (_, y), gradients = both(lambda x, weights: conv_max(x, weights, None, stride, pool))
    (_, expected), reference = both(lambda x, weights: conv_max_plain(x, weights, stride, pool))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, reference):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_of_equal_positions_the_first_gets_the_gradient():
    x = jnp.asarray([1, 3, 3, 2, 3, 0, 0, 0], jnp.float32).reshape(1, 8, 1)
    for op in (lambda x: conv_max(x, jnp.ones((1, 1, 1)), None, 1, 4), lambda x: max_pool(x, 4)):
        y, back = jax.vjp(op, x)
        [gradient] = jax.jit(back)(jnp.array([5.0, 7.0]).reshape(1, 2, 1))
        assert y.ravel().tolist() == [3, 3] and gradient.ravel().tolist() == [0, 5, 0, 0, 7, 0, 0, 0]


def test_an_input_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="12 frames do not fill"):
        conv_max(jnp.zeros((1, 12, 2)), jnp.zeros((4, 2, 3)), None, 2, 6)


def test_the_gradient_of_the_whole_net_is_that_of_finite_differences():
    net = AttentiveNet(AttentiveCNNConfig(4, 4, 2, 4, 0.0), BANDS, 3, 2, 4, 1e-3, 0.2, 0.3)
    random = np.random.default_rng(0)
    batch = {
        "frames": random.normal(size=(6, FRAMES, BANDS)),
        "count": np.array([26, 26, 20, 9, 26, 4]),
        "vector": random.normal(size=(6, 2)),
        "windows": np.array([3, 3, 3, 2, 3, 1]),
        "emotion": np.array([0, 1, 2, 3, 0, 1]),
        "arousal": np.array([0, 1, 2, -1, 0, 1]),
        "valence": np.array([2, -1, 1, 0, 0, 2]),
    }
    constants = {
        "frames_shift": np.full(BANDS, 0.3),
        "frames_scale": np.full(BANDS, 1.5),
        "vector_shift": np.zeros(2),
        "vector_scale": np.ones(2),
    }
    shapes = jax.eval_shape(net.init, jax.random.key(0), constants)
    start = {name: 3 * random.normal(size=leaf.shape) for name, leaf in shapes.items()}
    weight = np.array([1, 1, 1, 1, 1, 0.0])
    with jax.enable_x64(True):
        loss = jax.jit(
            jax.value_and_grad(lambda params, batch, weight: net.loss(params, constants, batch, weight, None))
        )
        value, gradient = loss(start, batch, weight)
        norm = sum(float((leaf**2).sum()) for leaf in gradient.values()) ** 0.5
        assert all(leaf.dtype == np.float64 and np.any(leaf) for leaf in gradient.values())
        ends = [{name: start[name] + step * gradient[name] / norm for name in start} for step in (1e-6, -1e-6)]
        ahead, behind = (float(loss(end, batch, weight)[0]) for end in ends)
        assert (ahead - behind) / 2e-6 == pytest.approx(norm, rel=1e-6)
        # Rows of weight 0 do not count, nor do ratings that are unknown.
        changed = {**batch, "frames": batch["frames"] + (np.arange(6) == 5)[:, None, None]}
        assert float(loss(start, changed, weight)[0]) == float(value)
        assert float(loss(start, batch, 0 * weight)[0]) == 0
        unrated = {**batch, "arousal": np.full(6, -1), "valence": np.full(6, -1)}
        heads = loss(start, unrated, weight)[1]["heads"]
        assert not np.any(heads[:, 4:]) and np.any(heads[:, :4])


# ------------------------------------------------------------------------------------------------ the head


def features(extra=None, seed=0, frames=FRAMES):
    """30 utterances of 6 speakers: the level of a band tells which of three emotions; beside them `extra` layers."""
    random = np.random.default_rng(seed)
    label = np.arange(30) % 3
    counts = np.where(np.arange(30) < 4, frames, random.integers(8, 23, 30))
    x = -5 + 2 * random.standard_normal((30, frames, BANDS)) + 4 * (label[:, None, None] == np.arange(BANDS))
    x = np.where(np.arange(frames)[:, None] < counts[:, None, None], x, 0)
    layers = {"logmel": np.concatenate([counts[:, None], x.reshape(30, -1)], axis=1), **(extra or {})}
    columns = layer_columns(list(layers), [values.shape[1] for values in layers.values()])
    columns[0]["frames"] = [frames, BANDS]
    table = pd.DataFrame(
        {
            "id": [f"u{i:02d}" for i in range(30)],
            "speaker_id": [f"s{i // 5}" for i in range(30)],
            "emotion": np.array(["angry", "happy", "sad"])[label],
            "arousal": 1 + 4 * random.random(30),
        }
    )
    return Features(table, np.concatenate(list(layers.values()), axis=1), {"kind": "frames", "columns": columns})


def protocol():
    """Two folds of unequal size; u29 is in none."""
    ids = [f"u{i:02d}" for i in range(30)]
    return Protocol(
        "two",
        "",
        (
            Fold("a", tuple(ids[:16]), tuple(ids[16:20]), tuple(ids[20:29])),
            Fold("b", tuple(ids[17:29]), tuple(ids[10:14]), tuple(ids[:10])),
        ),
    )


@pytest.fixture(scope="module")
def extra():
    random = np.random.default_rng(7)
    return {"tanh": np.tanh(random.normal(size=(30, 2))), "level": 100 + 20 * random.normal(size=(30, 2))}


@pytest.fixture(scope="module")
def outcome(extra):
    return AttentiveHead(TINY).predict_folds(features(extra), "emotion", protocol(), [3, 4])


def test_the_head_tells_emotions_of_unseen_speakers_apart(outcome):
    assert outcome.labels == ["angry", "happy", "sad"]
    assert len(outcome.scores) == len(outcome.chosen) == len(outcome.representations) == 2
    right = []
    for scores, chosen in zip(outcome.scores, outcome.chosen):
        assert list(scores) == list(chosen) == ["a", "b"]
        for fold in protocol().folds:
            ids, values = scores[fold.name]
            assert tuple(ids) == fold.test and values.shape == (len(ids), 3) and values.dtype == np.float64
            np.testing.assert_allclose(values.sum(1), 1)
            right += (values.argmax(1) == [int(i[1:]) % 3 for i in ids]).tolist()
            facts = chosen[fold.name]
            assert (
                1 <= facts["best_epoch"] <= facts["epochs"] == 8 and 0 <= facts["last_dev_UAR"] <= facts["dev_UAR"] <= 1
            )
    assert np.mean(right) > 0.7


def test_seeds_differ_and_a_seed_gives_the_same_numbers_alone(outcome, extra):
    first, second = (scores["a"][1] for scores in outcome.scores)
    assert np.abs(first - second).max() > 1e-3
    again = AttentiveHead(TINY).predict_folds(features(extra), "emotion", protocol(), [4])
    for fold in ("a", "b"):
        assert (again.scores[0][fold][1] == outcome.scores[1][fold][1]).all()
        assert again.chosen[0][fold] == outcome.chosen[1][fold]


def test_a_fold_does_not_see_its_test_rows_nor_those_of_no_fold(outcome, extra):
    changed, others = features(extra), ["u03", "u29"]
    rows = changed.table["id"].isin(others).to_numpy()
    changed.embedding[rows, 1:] += 7
    changed.table.loc[rows, "emotion"] = "happy"
    found = AttentiveHead(TINY).predict_folds(changed, "emotion", protocol(), [3])
    ids, values = found.scores[0]["b"]  # tests u03
    same = [identity not in others for identity in ids]
    assert (values[same] == outcome.scores[0]["b"][1][same]).all()
    assert np.abs(values - outcome.scores[0]["b"][1]).max() > 1e-3
    assert np.abs(found.scores[0]["a"][1] - outcome.scores[0]["a"][1]).max() > 1e-4  # trained on u03


def test_representations_end_with_the_vector_bounded_layers_as_they_are_others_standardised(outcome, extra):
    for fold, train in zip(protocol().folds, (range(16), range(17, 29))):
        found = outcome.representations[0][fold.name]
        rows = [int(i[1:]) for i in fold.test]
        level, own = extra["level"].astype(np.float32), extra["level"][train]
        assert found.shape == (len(rows), 8 + 4) and found.dtype == np.float32
        np.testing.assert_allclose(found[:, 8:10], extra["tanh"][rows], rtol=1e-6)
        np.testing.assert_allclose(found[:, 10:], (level[rows] - own.mean(0)) / own.std(0), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_replicas_together_are_replicas_alone(extra):
    """Ten steps and more, dropout on, folds of unequal size."""
    options = dataclasses.replace(TINY, epochs=3)
    alone, together = (
        AttentiveHead(dataclasses.replace(options, replicas_per_program=count)).predict_folds(
            features(extra), "emotion", protocol(), [3, 4]
        )
        for count in (1, 4)
    )
    for seed in range(2):
        assert alone.chosen[seed] == together.chosen[seed]
        for fold in ("a", "b"):
            np.testing.assert_allclose(together.scores[seed][fold][1], alone.scores[seed][fold][1], rtol=0, atol=1e-6)


def test_the_head_is_made_by_name():
    head = make_head("attentive_cnn")
    assert (head.name, head.predicts, head.seeded, head.needs_dev) == ("attentive_cnn", "labels", True, True)
    assert dataclasses.asdict(head.options) == {
        "epochs": 100,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "dropout": 0.8,
        "alpha": 0.2,
        "beta": 0.2,
        "patience": 0,
        "replicas_per_program": 0,
        "filters": 200,
        "kernel": 10,
        "stride": 3,
        "pool": 30,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"learning_rate": np.nan}, "learning_rate=nan"),
        ({"beta": np.nan}, "beta=nan"),
        ({"dropout": 1.0}, "dropout=1"),
        ({"alpha": 0.5, "beta": 0.5}, "alpha=0.5, beta=0.5"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"patience": -1}, "patience=-1"),
        ({"replicas_per_program": -1}, "replicas_per_program=-1"),
        ({"filters": 0}, "filters=0"),
        ({"pool": 129}, "pool=129"),
        ({"stride": 0}, "stride=0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        AttentiveOptions(**options)


def test_features_and_protocols_that_do_not_fit_are_refused(extra):
    def refused(made, folds=None, options=TINY):
        with pytest.raises(UserError) as caught:
            AttentiveHead(options).predict_folds(made, "emotion", folds or protocol(), [0])
        return str(caught.value)

    plain = features(extra).select_layers(["tanh", "level"])
    assert "needs one layer of frames, the features have none" in refused(plain) and "--frames" in refused(plain)
    assert "26 frames are fewer than the 42 of a pooling window" in refused(
        features(), options=dataclasses.replace(TINY, pool=20)
    )
    [first, second] = protocol().folds
    bare = Protocol("bare", "", (first, dataclasses.replace(second, dev=())))
    assert "fold 'b'" in refused(features(), bare) and "dev part" in refused(features(), bare)
    single = Protocol("single", "", (dataclasses.replace(first, train=("u00", "u03")),))
    assert "fold 'a': the training part has one class only" in refused(features(), single)
    rated = features()
    rated.table.loc[3, "valence"] = 7.0
    assert "valence of 'u03' is 7" in refused(rated)
