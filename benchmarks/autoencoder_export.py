"""Is the vector of the recurrent autoencoder as fast to be had in ser_jax as in PyTorch on the same machine?

Protocol: the published net (2 × 256 GRU, 2,659,968 parameters), float32; a batch of spectrograms on the host in, all frames
valid, the front end left out on both sides; 1024 values per utterance on the host out. ser_jax applies the network as `export`
does (inference mode, masks included; XLA drops the decoder); PyTorch runs the encoder in inference mode, in the two forms of
autoencoder_step.py: `nn.GRU` (another function, as much work) and TensorFlow 1's cell, step by step. Both see the same cores.

The last line is the ratio to the faster of the two forms, in CPU time on one core and in wall time on several. Under 1,
ser_jax is faster; the goal is 0.80.

    python benchmarks/autoencoder_export.py --threads 1
"""

import argparse
from pathlib import Path

import autoencoder_step as step
import jax_step
import timing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, default=124, help="of 40 ms each")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tiny net, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch"])
    if args.quick:
        args.batch, args.frames, args.rounds = 2, 12, 2

    from ser_jax.models.autoencoder import AutoencoderConfig

    config = AutoencoderConfig(units=8) if args.quick else AutoencoderConfig()
    step.check_same(config, threads)
    examples = step.batch(args.batch, args.frames)
    candidates = {"ser_jax": ours(config, examples)} | {
        f"torch {name}": theirs(config, examples, threads, tf1) for name, tf1 in (("nn.GRU", False), ("TF1 cell", True))}
    seconds = timing.interleaved(candidates, args.rounds, warmup=2)
    print(f"batch {args.batch} × {args.frames} frames ({args.frames * 0.04:.1f} s), {args.rounds} rounds")
    timing.report(facts, *step.comparison(seconds, "vectors", threads), args.json, batch=args.batch, frames=args.frames)


def ours(config, examples):
    """A function that gives the vectors of the batch."""
    import jax
    import numpy as np

    network = step.network(config)
    params, stats = jax.device_put(jax_step.generic(network, seed=1))
    vectors = jax.jit(lambda params, stats, batch: network.apply(params, stats, batch)["taps"]["representation"][0][:, 0])
    return lambda: np.asarray(vectors(params, stats, examples))


def theirs(config, examples, threads, tf1):
    import torch
    import torch_autoencoder as peer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = peer.Net(config, examples["spectrogram"].shape[-1], tf1).eval()

    def run():
        with torch.inference_mode():
            return net.encode(torch.from_numpy(examples["spectrogram"])).numpy()

    return run


if __name__ == "__main__":
    main()
