"""Optimisers and learning-rate schedules by name."""

import jax
import jax.numpy as jnp
import optax

from ser_jax.errors import UsageError, suggestion


def scale_by_maxprop(decay=0.99, epsilon=1e-8):
    """Divides each gradient by the decayed running maximum of its magnitude: m ← max(decay·m + ε, |g|), update g / m.

    MaxProp of sugartensor 1.0.0.2, the optimiser of speech-to-text-wavenet: no momentum, no bias correction.
    """
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(gradient, state, params=None):
        state = jax.tree.map(lambda g, m: jnp.maximum(decay * m + epsilon, jnp.abs(g)), gradient, state)
        return jax.tree.map(jnp.divide, gradient, state), state

    return optax.GradientTransformation(init, update)


OPTIMISERS = {
    "adam": lambda schedule, config: optax.adam(schedule, eps=config.epsilon),
    "adamw": lambda schedule, config: optax.adamw(schedule, eps=config.epsilon, weight_decay=config.weight_decay),
    "maxprop": lambda schedule, config: optax.chain(scale_by_maxprop(), optax.scale_by_learning_rate(schedule)),
    "sgd": lambda schedule, config: optax.sgd(schedule, momentum=0.9, nesterov=True),
}
DECAYS = ("constant", "cosine", "linear")


def build(config, steps):
    """The gradient transformation of an experiment.

    Args:
      config: config.Optim.
      steps: steps of the whole run; the decays end there.

    Raises:
      UsageError: unknown optimiser or decay.
    """
    if config.name not in OPTIMISERS:
        raise UsageError(_unknown("optim.name", config.name, OPTIMISERS))
    if config.weight_decay and config.name != "adamw":
        raise UsageError(f"optim.weight_decay={config.weight_decay:g} needs optim.name=adamw")
    for name in ("clip_norm", "clip_value"):
        if getattr(config, name) < 0:
            raise UsageError(f"optim.{name}={getattr(config, name):g}: must not be negative; 0 = off")
    transform = OPTIMISERS[config.name](schedule(config, steps), config)
    clips = [optax.clip(config.clip_value)] if config.clip_value else []
    clips += [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clips, transform) if clips else transform


def schedule(config, steps):
    """step -> learning rate: linear warm-up from 0, then constant, cosine or linear decay to 0."""
    peak, rest = config.learning_rate, max(steps - config.warmup_steps, 1)
    decays = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
    }
    if config.decay not in DECAYS:
        raise UsageError(_unknown("optim.decay", config.decay, DECAYS))
    after = decays[config.decay]()
    if not config.warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, config.warmup_steps), after], [config.warmup_steps])


def _unknown(field, name, known):
    return f"{field}={name}: unknown{suggestion(name, known)}; known: {', '.join(known)}"
