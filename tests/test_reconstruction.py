"""The reconstruction task: examples, loss, the predictors beside it, and the chain pretrain, evaluate, export."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from ser_jax import cli
from ser_jax.audio import audeep
from ser_jax.checkpoint import Trained
from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.corpora.schema import Utterance
from ser_jax.errors import UsageError
from ser_jax.export.features import read_features
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.results import read_rows
from ser_jax.tasks.reconstruction import ReconstructionConfig
from ser_jax.train import train

TASK = ReconstructionConfig(bucket_seconds=(0.5, 1.0)).build()


def utterance(samples):
    speech = np.random.default_rng(samples).integers(-9000, 9000, samples).astype(np.int16)
    return Utterance(id="u", corpus="c", source="u.wav", speech=speech)


def test_examples_are_padded_to_a_bucket_and_cut_to_the_last():
    index = pandas.DataFrame({"num_samples": [1279, 1280, 8000, 8001, 16000, 50_000]})
    assert TASK.sizes(index).tolist() == [8000, 8000, 8000, 16000, 16000, 16000]
    assert TASK.refuse(index).tolist() == ["shorter than 1280 samples", "", "", "", "", ""]
    long, rng = utterance(50_000), np.random.default_rng(0)
    first = TASK.example(long, 16_000, rng)
    np.testing.assert_array_equal(first["speech"], long.speech[:16_000])
    padded = TASK.example(utterance(7_000), 8_000, rng)
    assert padded["length"] == 7_000 and not padded["speech"][7_000:].any() and len(padded["speech"]) == 8_000
    random = ReconstructionConfig(bucket_seconds=(0.5, 1.0), crop="random").build()
    crops = [random.example(long, 16_000, rng)["speech"] for _ in range(3)]
    assert len({crop.tobytes() for crop in crops}) == 3
    assert all(crop.tobytes() in long.speech.tobytes() for crop in crops)


@pytest.mark.parametrize("field, value", [("bucket_seconds", (2.0, 1.0)), ("bucket_seconds", ()), ("bucket_seconds", (0.01,)),
                                          ("crop", "middle"), ("clip_db", 0.0)])
def test_wrong_settings_are_named(field, value):
    with pytest.raises(UsageError, match=f"task.{field}="):
        ReconstructionConfig(**{field: value})


def outputs(seed=0, lengths=(7, 3)):
    rng = np.random.default_rng(seed)
    mask = np.arange(7) < np.array(lengths)[:, None]
    target, reconstruction = (rng.uniform(-1, 1, (2, 7, 128)).astype(np.float32) * mask[..., None] for _ in range(2))
    return {"target": target, "reconstruction": reconstruction, "mask": mask}


def test_loss_is_the_root_of_the_mean_over_valid_values():
    found = outputs()
    errors = np.concatenate([(found["reconstruction"] - found["target"])[i, :n].ravel() for i, n in enumerate((7, 3))])
    np.testing.assert_allclose(TASK.loss(found, {})[0], np.sqrt(np.mean(errors**2)), rtol=1e-5)


def test_predictors_without_a_net_are_those_of_numpy():
    """Two pieces make the first utterance, one of each batch the others."""
    batches = [outputs(seed) for seed in (0, 1)]
    scored = [jax.tree.map(np.asarray, TASK.scores(jax.tree.map(jnp.asarray, each))) for each in batches]
    pieces = [[jax.tree.map(lambda leaf, i=i: leaf[i], each) for i in range(2)] for each in scored]
    scores = [TASK.combine([pieces[0][0], pieces[1][0]]), TASK.combine([pieces[0][1]]), TASK.combine([pieces[1][1]])]
    frames = [[batches[0]["target"][0], batches[1]["target"][0]], [batches[0]["target"][1, :3]], [batches[1]["target"][1, :3]]]
    everything = np.concatenate([frame for utterance in frames for frame in utterance]).astype(np.float64)
    mean = np.sqrt(np.mean((everything - everything.mean(0)) ** 2))
    own = np.concatenate([np.concatenate(u) - np.concatenate(u).mean(0) for u in frames])
    # decoding goes from the last frame of a piece to its first, starting from zeros
    before = np.concatenate([x - np.concatenate([x[1:], np.zeros((1, 128))]) for u in frames for x in u])
    wrong = np.concatenate([(each["reconstruction"] - each["target"])[i, :n] for each in batches for i, n in enumerate((7, 3))])

    index = pandas.DataFrame({"id": ["a", "b", "c"], "speaker_id": ["s", "t", ""]})
    trained = type("Trained", (), {"experiment": Experiment("x", AutoencoderConfig(decoder="unidirectional"), None)})
    [row] = TASK.rows(scores, index, trained)
    assert (row["n"], row["n_speakers"]) == (3, 2)
    np.testing.assert_allclose(row["value"], np.sqrt(np.mean(wrong**2)), rtol=1e-5)
    np.testing.assert_allclose(row["chance"], mean, rtol=1e-5)
    np.testing.assert_allclose(row["secondary"]["RMSE of the utterance's own mean frame"], np.sqrt(np.mean(own**2)), rtol=1e-5)
    np.testing.assert_allclose(row["secondary"]["RMSE of the frame decoded before"], np.sqrt(np.mean(before**2)), rtol=1e-5)
    assert row["ci"][0] <= row["value"] <= row["ci"][1]
    summary = TASK.summary(scores, index)
    np.testing.assert_allclose(summary["explained"], 1 - np.mean(wrong**2) / mean**2, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ the chain


@pytest.fixture(scope="module")
def run(tiny_corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "autoencoder"
    experiment = Experiment(
        name="tiny_autoencoder",
        model=AutoencoderConfig(units=8),
        task=ReconstructionConfig(bucket_seconds=(0.5, 1.0)),
        data=Data(corpora=(str(tiny_corpus),), splits=("train",), holdout=0.3),
        optim=Optim(learning_rate=1e-2, clip_value=2.0),
        train=Train(steps=24, batch_size=8, log_every=1, eval_every=12, save_every=0),
    )
    assert train(experiment, workdir) == 0
    return workdir


def test_the_chain_learns_and_says_what_it_read(run, tiny_corpus, tmp_path):
    assert cli.main(["evaluate", str(run), "--corpus", str(tiny_corpus), "--split", "test", "--out", str(tmp_path)]) == 0
    [row] = read_rows(tmp_path)
    assert row["metric"] == "RMSE" and row["n"] == 8 and row["n_speakers"] == 2
    assert row["value"] < row["chance"]
    assert "leak" in row["definition"]


def test_exported_vector_is_the_encoders_and_does_not_depend_on_padding(run, tiny_corpus, tmp_path):
    out = tmp_path / "f.parquet"
    words = ["export", "--workdir", str(run), "--corpus", str(tiny_corpus), "--out", str(out), "--batch-size", "5"]
    assert cli.main(words) == 0
    features = read_features(out)
    assert features.embedding.shape == (32, 32) and np.abs(features.embedding).max() < 1
    trained = Trained(run)
    from ser_jax.data.prepared import PreparedCorpus

    corpus = PreparedCorpus(tiny_corpus)
    for row in (0, 9, 31):
        speech = corpus.speech(row)
        batch = {"speech": jnp.asarray(speech[None]), "length": jnp.array([len(speech)])}
        alone = trained.network.apply(trained.params, trained.stats, batch)["taps"]["representation"][0][0, 0]
        mine = features.embedding[features.table["id"] == corpus.index["id"].iloc[row]][0]
        np.testing.assert_allclose(mine, alone, atol=1e-5)


def test_the_front_end_is_clipped_where_the_config_says():
    x = np.random.default_rng(0).normal(0, 0.1, (1, 8000)).astype(np.float32)
    batch = {"speech": (x * 32768).astype(np.int16), "length": np.array([8000])}
    config = dataclasses.replace(TASK.config, clip_db=-10.0)
    found, mask = config.build().inputs(batch)
    expected, _ = audeep.spectrogram(jnp.asarray(batch["speech"], jnp.float32) / 32768, np.ones((1, 8000), bool), -10.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.asarray(found)[np.asarray(mask)] == -1).mean() > 0.2  # flat noise, clipped 10 dB below its top
