"""The training step of `ser_jax/train.py` on one given batch, and weights to compare nets by: shared by the step timings."""


def training_step(network, batch, settings=None):
    """A function that takes one step of `network` (a ser_jax.network.Network) on `batch` (arrays on the host), as the loop
    of `ser_jax/train.py` does (donated state), waits for it and returns the loss. `settings`: config.Optim, default Adam."""
    import jax
    import jax.numpy as jnp
    import optax

    from ser_jax import optim, sharding
    from ser_jax.config import Optim

    mesh, transform = sharding.mesh(), optim.build(settings or Optim(), 1000)

    def init():
        params, stats = network.init(0)
        return {"params": params, "stats": stats, "opt": transform.init(params), "step": jnp.zeros((), jnp.int32)}

    def step(state, batch):
        key = jax.random.fold_in(jax.random.key(0), state["step"])
        gradient_of = jax.value_and_grad(network.loss, has_aux=True)
        (loss, (metrics, stats)), gradient = gradient_of(state["params"], state["stats"], batch, key)
        update, opt = transform.update(gradient, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], update)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(gradient), **metrics}
        return {"params": params, "stats": stats, "opt": opt, "step": state["step"] + 1}, metrics

    replicated = sharding.replicated(mesh)
    step = jax.jit(step, donate_argnums=0, out_shardings=replicated)
    kept = {"state": jax.jit(init, out_shardings=replicated)()}

    def run():
        kept["state"], metrics = step(kept["state"], sharding.put(batch, mesh))
        jax.block_until_ready(kept["state"])
        return float(metrics["loss"])

    return run


def generic(network, seed):
    """Parameters and statistics of `network` with nothing left at 0 or 1, so that a part that is not copied shows."""
    import jax
    import numpy as np

    random = np.random.default_rng(seed)
    params, stats = jax.tree.map(np.asarray, network.init(seed))
    params = jax.tree.map(lambda p: (p + 0.1 * random.standard_normal(p.shape) if p.ndim == 1 else p).astype(p.dtype), params)
    return params, jax.tree.map(
        lambda s: (s + random.uniform(0, 0.5, s.shape)).astype(s.dtype) if s.dtype == np.float32 else s, stats)
