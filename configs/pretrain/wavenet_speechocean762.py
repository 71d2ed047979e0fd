"""WaveNet CTC recogniser on 0.7 h of read English: speechocean762 and what is transcribed of a small LibriSpeech.

    ser-jax prepare manifest --source /data/speechocean762/manifest.csv --out prepared/speechocean762
    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax pretrain configs/pretrain/wavenet_speechocean762.py --workdir runs/wavenet_speechocean762
    ser-jax evaluate runs/wavenet_speechocean762

The published net (3,720,988 parameters, and 40 of the normalised input) with Adam, a cosine decay, dropout, speed
perturbation and SpecAugment instead of MaxProp and the roll of the cepstra. Half an hour of speech is too little for the
published recipe: without the normalised input it wrote only the most frequent letters for 3,000 steps, and without the
augmentation it knew the training sentences by heart after 2,500. A tenth of the speakers is kept for the test, a twentieth is
watched.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.tasks.ctc import CTCConfig


def config():
    return Experiment(
        name="wavenet_speechocean762",
        model=WaveNetConfig(dropout=0.3, normalise_input=True),
        task=CTCConfig(bucket_seconds=(3, 4, 5, 7, 11, 21), rolls=(0,), speed=0.15, noise=0.002,
                       time_masks=2, time_mask_frames=12, coefficient_masks=1, coefficient_mask_width=3),
        data=Data(corpora=("prepared/speechocean762", "prepared/librispeech"), holdout=0.05, test=0.1),
        optim=Optim(learning_rate=1e-3, warmup_steps=100, decay="cosine", clip_norm=100.0),
        train=Train(steps=6000, batch_size=8, log_every=20, eval_every=250, save_every=250),
    )
