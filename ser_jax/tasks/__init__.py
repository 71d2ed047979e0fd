"""Tasks: what a model is pretrained on. One line per task here; `ser_jax/tasks/task.py` states the contract."""

from ser_jax.tasks.ctc import CTCConfig
from ser_jax.tasks.gender import GenderConfig

TASKS = {"gender": GenderConfig, "ctc": CTCConfig}
