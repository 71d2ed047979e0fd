"""WaveNet CTC recogniser on TED-LIUM 2, 207 hours, 30 epochs of 92,973 segments.

    ser-jax prepare tedlium --source /data/TEDLIUM_release2 --out prepared/tedlium
    ser-jax pretrain configs/pretrain/wavenet_tedlium.py --workdir runs/wavenet_tedlium
    ser-jax evaluate runs/wavenet_tedlium --corpus prepared/tedlium --split test
"""

import dataclasses

from configs.pretrain.wavenet_union import config as union
from ser_jax.config import Data, Train

TRAINING_SEGMENTS = 92_973


def config():
    return dataclasses.replace(
        union(),
        name="wavenet_tedlium",
        data=Data(corpora=("prepared/tedlium",), splits=("train",), eval_splits=("dev",)),
        train=Train(steps=30 * TRAINING_SEGMENTS // 16, batch_size=16, log_every=50, eval_every=5000, save_every=1000),
    )
