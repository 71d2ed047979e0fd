"""ConvNet of four emotions and silence for every frame, tiny, on the embedded corpus. SYNTHETIC.

    ser-jax prepare espeak --option speakers=12 --option utterances=8 --option seed=1 --out prepared/espeak_emotion
    ser-jax align prepared/espeak_emotion --from voice --out labels/espeak_emotion.parquet
    ser-jax pretrain configs/pretrain/convnet_espeak_emotion.py --workdir runs/convnet_espeak_emotion
    ser-jax evaluate runs/convnet_espeak_emotion --corpus prepared/espeak_emotion --split test

Seconds on one CPU core.
"""

from configs.pretrain.convnet_espeak_phones import OPTIM, TINY, TRAIN
from ser_jax.config import Data, Experiment
from ser_jax.tasks.emotion_frames import EmotionFramesConfig


def config():
    return Experiment(
        name="convnet_espeak_emotion",
        model=TINY,
        task=EmotionFramesConfig(labels=("labels/espeak_emotion.parquet",), bucket_seconds=(4.0,),
                                 classes=("angry", "happy", "neutral", "sad")),
        data=Data(corpora=("prepared/espeak_emotion",), splits=("train",), eval_splits=("dev",)),
        optim=OPTIM,
        train=TRAIN,
    )
