"""Fine-tuning: any encoder behind masked pooling, from a run's checkpoint to result rows; frozen layers, labels, configs."""

import dataclasses
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from training import assert_same_state, saved_state, saved_tree

from ser_jax import cli, config, intervals, metrics
from ser_jax.config import Data, Experiment, Train, Transfer
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError, UserError
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.models.finetune import POOLINGS, FinetuneConfig
from ser_jax.models.layers import masked_std
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.network import Network
from ser_jax.tasks.ctc import CTCConfig
from ser_jax.tasks.emotion import EmotionConfig
from ser_jax.tasks.gender import GenderConfig
from ser_jax.tasks.phone_states import PhoneStatesConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig
from ser_jax.train import train
from ser_jax.transfer import flat

CONFIGS = Path(__file__).parents[1] / "configs" / "finetune"
PAIRS = {
    "sample_cnn": (SampleCNNConfig(stem_filters=4, filters=(4, 4), final_filters=6), GenderConfig(min_samples=400)),
    "wavenet": (WaveNetConfig(channels=4, kernel=3, dilations=(1, 2)), CTCConfig()),
    "autoencoder": (AutoencoderConfig(units=4, layers=1), ReconstructionConfig()),
    "convnet": (ConvNetConfig(context=5, conv_channels=(3, 4), conv_kernels=((3, 2), (2, 2)), dense=(6, 5, 4)),
                PhoneStatesConfig(frames=3)),
}
FEW = ("task.crop_seconds=0.13", "train.batch_size=8", "train.steps=3", "train.eval_every=2", "train.save_every=1",
       "train.keep=9", "optim.warmup_steps=0", "data.test_speakers=s7,s8", "data.dev_speakers=s1,s2")


def finetune(name, source, corpus, workdir, *overrides, options=()):
    """Exit code of `ser-jax pretrain configs/finetune/NAME.py` of a few steps."""
    sets = (f"data.corpora={corpus}", *FEW, *overrides)
    return cli.main(["pretrain", str(CONFIGS / f"{name}.py"), "--init-from", str(source), "--workdir", str(workdir), *options,
                     *(word for text in sets for word in ("--set", text))])


def rows_of(workdir):
    assert cli.main(["evaluate", str(workdir), "--batch-size", "8"]) == 0  # the program of the periodic evaluation
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def leaves(workdir, step=None):
    """({path: parameter}, {path: statistic}) of a checkpoint."""
    model = saved_tree(workdir, step)["model"]
    return flat(model["params"]), flat(model["stats"])


def completed(name, **fields):
    encoder, front_end = PAIRS[name]
    return config.complete(Experiment("e", FinetuneConfig(encoder=encoder, **fields), EmotionConfig(front_end=front_end)))


@pytest.fixture(scope="module")
def emotion(trained_workdir, tiny_corpus, tmp_path_factory):
    """The user's story on a gender net, three layers frozen: (workdir, what was said)."""
    workdir = tmp_path_factory.mktemp("finetuned") / "emotion"
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("sys.stderr", types.SimpleNamespace(write=said.append, flush=lambda: None, isatty=lambda: False))
        assert finetune("emotion", trained_workdir, tiny_corpus, workdir, "model.encoder.dropout=0.1",
                        options=("--freeze-layers", "3")) == 0
    return workdir, "".join(said)


# ------------------------------------------------------------------------------------------------ from a run to a row


