"""SampleCNN on speaker gender, LibriSpeech: the pretraining of Schiller et al. 2020, §2.1.

    ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech
    ser-jax pretrain configs/pretrain/sample_cnn_librispeech.py --workdir runs/sample_cnn_librispeech
    ser-jax evaluate runs/sample_cnn_librispeech --corpus prepared/librispeech --split test-clean,test-other

Net A (3,425,538 parameters), 5 s crops, Adam 1e-3, batch 32, 10 epochs of the 281,241 training utterances. The paper
reports 97 % accuracy on the official test partition.
"""

from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.tasks.gender import GenderConfig

TRAINING_UTTERANCES = 281_241


def config():
    return Experiment(
        name="sample_cnn_librispeech",
        model=SampleCNNConfig(),
        task=GenderConfig(),
        data=Data(
            corpora=("prepared/librispeech",),
            splits=("train-clean-100", "train-clean-360", "train-other-500"),
            eval_splits=("dev-clean", "dev-other"),
        ),
        optim=Optim(learning_rate=1e-3),
        train=Train(steps=10 * TRAINING_UTTERANCES // 32, batch_size=32, log_every=50, eval_every=5000, save_every=1000),
    )
