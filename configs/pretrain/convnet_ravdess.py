"""ConvNet of Fayek et al. (2016) on RAVDESS instead of IEMOCAP: four emotions and silence for every frame.

    ser-jax prepare ravdess --source /data/ravdess --out prepared/ravdess
    ser-jax align prepared/ravdess --from voice --out labels/ravdess.parquet
    ser-jax pretrain configs/pretrain/convnet_ravdess.py --workdir runs/convnet_ravdess --set data.test_speakers=01,02

calm counts as neutral. Everybody says the same two sentences, so scores are stamped TEXT-SHARED.
"""

import dataclasses

from configs.pretrain.convnet_iemocap import config as iemocap
from ser_jax.config import Data

CLASSES = ("angry", "happy", "neutral+calm", "sad")


def config():
    whole = iemocap()
    task = dataclasses.replace(whole.task, labels=("labels/ravdess.parquet",), classes=CLASSES)
    return dataclasses.replace(whole, name="convnet_ravdess", task=task, data=Data(corpora=("prepared/ravdess",), holdout=0.1))