def test_frozen_layers_keep_their_bits_and_the_others_are_trained(emotion, trained_workdir):
    workdir, _ = emotion
    (params, stats), source = leaves(workdir), [flat(tree) for tree in saved_tree(trained_workdir)["model"].values()]
    theirs = {f"encoder/{path}": leaf for tree in source for path, leaf in tree.items()}
    frozen = [path for path in params | stats if path.startswith(("encoder/stem", "encoder/block_1/", "encoder/block_2/"))]
    assert {"encoder/stem/kernel", "encoder/stem_norm/mean", "encoder/block_1/norm_2/var"} <= set(frozen)
    for path in frozen:
        assert np.array_equal((params | stats)[path], theirs[path]), path
    begun = {path for path in params if path in theirs} - set(frozen)
    assert any("block_3" in path for path in begun) and any("final" in path for path in begun)
    first, _ = leaves(workdir, 1)
    for path in begun:
        if path.endswith("kernel"):
            assert not np.array_equal(params[path], theirs[path]), path
            assert np.abs(first[path] - theirs[path]).max() < 1e-3, path  # began there: Adam moves 3e-4 a step
    assert {path for path in params if not path.startswith("encoder/")} == {"head/output/kernel", "head/output/bias"}
    assert not any(path.startswith("encoder/head") for path in params)


def test_what_became_of_every_parameter_is_said_and_kept(emotion, trained_workdir):
    workdir, said = emotion
    for words in ("loaded, frozen encoder/stem:", "loaded         encoder/block_3", "new            head/output:",
                  "left behind    encoder/head: bias kernel"):
        assert words in said, said
    told = config.load(workdir / "config.json")
    source = config.load(trained_workdir / "config.json")
    assert told.model.encoder == dataclasses.replace(source.model, dropout=0.1) and told.task.front_end == source.task
    assert json.loads((workdir / "config.json").read_text())["source"]["workdir"] == str(trained_workdir)


def test_evaluate_reports_recall_per_utterance(emotion):
    rows = {row["metric"]: row for row in rows_of(emotion[0])}
    assert rows.keys() == {"WAR", "UAR"}
    for metric, row in rows.items():
        confusion = np.array(row["confusion"])
        assert row["n"] == confusion.sum() == 8 and row["n_speakers"] == 2
        assert row["classes"] == ["angry", "happy", "neutral", "sad"] and confusion.sum(1).tolist() == [2] * 4
        expected = np.diag(confusion).sum() / 8  # classes of equal size
        assert row["value"] == pytest.approx(expected) == intervals.pooled([row["by_speaker"]], metric)["value"]
        assert row["chance"] == 0.25 and "held-out test speakers, per utterance" in row["split"]


def test_an_interrupted_run_continues_bit_for_bit(emotion, trained_workdir, tiny_corpus, tmp_path):
    for code, stop in ((75, ["--stop-after", "1"]), (0, [])):
        assert finetune("emotion", trained_workdir, tiny_corpus, tmp_path / "run", "model.encoder.dropout=0.1",
                        options=["--freeze-layers", "3", *stop]) == code
    assert_same_state(saved_state(tmp_path / "run"), saved_state(emotion[0]))


def test_a_finetuned_net_is_finetuned_again_to_numbers(emotion, tiny_corpus, tmp_path):
    workdir = tmp_path / "ratings"
    assert finetune("ratings", emotion[0], tiny_corpus, workdir, "task.target=valence", "train.steps=2",
                    options=("--freeze-layers", "4")) == 0
    (params, stats), (theirs, _) = leaves(workdir, 1), leaves(emotion[0])
    assert params.keys() == theirs.keys()
    for path in theirs:
        if path.startswith("encoder/") and path.endswith("kernel"):
            change = np.abs(params[path] - theirs[path]).max()
            assert 0 < change < 1e-3 if "final" in path else change == 0, path
    index = PreparedCorpus(tiny_corpus).index
    heard = index[~index["speaker_id"].isin(["s1", "s2", "s7", "s8"])]["valence"]
    np.testing.assert_allclose(stats["units/mean"], [heard.mean()], rtol=1e-6)
    np.testing.assert_allclose(stats["units/scale"], [heard.std(ddof=0)], rtol=1e-6)
    rows = {row["metric"]: row for row in rows_of(workdir)}
    assert rows.keys() == {"CCC", "MSE", "Pearson"}
    for metric, row in rows.items():
        assert (row["target"], row["n"], row["n_speakers"]) == ("valence", 8, 2)
        halves = [{"speakers": [name], "sums": [sums]} for name, sums in zip(*row["by_speaker"].values(), strict=True)]
        assert intervals.pooled(halves, metric)["value"] == pytest.approx(row["value"], rel=1e-6)
    assert rows["CCC"]["chance"] == 0 and rows["MSE"]["chance"] == pytest.approx(index["valence"].var(ddof=0), rel=1e-5)


