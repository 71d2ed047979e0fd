"""Config of the runs that the tests of training interrupt and continue: dropout and augmentation on, Adam.

`final_filters` makes one kernel large enough for `train.sharding=fsdp` to split it.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.tasks.gender import GenderConfig


def config():
    return Experiment(
        name="small",
        model=SampleCNNConfig(stem_filters=8, filters=(8, 64), final_filters=256),
        task=GenderConfig(crop_seconds=0.25, min_samples=1_000),
        data=Data(holdout=0.2, weights=(0.75, 0.25), seed=3),
        optim=Optim(learning_rate=1e-3, decay="cosine"),
        train=Train(steps=50, batch_size=8, seed=5, log_every=1, eval_every=10, save_every=7),
    )
