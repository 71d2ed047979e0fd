"""SampleCNN on speaker gender from one LibriSpeech utterance for each of 251 speakers: net A on a laptop's CPU.

    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax pretrain configs/pretrain/sample_cnn_librispeech_251.py --workdir runs/sample_cnn_librispeech_251
    ser-jax evaluate runs/sample_cnn_librispeech_251 --step last

train-clean-100 with one utterance per speaker (52 minutes of speech). A fifth of the speakers is kept for the test, a
twentieth for the periodic evaluation. As the paper, but 300 steps with a cosine decay instead of 10 epochs of 281,241
utterances: what two CPU cores do in about 45 minutes.
"""

import dataclasses

from configs.pretrain.sample_cnn_librispeech import config as full
from ser_jax.config import Data, Optim, Train


def config():
    return dataclasses.replace(
        full(),
        name="sample_cnn_librispeech_251",
        data=Data(corpora=("prepared/librispeech",), splits=("train-clean-100",), holdout=0.05, test=0.2),
        optim=Optim(learning_rate=1e-3, decay="cosine"),
        train=Train(steps=300, batch_size=32, log_every=10, eval_every=50, save_every=25),
    )