def test_an_autoencoder_is_finetuned_without_its_decoder_and_exported(tiny_corpus, tmp_path):
    encoder, front_end = PAIRS["autoencoder"]
    source = Experiment("ae", encoder, dataclasses.replace(front_end, bucket_seconds=(0.13,)),
                        Data(corpora=(str(tiny_corpus),), holdout=0), train=Train(steps=1, batch_size=8))
    assert train(source, tmp_path / "ae") == 0
    assert finetune("emotion", tmp_path / "ae", tiny_corpus, tmp_path / "ft", "train.steps=1", "train.eval_every=0") == 0
    modules = {path.split("/")[1] for path in leaves(tmp_path / "ft")[0] if path.startswith("encoder/")}
    assert modules == {"encoder", "representation"}
    out = tmp_path / "features.npz"
    assert cli.main(["export", "--workdir", str(tmp_path / "ft"), "--corpus", str(tiny_corpus), "--out", str(out)]) == 0
    from ser_jax.export.features import read_features

    assert read_features(out).embedding.shape == (32, 8) and read_features(out).metadata["layer"] == "pooled"


# ------------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("name", PAIRS)
def test_every_encoder_has_its_layers_here_and_no_output_of_its_own(name):
    experiment = completed(name, pooling="mean+max", hidden=3)
    network = Network(experiment)
    params, stats = (flat(tree) for tree in jax.eval_shape(lambda: network.init(0)))
    own = Experiment("own", experiment.model.encoder, experiment.task.front_end)
    if name == "convnet":
        own = dataclasses.replace(own, task=dataclasses.replace(own.task, phones=("a",)))
    theirs = flat(jax.eval_shape(lambda: Network(own).init(0))[0])
    kept = {path for path in theirs if f"encoder/{path}" in params}
    output = {"sample_cnn": {"head"}, "wavenet": {"symbols"}, "convnet": {"head"},
              "autoencoder": {"forward", "backward", "output"}}[name]
    assert {path.split("/")[0] for path in theirs.keys() - kept} == output
    assert all(params[f"encoder/{path}"].shape == theirs[path].shape for path in kept)
    assert params["head/output/kernel"].shape == (3, 4)
    width = {"sample_cnn": 6, "wavenet": 8, "autoencoder": 8, "convnet": 4}[name]
    assert params["head/hidden/kernel"].shape == (2 * width, 3)
    frozen = Network(dataclasses.replace(experiment, transfer=Transfer(freeze_layers=len(experiment.model.layer_patterns))))
    assert frozen.frozen == {path for path in params if path.startswith("encoder/")}


@pytest.mark.parametrize("name", ["sample_cnn", "convnet"])
def test_scores_depend_on_the_own_utterance_alone(name):
    network = Network(completed(name, pooling="mean+max+std"))
    params, stats = network.init(0)
    params["head"]["output"]["kernel"] *= 10  # far from equal classes
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 3000, (3, 6000)).astype(np.int16)
    lengths = np.array([2600, 6000, 4000], np.int32)
    loud = np.where(np.arange(6000) < lengths[:, None], speech, 30_000).astype(np.int16)  # beyond the end
    apply = jax.jit(network.apply)
    together = apply(params, stats, {"speech": loud, "length": lengths})
    alone = apply(params, stats, {"speech": speech[:1, :2600], "length": lengths[:1]})
    for found in (together["logits"], together["taps"]["pooled"][0]):
        assert np.abs(np.asarray(found[0] - found[1])).max() > 1e-2
    np.testing.assert_allclose(together["logits"][0], alone["logits"][0], rtol=1e-5, atol=1e-5)
    values, mask = (np.asarray(part[0]) for part in together["taps"][network_layer(name)])
    assert 0 < mask.sum() < len(mask)
    valid = values[mask].astype(np.float64)
    expected = np.concatenate([valid.mean(0), valid.max(0), valid.std(0)])
    np.testing.assert_allclose(together["taps"]["pooled"][0][0, 0], expected, rtol=1e-5, atol=1e-5)


