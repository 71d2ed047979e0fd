"""Recurrent autoencoder on LibriSpeech train-clean-100 (condition Li of Neumann and Vu 2019): 64 epochs of 28,539 utterances.

    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax pretrain configs/pretrain/autoencoder_librispeech.py --workdir runs/autoencoder_librispeech

auDeep's trainer: the first 7.5 s of each utterance, Adam, every gradient element clipped to ±2. Batch size and length are
not in the paper (ours).
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig

EPOCHS, UTTERANCES, BATCH = 64, 28_539, 64


def config():
    return Experiment(
        name="autoencoder_librispeech",
        model=AutoencoderConfig(),
        task=ReconstructionConfig(),
        data=Data(corpora=("prepared/librispeech",), splits=("train-clean-100",), holdout=0.02),
        optim=Optim(learning_rate=1e-3, epsilon=1e-8, clip_value=2.0),
        train=Train(steps=EPOCHS * UTTERANCES // BATCH, batch_size=BATCH, log_every=50, eval_every=2000, save_every=1000),
    )
