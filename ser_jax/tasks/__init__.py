"""Tasks: what a model is pretrained on. One line per task here; `ser_jax/tasks/task.py` states the contract."""

from ser_jax.tasks.ctc import CTCConfig
from ser_jax.tasks.emotion import EmotionConfig
from ser_jax.tasks.emotion_frames import EmotionFramesConfig
from ser_jax.tasks.gender import GenderConfig
from ser_jax.tasks.phone_states import PhoneStatesConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig

TASKS = {"gender": GenderConfig, "ctc": CTCConfig, "reconstruction": ReconstructionConfig, "phone_states": PhoneStatesConfig,
         "emotion_frames": EmotionFramesConfig, "emotion": EmotionConfig}