def network_layer(name):
    return PAIRS[name][0].feature_layer


def test_a_training_step_of_windows_gives_every_layer_a_gradient():
    network = Network(completed("convnet"))
    speakers = [types.SimpleNamespace(speech=np.random.default_rng(i).normal(0, 3000, 5000 + 900 * i).astype(np.int16), emotion=name)
                for i, name in enumerate(("angry", "excited", "sad", "neutral"))]
    examples = [network.task.example(each, 8000, np.random.default_rng(i)) for i, each in enumerate(speakers)]
    assert [int(each["label"]) for each in examples] == [0, 1, 3, 2]
    assert all(each["centres"].max() < (int(each["length"]) - 400) // 160 + 1 for each in examples)
    batch = {key: np.stack([each[key] for each in examples]) for key in examples[0]}
    params, stats = network.init(0)
    gradient = jax.jit(jax.grad(lambda params: network.loss(params, stats, batch, jax.random.key(0))[0]))(params)
    kernels = {path: leaf for path, leaf in flat(gradient).items() if path.endswith("kernel")}
    assert len(kernels) == 6 and all(np.abs(leaf).max() > 0 for leaf in kernels.values())


def test_the_deviation_of_a_silent_channel_has_a_gradient_of_zero():
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32).at[:, :, 1].set(0)
    mask = jnp.arange(5) < jnp.array([[5], [1]])
    np.testing.assert_allclose(POOLINGS["std"](x, mask), masked_std(x, mask), atol=1e-6)
    gradient = np.asarray(jax.grad(lambda x: POOLINGS["std"](x, mask).sum())(x))
    assert np.isfinite(gradient).all() and not gradient[:, :, 1].any() and not gradient[1].any() and gradient[0, :, 0].all()


# ------------------------------------------------------------------------------------------------ the task


def test_utterances_without_a_label_are_refused_with_the_reason():
    index = pd.DataFrame({"emotion": ["sad", "excited", "bored", "", "sad"], "num_samples": [9000] * 4 + [300],
                          "valence": [1.0, np.nan, 2.0, np.nan, 1.0], "arousal": [np.nan] * 5, "dominance": [np.nan, 4, *[np.nan] * 3]})
    front_end = PAIRS["sample_cnn"][1]

    def refused(**fields):
        return EmotionConfig(front_end=front_end, **fields).build().refuse(index).tolist()

    none, short = "no emotion of task.classes", "shorter than 400 samples"
    assert refused() == ["", "", none, none, short]
    none = "no rating of valence"
    assert refused(target="valence") == ["", none, "", none, short]
    assert refused(target="vad") == ["", "", "", "no rating of valence or arousal or dominance", short]


def test_the_input_is_standardised_by_the_new_corpus(tiny_corpus):
    network, corpus = Network(completed("convnet")), PreparedCorpus(tiny_corpus)
    table = corpus.index.assign(position=0, row=np.arange(len(corpus)), part="")
    table.loc[3:3, "part"] = "train"
    found = network.task.calibrate([corpus], table)
    own = network.task.front.calibrate([corpus], table)
    assert found.keys() == {"encoder/input/mean", "encoder/input/var"} <= flat(network.init(0)[1]).keys()
    for path, value in own.items():
        np.testing.assert_array_equal(found[f"encoder/{path}"], value)
    assert np.ptp(own["input/mean"]) > 1


