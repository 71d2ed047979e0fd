"""The published recogniser's own recipe: VCTK, LibriSpeech train-clean-360 and TED-LIUM 2 together, 240,612 sentences.

    ser-jax prepare vctk --source /data/VCTK-Corpus --out prepared/vctk
    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax prepare tedlium --source /data/TEDLIUM_release2 --out prepared/tedlium
    ser-jax pretrain configs/pretrain/wavenet_union.py --workdir runs/wavenet_union
    ser-jax evaluate runs/wavenet_union --corpus prepared/librispeech --split test-clean --option beam_width=100

speech-to-text-wavenet v0.0.0.2: 3,720,988 parameters, 20 cepstra at 16 kHz, MaxProp 1e-3, batch 16, 50 epochs (its best was
the 40th). It reports a CTC loss of 69.95 / 66.83 / 77.32 on train / valid / test and no error rate.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.tasks.ctc import CTCConfig

TRAINING_UTTERANCES = 240_612


def config():
    return Experiment(
        name="wavenet_union",
        model=WaveNetConfig(),
        task=CTCConfig(),
        data=Data(
            corpora=("prepared/vctk", "prepared/librispeech", "prepared/tedlium"),
            splits=("", "train-clean-360", "train"),  # VCTK has no partitions
            eval_splits=("dev-clean", "dev"),
        ),
        optim=Optim(name="maxprop", learning_rate=1e-3),
        train=Train(steps=50 * TRAINING_UTTERANCES // 16, batch_size=16, log_every=50, eval_every=15_000, save_every=1000),
    )
