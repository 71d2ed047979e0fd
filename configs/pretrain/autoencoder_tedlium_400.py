"""Recurrent autoencoder on 400 talks of TED-LIUM 2 (condition sT of Neumann and Vu 2019): 64 epochs of 25,303 segments.

    ser-jax prepare tedlium --source /data/TEDLIUM_release2 --option talks=400 --out prepared/tedlium_400
    ser-jax pretrain configs/pretrain/autoencoder_tedlium_400.py --workdir runs/autoencoder_tedlium_400

Which 400 talks the paper took is not known.
"""

import dataclasses

from configs.pretrain.autoencoder_librispeech import BATCH
from configs.pretrain.autoencoder_librispeech import config as librispeech
from ser_jax.config import Data

EPOCHS, UTTERANCES = 64, 25_303


def config():
    base = librispeech()
    return dataclasses.replace(
        base,
        name="autoencoder_tedlium_400",
        data=Data(corpora=("prepared/tedlium_400",), splits=("train",), eval_splits=("dev",)),
        train=dataclasses.replace(base.train, steps=EPOCHS * UTTERANCES // BATCH),
    )
