"""SampleCNN at a quarter of its width on the embedded corpus: the pretraining of `ser-jax demo`. SYNTHETIC.

    ser-jax prepare espeak --out prepared/espeak
    ser-jax pretrain configs/pretrain/sample_cnn_espeak.py --workdir runs/sample_cnn_espeak

About two minutes on two CPU cores.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.tasks.gender import GenderConfig


def config():
    return Experiment(
        name="sample_cnn_espeak",
        model=SampleCNNConfig(stem_filters=32, filters=(32, 32, 64, 64, 64, 64, 128), final_filters=192),
        task=GenderConfig(crop_seconds=2.5),
        data=Data(corpora=("prepared/espeak",), splits=("train",), eval_splits=("dev",)),
        optim=Optim(learning_rate=1e-3, decay="cosine"),
        train=Train(steps=120, batch_size=32, log_every=10, eval_every=40, save_every=40),
    )
