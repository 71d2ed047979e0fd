"""Is a training step of the WaveNet recogniser as fast in ser_jax as in PyTorch on the same machine?

Protocol: the published net (3,720,988 parameters), float32, no dropout, batch-normalisation in training mode, CTC, Adam;
a batch of cepstra, all frames valid, and of texts on the host in, parameters updated and the loss on the host out. ser_jax
runs the step of `ser_jax/train.py` (`Network.loss`, optax, donated state, masks included); PyTorch runs eagerly, in two
forms: `Conv1d`, which is how the net is usually written, and 2-D convolutions (1×K) in channels-last memory; both with the
fused Adam. Both see the same cores; all of the machine's unless --threads says otherwise. First the nets are shown to be the
same: equal loss, gradient and inference output from equal weights.

The last line is the ratio to the faster of the two forms, in CPU time on one core and in wall time on several; the lines
before have the other ratios. Under 1, ser_jax is faster.

    python benchmarks/wavenet_step.py                                     # 5 s of speech, batch 8, all cores
    python benchmarks/wavenet_step.py --threads 1                         # one core: the clock of a shared machine
    python benchmarks/wavenet_step.py --threads 1 --frames 800 --batch 4  # 25.6 s of speech
"""

import argparse
from pathlib import Path

import jax_step
import timing

LABELS_PER_FRAME = 0.4  # 12.5 characters a second


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=157, help="of 32 ms each")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tiny net, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax"])
    if args.quick:
        args.batch, args.frames, args.rounds = 2, 40, 2

    from ser_jax.models.wavenet import WaveNetConfig

    config = WaveNetConfig(channels=8, dilations=(1, 2)) if args.quick else WaveNetConfig()
    check_same(config, threads)
    examples = batch(args.batch, args.frames)
    candidates = {
        "ser_jax": jax_step.training_step(network(config), examples),
        "torch Conv1d": torch_step(config, examples, threads, channels_last=False),
        "torch channels_last": torch_step(config, examples, threads, channels_last=True),
    }
    seconds = timing.interleaved(candidates, args.rounds, warmup=2)
    median = timing.medians(seconds)
    clocks = {"wall": "wall", "cpu": "CPU"} if threads == 1 else {"cpu": "CPU", "wall": "wall"}
    peers = sorted(list(candidates)[1:], key=lambda name: -median[name][list(clocks)[-1]])
    by = {name: timing.ratio(seconds, "ser_jax", name) for name in peers}
    rows = []
    for name in candidates:
        low, high = timing.spread(seconds, name, peers[-1], list(clocks)[-1])
        to = timing.ratio(seconds, name, peers[-1])
        rows.append([name, f"{median[name]['wall']:.3f}", f"{median[name]['cpu']:.3f}", f"{to['wall']:.3f}",
                     f"{to['cpu']:.3f}", f"{low:.3f}–{high:.3f}"])
    print(f"step of batch {args.batch} × {args.frames} frames ({args.frames * 0.032:.1f} s), {args.rounds} rounds")
    timing.report(
        facts, ["step", "wall s", "CPU s", "wall ratio", "CPU ratio", "quartiles"], rows,
        {f"ser_jax / {name}, {what}": by[name][clock] for name in peers for clock, what in clocks.items()},
        args.json, batch=args.batch, frames=args.frames,
        rounds={clock: {name: list(values) for name, values in by_name.items()} for clock, by_name in seconds.items()})


def batch(size, frames, seed=0):
    """A training batch of the CTC task, cepstra in place of speech: normal noise and random labels, all frames valid."""
    import numpy as np

    from ser_jax.audio import mfcc
    from ser_jax.tasks import alphabet

    random = np.random.default_rng(seed)
    count = round(frames * LABELS_PER_FRAME)
    return {"cepstra": 20 * random.standard_normal((size, frames, mfcc.COEFFICIENTS)).astype(np.float32),
            "frames": np.ones((size, frames), bool),
            "labels": random.integers(0, alphabet.BLANK, (size, count)).astype(np.int32),
            "num_labels": np.linspace(count // 2, count, size).round().astype(np.int32)}


def network(config):
    from ser_jax.config import Experiment
    from ser_jax.network import Network
    from ser_jax.tasks.ctc import CTCConfig

    made = Network(Experiment("benchmark", config, CTCConfig()))
    made.task.augment = lambda batch, key: batch  # cepstra come in
    return made


def torch_step(config, examples, threads, channels_last):
    """A function that takes one step in PyTorch."""
    import torch
    import torch_wavenet as peer

    from ser_jax.tasks import alphabet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = peer.Net(config, alphabet.SIZE, channels_last).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-7, fused=True)

    def run():
        loss = torch_loss(net, examples)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return run


def torch_loss(net, examples):
    """CTC loss of a torch_wavenet.Net on a batch of numpy arrays."""
    import torch
    import torch_wavenet as peer

    from ser_jax.tasks import alphabet

    logits = net(torch.from_numpy(examples["cepstra"]))
    frames = torch.from_numpy(examples["frames"]).sum(1)
    labels, counts = (torch.from_numpy(examples[name]).long() for name in ("labels", "num_labels"))
    return peer.ctc_loss(logits, frames, labels, counts, alphabet.BLANK)


def check_same(config, threads, tolerance=1e-3):
    """Ends the benchmark unless both frameworks compute the same net from the same, generic weights.

    Compared on two utterances: loss and gradient of the first convolution (which all others lie between) in training mode,
    logits in inference mode.
    """
    import jax
    import numpy as np
    import torch
    import torch_wavenet as peer

    from ser_jax.tasks import alphabet

    torch.set_num_threads(threads)
    examples, net = batch(2, 100), network(config)
    params, stats = jax_step.generic(net, seed=1)
    (loss, _), gradient = jax.jit(jax.value_and_grad(net.loss, has_aux=True))(params, stats, examples, jax.random.key(0))
    first = np.asarray(gradient["front"]["kernel"])[0].T
    logits = np.asarray(jax.jit(net.apply)(params, stats, examples)["logits"])
    for channels_last in (False, True):
        other = peer.copy_weights(peer.Net(config, alphabet.SIZE, channels_last), params, stats)
        sizes = sum(p.numel() for p in other.parameters()), sum(p.size for p in jax.tree.leaves(params))
        with torch.inference_mode():
            other_logits = other.eval()(torch.from_numpy(examples["cepstra"])).numpy()
        other_loss = torch_loss(other.train(), examples)
        other_loss.backward()
        other_first = other.front.weight.grad.numpy().reshape(first.shape)
        differ = {"loss": abs(other_loss.item() / float(loss) - 1),
                  "gradient": float(np.linalg.norm(other_first - first) / np.linalg.norm(first)),
                  "inference output": float(np.abs(other_logits - logits).max() / np.abs(logits).max())}
        print(f"same net, {'channels_last' if channels_last else 'Conv1d'}: {sizes[0]:,} parameters, relative difference "
              + ", ".join(f"{what} {value:.1e}" for what, value in differ.items()))
        if sizes[0] != sizes[1] or max(differ.values()) > tolerance:
            raise SystemExit(f"not the same net: {sizes}, {differ}")


if __name__ == "__main__":
    main()
