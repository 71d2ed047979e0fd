"""Recurrent autoencoder on the target corpus itself (condition C of Neumann and Vu 2019): 64 epochs of MSP-IMPROV's 8,438 turns.

    ser-jax prepare msp_improv --source /data/MSP-IMPROV --out prepared/msp_improv
    ser-jax pretrain configs/pretrain/autoencoder_msp_improv.py --workdir runs/autoencoder_msp_improv

As in the paper, it hears the turns that are tested later: every score with its features is stamped TRANSDUCTIVE.
"""

import dataclasses

from configs.pretrain.autoencoder_librispeech import BATCH
from configs.pretrain.autoencoder_librispeech import config as librispeech
from ser_jax.config import Data

EPOCHS, UTTERANCES = 64, 8_438


def config():
    base = librispeech()
    return dataclasses.replace(
        base,
        name="autoencoder_msp_improv",
        data=Data(corpora=("prepared/msp_improv",), holdout=0.0),
        train=dataclasses.replace(base.train, steps=EPOCHS * UTTERANCES // BATCH),
    )
