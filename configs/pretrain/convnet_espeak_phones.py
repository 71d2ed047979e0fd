"""ConvNet acoustic model, tiny, on the embedded corpus: three states of every phone. SYNTHETIC.

    ser-jax prepare espeak --option speakers=12 --option utterances=10 --out prepared/espeak_phones
    ser-jax align prepared/espeak_phones --from phones --out labels/espeak_phones.parquet
    ser-jax pretrain configs/pretrain/convnet_espeak_phones.py --workdir runs/convnet_espeak_phones
    ser-jax evaluate runs/convnet_espeak_phones --corpus prepared/espeak_phones --split test

Seconds on one CPU core.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.tasks.phone_states import PhoneStatesConfig

TINY = ConvNetConfig(conv_channels=(8, 12), dense=(48, 48, 48), dropout=0.2)
OPTIM = Optim(name="rmsprop", learning_rate=2e-3, l2=1e-3, l2_on=("*/conv/kernel",), plateau=2)
TRAIN = Train(steps=100, batch_size=8, log_every=50, eval_every=50, save_every=0)


def config():
    return Experiment(
        name="convnet_espeak_phones",
        model=TINY,
        task=PhoneStatesConfig(labels=("labels/espeak_phones.parquet",), bucket_seconds=(4.0,)),
        data=Data(corpora=("prepared/espeak_phones",), splits=("train",), eval_splits=("dev",)),
        optim=OPTIM,
        train=TRAIN,
    )
