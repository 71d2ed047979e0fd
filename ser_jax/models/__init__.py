"""Models: arrays and masks in, dict of logits (or reconstruction) and taps out. One line per model here."""

from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.models.finetune import FinetuneConfig
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.models.wavenet import WaveNetConfig

MODELS = {"sample_cnn": SampleCNNConfig, "wavenet": WaveNetConfig, "autoencoder": AutoencoderConfig,
          "convnet": ConvNetConfig, "finetune": FinetuneConfig}
