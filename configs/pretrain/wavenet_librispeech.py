"""WaveNet CTC recogniser on LibriSpeech, 960 hours, 20 epochs of 281,241 utterances.

    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax pretrain configs/pretrain/wavenet_librispeech.py --workdir runs/wavenet_librispeech
    ser-jax evaluate runs/wavenet_librispeech --corpus prepared/librispeech --split test-clean,test-other
"""

import dataclasses

from configs.pretrain.wavenet_union import config as union
from ser_jax.config import Data, Train

TRAINING_UTTERANCES = 281_241


def config():
    return dataclasses.replace(
        union(),
        name="wavenet_librispeech",
        data=Data(corpora=("prepared/librispeech",), splits=("train-clean-100", "train-clean-360", "train-other-500"),
                  eval_splits=("dev-clean", "dev-other")),
        train=Train(steps=20 * TRAINING_UTTERANCES // 16, batch_size=16, log_every=50, eval_every=15_000, save_every=1000),
    )
