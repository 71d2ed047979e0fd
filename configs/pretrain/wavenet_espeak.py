"""WaveNet CTC recogniser at a quarter of its width on the embedded corpus' matrix sentences. SYNTHETIC.

    ser-jax prepare espeak --option sentences=matrix --option speakers=48 --option utterances=20 --out prepared/espeak_matrix
    ser-jax pretrain configs/pretrain/wavenet_espeak.py --workdir runs/wavenet_espeak
    ser-jax evaluate runs/wavenet_espeak --corpus prepared/espeak_matrix --split test

Speakers of dev and test are not trained on, nor are their sentences, though all their words are. Two minutes on two idle
CPU cores.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.tasks.ctc import CTCConfig


def config():
    return Experiment(
        name="wavenet_espeak",
        model=WaveNetConfig(channels=32, dropout=0.1, normalise_input=True),
        task=CTCConfig(bucket_seconds=(3, 4, 6), rolls=(0,), noise=0.001, time_masks=1, time_mask_frames=8),
        data=Data(corpora=("prepared/espeak_matrix",), splits=("train",), eval_splits=("dev",)),
        optim=Optim(learning_rate=3e-3, warmup_steps=50, decay="cosine"),
        train=Train(steps=1200, batch_size=16, log_every=50, eval_every=300, save_every=300),
    )
