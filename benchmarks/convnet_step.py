"""Is the ConvNet over windows of frames as fast in ser_jax as in PyTorch on the same machine, in training and inference?

Protocol: the published net (8,621,008 parameters, 144 classes), float32, windows of 31 frames × 40 bands on the host in.
A step: cross-entropy, dropout 0.6, batch-normalisation in training mode, RMSProp (ρ 0.9), parameters updated and the loss
on the host out. ser_jax runs the step as `ser_jax/train.py` does (optax, donated state); PyTorch runs eagerly, maps
channels first or channels last, with the faster (foreach) RMSProp. Inference: logits of the windows on the host. One
candidate more, the dense form, takes an utterance of as many frames and gives what the windows of all of them give. Both
see the same cores. First the nets are shown to be the same: equal loss, gradient and logits from equal weights.

The last line is the ratio of a step to the faster form of PyTorch, in CPU time on one core and wall time on several; the
lines before have the other ratios. Under 1, ser_jax is faster.

    python benchmarks/convnet_step.py --threads 1                   # 256 windows
    python benchmarks/convnet_step.py --threads 1 --batch 128
"""

import argparse
from pathlib import Path

import timing
from autoencoder_step import comparison
from jax_step import training_step

CLASSES = 144


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="windows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tiny net, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax"])
    if args.quick:
        args.batch, args.rounds = 16, 2

    from ser_jax.config import Optim
    from ser_jax.models.convnet import ConvNetConfig

    sizes = {"conv_channels": (4, 8), "dense": (16, 16, 16)} if args.quick else {}
    check_same(ConvNetConfig(**sizes, dropout=0.0), threads)
    config, examples = ConvNetConfig(**sizes), batch(args.batch)
    peers = {"torch": torch_net(config, threads, False), "torch channels_last": torch_net(config, threads, True)}
    step = {"ser_jax": training_step(Frames(config), examples, Optim(name="rmsprop"))}
    step |= {name: torch_step(net, examples) for name, net in peers.items()}
    step_seconds = timing.interleaved(step, args.rounds, warmup=2)
    forward = {"ser_jax": jax_forward(Frames(config), examples)}
    forward |= {name: torch_forward(net, examples) for name, net in peers.items()}
    forward |= {"ser_jax, dense form": dense_forward(Frames(config), args.batch)}
    forward_seconds = timing.interleaved(forward, args.rounds, warmup=2)

    print(f"{args.batch} windows, {args.rounds} rounds")
    header, rows, ratios = comparison(
        {clock: {name: times for name, times in forward_seconds[clock].items() if "dense" not in name}
         for clock in timing.CLOCKS}, "forward", threads)
    ratios = {f"forward, {what}": value for what, value in ratios.items()}
    *_, dense = comparison({clock: {name: forward_seconds[clock][name] for name in reversed(forward)}
                            for clock in timing.CLOCKS}, "forward", threads)
    dense = {f"forward, {what}": value for what, value in dense.items() if "/ ser_jax" not in what}
    header, step_rows, step_ratios = comparison(step_seconds, "step", threads)
    median = timing.medians(forward_seconds)["ser_jax, dense form"]
    header[0] = "what"
    rows = [["step, " + row[0], *row[1:]] for row in step_rows] + [["forward, " + row[0], *row[1:]] for row in rows]
    rows.append(["forward, dense form", f"{median['wall']:.3f}", f"{median['cpu']:.3f}", "", "", ""])
    timing.report(facts, header, rows,
                  dense | ratios | {f"step, {what}": value for what, value in step_ratios.items()},
                  args.json, batch=args.batch,
                  rounds={what: {clock: {name: list(values) for name, values in by_name.items()}
                                 for clock, by_name in seconds.items()}
                          for what, seconds in (("step", step_seconds), ("forward", forward_seconds))})


def batch(size, seed=0):
    """Windows and the classes of their centres."""
    import numpy as np

    random = np.random.default_rng(seed)
    return {"windows": random.standard_normal((size, 31, 40), np.float32),
            "label": random.integers(0, CLASSES, size).astype(np.int32)}


