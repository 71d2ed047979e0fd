"""Is a training step of the recurrent autoencoder as fast in ser_jax as in PyTorch on the same machine?

Protocol: the published net (2 × 256 GRU, bidirectional decoder, 2,659,968 parameters), float32, dropout 0.2, RMSE, Adam; a
batch of spectrograms on the host in, all frames valid, the front end left out on both sides; parameters updated and the
loss on the host out. ser_jax runs the step of `ser_jax/train.py` (`Network.loss`, optax, donated state, masks included);
PyTorch runs eagerly, in two forms: `nn.GRU`, whose reset gate acts after the recurrent product (another function, as much
work), and TensorFlow 1's cell as ser_jax has it, step by step; both with the fused Adam. Both see the same cores. First
ser_jax and the second form are shown to be the same net: equal loss, gradient and representation from equal weights.

The last line is the ratio to the faster of the two forms, in CPU time on one core and in wall time on several; the lines
before have the other ratios. Under 1, ser_jax is faster; the goal is 0.85.

    python benchmarks/autoencoder_step.py --threads 1                 # 5 s of speech, batch 64, as auDeep trains
    python benchmarks/autoencoder_step.py --threads 1 --batch 16
"""

import argparse
from pathlib import Path

import jax_step
import timing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=124, help="of 40 ms each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tiny net, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax"])
    if args.quick:
        args.batch, args.frames, args.rounds = 2, 12, 2

    from ser_jax.models.autoencoder import AutoencoderConfig

    config = AutoencoderConfig(units=8) if args.quick else AutoencoderConfig()
    check_same(config, threads)
    examples = batch(args.batch, args.frames)
    candidates = {
        "ser_jax": jax_step.training_step(network(config), examples),
        "torch nn.GRU": torch_step(config, examples, threads, tf1=False),
        "torch TF1 cell": torch_step(config, examples, threads, tf1=True),
    }
    seconds = timing.interleaved(candidates, args.rounds, warmup=2)
    print(f"step of batch {args.batch} × {args.frames} frames ({args.frames * 0.04:.1f} s), {args.rounds} rounds")
    timing.report(facts, *comparison(seconds, "step", threads), args.json, batch=args.batch, frames=args.frames,
                  rounds={clock: {name: list(values) for name, values in by_name.items()}
                          for clock, by_name in seconds.items()})


def comparison(seconds, what, threads):
    """(header, rows, ratios of the first candidate to the others, that to the fastest last) of interleaved times."""
    first, *peers = seconds["wall"]
    median = timing.medians(seconds)
    clocks = {"wall": "wall", "cpu": "CPU"} if threads == 1 else {"cpu": "CPU", "wall": "wall"}
    peers.sort(key=lambda name: -median[name][list(clocks)[-1]])
    rows = []
    for name in seconds["wall"]:
        low, high = timing.spread(seconds, name, peers[-1], list(clocks)[-1])
        to = timing.ratio(seconds, name, peers[-1])
        rows.append([name, f"{median[name]['wall']:.3f}", f"{median[name]['cpu']:.3f}", f"{to['wall']:.3f}",
                     f"{to['cpu']:.3f}", f"{low:.3f}–{high:.3f}"])
    by = {name: timing.ratio(seconds, first, name) for name in peers}
    ratios = {f"{first} / {name}, {clock_name}": by[name][clock] for name in peers for clock, clock_name in clocks.items()}
    return [what, "wall s", "CPU s", "wall ratio", "CPU ratio", "quartiles"], rows, ratios


def batch(size, frames, seed=0):
    """Spectrograms in [−1, 1], all frames valid."""
    import numpy as np

    from ser_jax.audio import audeep

    random = np.random.default_rng(seed)
    return {"spectrogram": random.uniform(-1, 1, (size, frames, audeep.BANDS)).astype(np.float32),
            "frames": np.ones((size, frames), bool)}


def network(config):
    from ser_jax.config import Experiment
    from ser_jax.network import Network
    from ser_jax.tasks.reconstruction import ReconstructionConfig

    made = Network(Experiment("benchmark", config, ReconstructionConfig()))
    made.task.inputs = lambda batch: (batch["spectrogram"], batch["frames"])  # spectrograms come in
    return made


def torch_step(config, examples, threads, tf1):
    """A function that takes one step in PyTorch."""
    import torch
    import torch_autoencoder as peer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = peer.Net(config, examples["spectrogram"].shape[-1], tf1).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-7, fused=True)

    def run():
        x = torch.from_numpy(examples["spectrogram"])
        loss = peer.rmse(net(x), x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return run


def check_same(config, threads, tolerance=1e-3):
    """Ends the benchmark unless ser_jax and the form with TensorFlow 1's cell compute the same net from the same, generic
    weights, without dropout: loss, gradient of the encoder's first layer (which all others lie between), representation.
    Of the form with `nn.GRU` the number of parameters is looked at: a second bias per layer more.
    """
    import dataclasses

    import jax
    import numpy as np
    import torch
    import torch_autoencoder as peer

    torch.set_num_threads(threads)
    config = dataclasses.replace(config, dropout=0.0)
    examples, net = batch(2, 20), network(config)
    params, stats = jax_step.generic(net, seed=1)
    (loss, _), gradient = jax.jit(jax.value_and_grad(net.loss, has_aux=True))(params, stats, examples, jax.random.key(0))
    representation = np.asarray(jax.jit(net.apply)(params, stats, examples)["taps"]["representation"][0])[:, 0]
    first = gradient["encoder"]["layer_1"]
    bands = examples["spectrogram"].shape[-1]
    first = np.concatenate([np.asarray(first[name])[:bands] for name in ("gate_kernel", "candidate_kernel")], 1).T

    x, other = torch.from_numpy(examples["spectrogram"]), peer.copy_weights(peer.Net(config, bands, tf1=True), params)
    other_loss = peer.rmse(other(x), x)
    other_loss.backward()
    with torch.inference_mode():
        other_representation = other.encode(x).numpy()
    sizes = [sum(p.numel() for p in form.parameters()) for form in (other, peer.Net(config, bands))]
    expected = sum(p.size for p in jax.tree.leaves(params))
    other_first = other.encoder.layers[0].of_x.weight.grad.numpy()
    differ = {"loss": abs(other_loss.item() / float(loss) - 1),
              "gradient": float(np.linalg.norm(other_first - first) / np.linalg.norm(first)),
              "representation": float(np.abs(other_representation - representation).max())}
    print(f"same net, TF1 cell: {sizes[0]:,} parameters, relative difference "
          + ", ".join(f"{what} {value:.1e}" for what, value in differ.items()))
    if sizes != [expected, expected + 3 * 3 * config.layers * config.units] or max(differ.values()) > tolerance:
        raise SystemExit(f"not the same net: {sizes}, {expected}, {differ}")


if __name__ == "__main__":
    main()
