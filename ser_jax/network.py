"""An experiment's model and task as pure functions on (params, stats): what training, evaluation and export share."""

import jax
from flax import nnx

from ser_jax import transfer
from ser_jax.errors import UsageError


class Network:
    """Model + task of an experiment, functional: parameters and running statistics are plain dicts of arrays.

    (`jax.jit` over plain trees instead of `nnx.jit`: less Python per step, and checkpoints do not depend on Flax's
    variable classes.)

    Args:
      experiment: config.Experiment.

    Attributes:
      task: built from `experiment.task`.
      parameters: paths of all parameters.
      frozen: set of the paths of the parameters that are held constant.
    """

    def __init__(self, experiment):
        self.task = experiment.task.build()
        if self.task.min_samples < experiment.model.min_samples:
            raise UsageError(f"task.min_samples={self.task.min_samples}: this model needs {experiment.model.min_samples} "
                             "samples for one step; raise task.min_samples to that")
        self._build = lambda seed: experiment.model.build(self.task.num_outputs, rngs=nnx.Rngs(seed))
        model = nnx.eval_shape(lambda: self._build(0))
        self._graphdef = nnx.graphdef(model)
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        self.parameters, self.frozen = transfer.flat(params).keys(), transfer.frozen(experiment, params)

    def init(self, seed):
        """(params, stats): nested dicts of arrays with string keys."""
        _, params, stats = nnx.split(self._build(seed), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def loss(self, params, stats, batch, key):
        """Training mode: augments, applies the model.

        Returns:
          scalar loss, (dict of scalar metrics, new stats).
        """
        augmentation, dropout = jax.random.split(key)
        batch = self.task.augment(batch, augmentation)
        model = nnx.merge(self._graphdef, params, stats)
        model.train()
        self._hold_statistics(model)
        outputs = model(*self.task.inputs(batch), rngs=nnx.Rngs(dropout=dropout))
        loss, metrics = self.task.loss(outputs, batch)
        return loss, (metrics, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))

    def _hold_statistics(self, model):
        """A batch normalisation of a constant layer stays in inference mode, with the statistics it came with."""
        for path, module in nnx.iter_modules(model):
            if hasattr(module, "use_running_average") and "/".join(map(str, (*path, "scale"))) in self.frozen:
                module.use_running_average = True

    def apply(self, params, stats, batch):
        """Inference mode: the model's outputs (logits, taps); rows do not depend on each other."""
        model = nnx.merge(self._graphdef, params, stats)
        model.eval()
        # TF32 and bf16 passes differ between batch shapes; what is said of an utterance must not.
        with jax.default_matmul_precision("highest"):
            return model(*self.task.inputs(batch))
