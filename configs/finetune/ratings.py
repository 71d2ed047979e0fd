"""Fine-tune a pretrained encoder on valence, arousal and dominance of utterances, by the concordance of the batch.

    ser-jax pretrain configs/finetune/ratings.py --init-from runs/gender --workdir runs/ratings \\
        --set data.corpora=prepared/iemocap
    ser-jax evaluate runs/ratings

The concordance is that of a batch, so batches are larger than for classes.
"""

import dataclasses

from configs.finetune import emotion
from ser_jax.tasks.emotion import EmotionConfig


def config():
    start = emotion.config()
    return dataclasses.replace(start, name="ratings", task=EmotionConfig(target="vad"),
                               train=dataclasses.replace(start.train, batch_size=64))
