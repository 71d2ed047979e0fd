"""Recurrent autoencoder at an eighth of its width on the embedded corpus. SYNTHETIC.

    ser-jax prepare espeak --out prepared/espeak
    ser-jax pretrain configs/pretrain/autoencoder_espeak.py --workdir runs/autoencoder_espeak
    ser-jax evaluate runs/autoencoder_espeak --corpus prepared/espeak --split test

Half a minute on two CPU cores.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig


def config():
    return Experiment(
        name="autoencoder_espeak",
        model=AutoencoderConfig(units=32),
        task=ReconstructionConfig(bucket_seconds=(2.5, 4.0)),
        data=Data(corpora=("prepared/espeak",), splits=("train",), eval_splits=("dev",)),
        optim=Optim(learning_rate=2e-3, epsilon=1e-8, clip_value=2.0, decay="cosine"),
        train=Train(steps=200, batch_size=16, log_every=20, eval_every=100, save_every=100),
    )
