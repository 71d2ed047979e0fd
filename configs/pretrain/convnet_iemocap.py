"""ConvNet of Fayek et al. (2016) on IEMOCAP: four emotions and silence for every frame, 8.5 million parameters.

    ser-jax prepare iemocap --source /data/IEMOCAP_full_release --out prepared/iemocap
    ser-jax align prepared/iemocap --from voice --out labels/iemocap.parquet
    ser-jax pretrain configs/pretrain/convnet_iemocap.py --workdir runs/convnet_iemocap_1F --set data.test_speakers=Ses01F
    ser-jax evaluate runs/convnet_iemocap_1F --part test

One fold: one speaker is tested, both speakers of session 5 are watched; configs/papers/fayek2016.py runs all eight.
"""

from configs.pretrain.convnet_timit import OPTIM, TRAIN
from ser_jax.config import Data, Experiment
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.tasks.emotion_frames import EmotionFramesConfig


def config():
    return Experiment(
        name="convnet_iemocap",
        model=ConvNetConfig(),
        task=EmotionFramesConfig(labels=("labels/iemocap.parquet",)),
        data=Data(corpora=("prepared/iemocap",), holdout=0.0, dev_speakers=("Ses05",)),
        optim=OPTIM,
        train=TRAIN,
    )
