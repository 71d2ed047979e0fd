"""Optimisers and learning-rate schedules by name; halving on a plateau and early stopping, as part of the state."""

import jax
import jax.numpy as jnp
import optax

from ser_jax import transfer
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
    "rmsprop": lambda schedule, config: optax.rmsprop(schedule, decay=config.average_decay, eps=config.epsilon),
    "sgd": lambda schedule, config: optax.sgd(schedule, momentum=0.9, nesterov=True),
}
LOWEST = float(jnp.finfo(jnp.float32).min)  # not −∞: a state is checked to be finite before it is saved
DECAYS = ("constant", "cosine", "linear")


def build(config, steps, parameters=()):
    """The gradient transformation of an experiment.

    Args:
      config: config.Optim.
      steps: steps of the whole run; the decays end there.
      parameters: paths of all parameters of the model, frozen ones included, to check `l2_on` by; () = not checked.

    Raises:
      UsageError: unknown optimiser or decay, a pattern of `l2_on` that names nothing.
    """
    if config.name not in OPTIMISERS:
        raise UsageError(_unknown("optim.name", config.name, OPTIMISERS))
    if config.weight_decay and config.name != "adamw":
        raise UsageError(f"optim.weight_decay={config.weight_decay:g} needs optim.name=adamw")
    for name in ("clip_norm", "clip_value", "l2", "plateau"):
        if getattr(config, name) < 0:
            raise UsageError(f"optim.{name}={getattr(config, name):g}: must not be negative; 0 = off")
    for pattern in config.l2_on if config.l2 and parameters else ():
        if not any(transfer.matches(path, [pattern]) for path in parameters):
            raise UsageError(f"optim.l2_on={pattern} names no parameter; there are {', '.join(sorted(parameters)[:12])} …")
    transform = OPTIMISERS[config.name](schedule(config, steps), config)
    before = [optax.add_decayed_weights(2 * config.l2, mask=_named(config.l2_on))] if config.l2 else []  # d(λ w²) = 2 λ w
    before += [optax.clip(config.clip_value)] if config.clip_value else []
    before += [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*before, transform) if before else transform


def _named(patterns):
    """Params -> tree of bool, true where a pattern names the leaf."""
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, leaf: transfer.matches("/".join(key.key for key in path), patterns), params)


def watched(transform):
    """`transform` with a record of the periodic evaluations in its state, which `observe` keeps and `scale` follows."""
    def init(params):
        return {"inner": transform.init(params), "best": jnp.float32(LOWEST), "since_best": jnp.int32(0),
                "since_change": jnp.int32(0), "scale": jnp.float32(1)}

    def update(gradient, state, params=None):
        update, inner = transform.update(gradient, state["inner"], params)
        return jax.tree.map(lambda leaf: leaf * state["scale"], update), state | {"inner": inner}

    return optax.GradientTransformation(init, update)


def observe(state, score, plateau):
    """State of a `watched` optimiser after a periodic evaluation.

    Args:
      score: f32, larger is better.
      plateau: evaluations in a row without a better score after which the learning rate is halved; 0 = never.
    """
    better = score > state["best"]
    since_best, since_change = (jnp.where(better, 0, state[name] + 1) for name in ("since_best", "since_change"))
    halve = (since_change >= plateau) if plateau else jnp.bool_(False)
    return state | {"best": jnp.maximum(score, state["best"]), "since_best": since_best,
                    "since_change": jnp.where(halve, 0, since_change),
                    "scale": jnp.where(halve, state["scale"] / 2, state["scale"])}


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
