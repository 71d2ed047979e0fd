"""Recurrent autoencoder on the target corpus itself (condition C of Neumann and Vu 2019): 64 epochs of IEMOCAP's 10,039 turns.

    ser-jax prepare iemocap --source /data/IEMOCAP_full_release --out prepared/iemocap
    ser-jax pretrain configs/pretrain/autoencoder_iemocap.py --workdir runs/autoencoder_iemocap

As in the paper, it hears the turns that are tested later: every score with its features is stamped TRANSDUCTIVE.
"""

import dataclasses

from configs.pretrain.autoencoder_librispeech import BATCH
from configs.pretrain.autoencoder_librispeech import config as librispeech
from ser_jax.config import Data

EPOCHS, UTTERANCES = 64, 10_039


def config():
    base = librispeech()
    return dataclasses.replace(
        base,
        name="autoencoder_iemocap",
        data=Data(corpora=("prepared/iemocap",), holdout=0.0),
        train=dataclasses.replace(base.train, steps=EPOCHS * UTTERANCES // BATCH),
    )
