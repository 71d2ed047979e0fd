"""A net of a few thousand parameters and ten steps: does the chain hold together on this machine? SYNTHETIC.

    ser-jax prepare espeak --out prepared/espeak
    ser-jax pretrain configs/debug.py --workdir runs/debug
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.tasks.gender import GenderConfig


def config():
    return Experiment(
        name="debug",
        model=SampleCNNConfig(stem_filters=8, filters=(8, 8, 16, 16), final_filters=24),
        task=GenderConfig(crop_seconds=1.0, min_samples=1_600),
        data=Data(corpora=("prepared/espeak",), splits=("train",), eval_splits=("dev",)),
        optim=Optim(),
        train=Train(steps=10, batch_size=16, log_every=1, eval_every=5, save_every=5),
    )
