"""ConvNet acoustic model of Fayek et al. (2016) on TIMIT: 144 phone states, 31 frames of context, 8.6 million parameters.

    ser-jax prepare timit --source /data/TIMIT --out prepared/timit
    ser-jax align prepared/timit --from phones --out labels/timit.parquet      # or --from ctm:ALIGNMENT.ctm, of a Kaldi system
    ser-jax pretrain configs/pretrain/convnet_timit.py --workdir runs/convnet_timit
    ser-jax evaluate runs/convnet_timit --corpus prepared/timit --split core-test

An epoch is about 4,400 steps of 256 frames. Not in the paper, ours: the learning rate and when it is halved, ρ, the batch of
16 utterances × 16 frames, 0.6 as the share of units that is dropped.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.tasks.phone_states import PhoneStatesConfig

OPTIM = Optim(name="rmsprop", learning_rate=1e-3, average_decay=0.9, l2=1e-3, l2_on=("*/conv/kernel",), plateau=1)
TRAIN = Train(steps=60_000, batch_size=16, log_every=100, eval_every=2_000, save_every=2_000, patience=6)


def config():
    return Experiment(
        name="convnet_timit",
        model=ConvNetConfig(),
        task=PhoneStatesConfig(labels=("labels/timit.parquet",)),
        data=Data(corpora=("prepared/timit",), splits=("train",), eval_splits=("dev",)),
        optim=OPTIM,
        train=TRAIN,
    )
