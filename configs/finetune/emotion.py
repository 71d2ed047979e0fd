"""Fine-tune a pretrained encoder on the emotion of utterances: mean over time, one output layer.

    ser-jax pretrain configs/finetune/emotion.py --init-from runs/gender --workdir runs/emotion --freeze-layers 3 \\
        --set data.corpora=prepared/ravdess --set data.test_speakers=01,02
    ser-jax evaluate runs/emotion

Encoder and front end are those of the source, whatever it was trained on. Steps for a corpus of about a thousand utterances.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.finetune import FinetuneConfig
from ser_jax.tasks.emotion import EmotionConfig


def config():
    return Experiment(
        name="emotion",
        model=FinetuneConfig(dropout=0.2),
        task=EmotionConfig(),
        data=Data(corpora=("prepared/iemocap",), holdout=0.1, test=0.2),
        optim=Optim(learning_rate=3e-4, warmup_steps=50, decay="cosine", clip_norm=1.0),
        train=Train(steps=1000, batch_size=32, log_every=10, eval_every=50, save_every=100),
    )
