"""Recurrent autoencoder on 1.6 h of read English, transcripts unused: speechocean762 and a small LibriSpeech.

    ser-jax prepare manifest --source /data/speechocean762/manifest.csv --option name=speechocean762 --out prepared/speechocean762
    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax pretrain configs/pretrain/autoencoder_speechocean762.py --workdir runs/autoencoder
    ser-jax pretrain configs/pretrain/autoencoder_speechocean762.py --workdir runs/autoencoder_uni --set model.decoder=unidirectional

The published net at a quarter of the published batch, with random crops and a cosine decay, for lack of speech and time. A
tenth of the speakers is kept for the test, a twentieth is watched.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig


def config():
    return Experiment(
        name="autoencoder_speechocean762",
        model=AutoencoderConfig(),
        task=ReconstructionConfig(bucket_seconds=(2.5, 4.0, 5.5, 7.5), crop="random"),
        data=Data(corpora=("prepared/speechocean762", "prepared/librispeech"), holdout=0.05, test=0.1),
        optim=Optim(learning_rate=1e-3, epsilon=1e-8, clip_value=2.0, decay="cosine"),
        train=Train(steps=2500, batch_size=16, log_every=20, eval_every=250, save_every=250),
    )