class Frames:
    """The model with cross-entropy over windows, in the form of `ser_jax.network.Network`."""

    def __init__(self, config):
        from flax import nnx

        self.config = config
        self._build = lambda seed: config.build(CLASSES, rngs=nnx.Rngs(seed))
        self._graphdef = nnx.graphdef(nnx.eval_shape(lambda: self._build(0)))

    def init(self, seed):
        from flax import nnx

        _, params, stats = nnx.split(self._build(seed), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def loss(self, params, stats, batch, key):
        import jax.numpy as jnp
        import optax
        from flax import nnx

        model = nnx.merge(self._graphdef, params, stats)
        model.train()
        logits = self._centres(model, batch["windows"], nnx.Rngs(dropout=key))
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))
        return loss, ({}, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))

    def apply(self, params, stats, windows):
        """Logits of windows f32[N, 31, 40]."""
        return self._centres(self._frozen(params, stats), windows, None)

    def everywhere(self, params, stats, frames):
        """Logits of all frames of f32[B, F, 40]."""
        import jax.numpy as jnp

        return self._frozen(params, stats)(frames, jnp.ones(frames.shape[:2], bool))["logits"]

    def _frozen(self, params, stats):
        from flax import nnx

        model = nnx.merge(self._graphdef, params, stats)
        model.eval()
        return model

    def _centres(self, model, windows, rngs):
        import jax.numpy as jnp

        centre = jnp.full((len(windows), 1), self.config.context)
        return model(windows, jnp.ones(windows.shape[:2], bool), centre, rngs=rngs)["logits"][:, 0]


def jax_forward(network, examples):
    import jax
    import numpy as np

    apply, weights = jax.jit(network.apply), network.init(0)
    return lambda: np.asarray(apply(*weights, examples["windows"]))


def dense_forward(network, frames):
    import jax
    import numpy as np

    utterance = np.random.default_rng(0).standard_normal((1, frames, 40), np.float32)
    everywhere, weights = jax.jit(network.everywhere), network.init(0)
    return lambda: np.asarray(everywhere(*weights, utterance))


def torch_net(config, threads, channels_last):
    import torch
    import torch_convnet as peer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return peer.Net(config, CLASSES, channels_last)


def torch_step(net, examples):
    """A function that takes one step in PyTorch."""
    import torch

    optimiser = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.9, eps=1e-7, foreach=True)

    def run():
        net.train()
        logits = net(torch.from_numpy(examples["windows"]))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples["label"]).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return run


def torch_forward(net, examples):
    import torch

    def run():
        net.eval()
        with torch.inference_mode():
            return net(torch.from_numpy(examples["windows"])).numpy()

    return run


def check_same(config, threads, tolerance=1e-3):
    """Ends the benchmark unless both frameworks compute the same net from the same, generic weights, without dropout:
    loss, gradient of the first kernel (which all other layers lie between), logits of windows in inference mode."""
    import jax
    import jax_step
    import numpy as np
    import torch
    import torch_convnet as peer

    torch.set_num_threads(threads)
    network, examples = Frames(config), batch(24, seed=1)
    params, stats = jax_step.generic(network, seed=1)
    (loss, _), gradient = jax.jit(jax.value_and_grad(network.loss, has_aux=True))(params, stats, examples, jax.random.key(0))
    first, logits = np.asarray(gradient["layer_1"]["conv"]["kernel"]), jax_forward_of(network, params, stats, examples)
    size = sum(p.size for p in jax.tree.leaves(params))
    for channels_last in (False, True):
        other = peer.copy_weights(peer.Net(config, CLASSES, channels_last), params, stats)
        other_logits = torch_forward(other, examples)()
        other_loss = torch.nn.functional.cross_entropy(
            other.train()(torch.from_numpy(examples["windows"])), torch.from_numpy(examples["label"]).long())
        other_loss.backward()
        other_first = other.convs[0].weight.grad.permute(2, 3, 1, 0).numpy()
        differ = {"loss": abs(other_loss.item() / float(loss) - 1),
                  "gradient": float(np.linalg.norm(other_first - first) / np.linalg.norm(first)),
                  "logits": float(np.abs(other_logits - logits).max() / np.abs(logits).max())}
        other_size = sum(p.numel() for p in other.parameters())
        print(f"same net, {'channels_last' if channels_last else 'channels first'}: {other_size:,} parameters, relative "
              "difference " + ", ".join(f"{what} {value:.1e}" for what, value in differ.items()))
        if other_size != size or max(differ.values()) > tolerance:
            raise SystemExit(f"not the same net: {size}, {other_size}, {differ}")


def jax_forward_of(network, params, stats, examples):
    import jax
    import numpy as np

    return np.asarray(jax.jit(network.apply)(params, stats, examples["windows"]))


if __name__ == "__main__":
    main()