def test_a_target_that_does_not_vary_is_refused(tiny_corpus):
    task = EmotionConfig(target="vad", front_end=PAIRS["sample_cnn"][1]).build()
    corpus = PreparedCorpus(tiny_corpus)
    table = pd.DataFrame({"position": 0, "row": np.arange(len(corpus)), "part": "train"})
    with pytest.raises(UserError, match="0 different ratings of arousal in the training part"):
        task.calibrate([corpus], table)


@pytest.mark.parametrize("loss", ["ccc", "mse"])
def test_losses_of_numbers_leave_out_what_is_not_rated(loss):
    task = EmotionConfig(target="vad", loss=loss, front_end=PAIRS["sample_cnn"][1]).build()
    rng = np.random.default_rng(0)
    found, label = (rng.normal(3, 1, (7, 3)).astype(np.float32) for _ in range(2))
    scale = np.array([2, 1, 0.5], np.float32)
    label[2:4, 0] = label[1:, 2] = np.nan  # a single rating of the third

    def value(logits):
        return task.loss({"logits": logits, "scale": scale}, {"label": label})[0]

    rated = np.isfinite(label)
    if loss == "ccc":
        expected = 1 - np.mean([metrics.ccc(label[rated[:, d], d], found[rated[:, d], d]) for d in (0, 1)])
    else:
        expected = np.square((found - label) / scale)[rated].mean()
    assert float(value(found)) == pytest.approx(expected, rel=1e-4)
    gradient = np.asarray(jax.grad(value)(jnp.asarray(found)))
    assert np.isfinite(gradient).all() and not gradient[~rated].any()
    assert gradient[:, :2][rated[:, :2]].all()
    direction = gradient / np.linalg.norm(gradient)
    assert float(value(found - 0.05 * direction)) < float(value(found))


# ------------------------------------------------------------------------------------------------ the config


@pytest.mark.parametrize("name", PAIRS)
def test_nested_configs_survive_json_and_are_overridden(name):
    experiment = completed(name, pooling="mean+std", layer="*")
    value = json.loads(json.dumps(config.to_dict(experiment)))
    assert value["model"]["encoder"]["kind"] == name
    assert config.from_dict(value) == experiment
    changed = config.override(experiment, ["model.encoder.dropout=0.25"])
    assert changed.model == dataclasses.replace(experiment.model, encoder=dataclasses.replace(PAIRS[name][0], dropout=0.25))
    assert config.from_dict(config.to_dict(changed)) == changed
    with pytest.raises(UsageError, match="dropuot.*did you mean 'dropout'"):
        config.override(experiment, ["model.encoder.dropuot=0.25"])


def test_what_is_missing_or_unknown_is_said_in_one_line(tmp_path):
    empty = Experiment("e", FinetuneConfig(), EmotionConfig())
    away = dataclasses.replace(empty, transfer=Transfer(init_from=str(tmp_path)))
    cases = [
        (lambda: config.complete(empty), "model.encoder and task.front_end are empty: .*--init-from WORKDIR"),
        (lambda: config.override(empty, ["model.encoder.dropout=0"]), "are empty: .*--init-from WORKDIR"),
        (lambda: Network(empty), "task.front_end is empty: .*--init-from WORKDIR"),
        (lambda: config.complete(away), "is not a pretraining workdir"),
        (lambda: config.override(empty, ["model.encoder=sample_cnn"]), "model.encoder.NAME=VALUE"),
        (lambda: FinetuneConfig(pooling="mean+maxx"), "unknown 'maxx' .did you mean 'max'"),
        (lambda: FinetuneConfig(hidden=-1), "model.hidden=-1"),
        (lambda: Network(completed("sample_cnn", layer="block_3")), "model.layer=block_3: the encoder has no 'block_3'.*features"),
        (lambda: EmotionConfig(target="valance"), "task.target=valance: choose emotion or valence"),
        (lambda: EmotionConfig(classes=("sad", "hapy")), "did you mean 'happy'"),
        (lambda: EmotionConfig(crop_seconds=0.01, front_end=GenderConfig()).build(), "needs 6561 samples"),
    ]
    for call, words in cases:
        with pytest.raises(UserError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
