"""Recurrent autoencoder on TED-LIUM 2 (condition fT of Neumann and Vu 2019): 32 epochs of 92,973 segments.

    ser-jax prepare tedlium --source /data/TEDLIUM_release2 --out prepared/tedlium
    ser-jax pretrain configs/pretrain/autoencoder_tedlium.py --workdir runs/autoencoder_tedlium
"""

import dataclasses

from configs.pretrain.autoencoder_librispeech import BATCH
from configs.pretrain.autoencoder_librispeech import config as librispeech
from ser_jax.config import Data

EPOCHS, UTTERANCES = 32, 92_973


def config():
    base = librispeech()
    return dataclasses.replace(
        base,
        name="autoencoder_tedlium",
        data=Data(corpora=("prepared/tedlium",), splits=("train",), eval_splits=("dev",)),
        train=dataclasses.replace(base.train, steps=EPOCHS * UTTERANCES // BATCH),
    )
