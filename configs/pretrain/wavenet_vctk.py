"""WaveNet CTC recogniser on VCTK, the corpus that Tits et al. 2018 name: 44 hours, 109 speakers, 20 epochs.

    ser-jax prepare vctk --source /data/VCTK-Corpus --out prepared/vctk
    ser-jax pretrain configs/pretrain/wavenet_vctk.py --workdir runs/wavenet_vctk
    ser-jax evaluate runs/wavenet_vctk

Optimiser, number of epochs and no augmentation, as the release of November 2016 (MaxProp 1e-4, batch 16); the front end is
that of v0.0.0.2, 16 kHz, as the speech of IEMOCAP, and short files, which that release left out, are kept. VCTK has no partitions: a twentieth of the speakers is kept for the test, as many are
watched.
"""

import dataclasses

from configs.pretrain.wavenet_union import config as union
from ser_jax.config import Data, Optim, Train
from ser_jax.tasks.ctc import CTCConfig

UTTERANCES = 44_000  # about


def config():
    return dataclasses.replace(
        union(),
        name="wavenet_vctk",
        task=CTCConfig(rolls=(0,)),
        data=Data(corpora=("prepared/vctk",), holdout=0.05, test=0.05),
        optim=Optim(name="maxprop", learning_rate=1e-4),
        train=Train(steps=20 * UTTERANCES // 16, batch_size=16, log_every=50, eval_every=2500, save_every=1000),
    )
