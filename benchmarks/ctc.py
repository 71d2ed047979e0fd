"""Is the CTC loss of ser_jax, with its gradient, as quick as that of PyTorch on the same machine?

Protocol: logits of 28 symbols, 16 × 800 frames of different valid lengths, 75–150 labels each; the mean loss and its
gradient with respect to the logits. ser_jax: the loss of the CTC task (optax.ctc_loss), compiled; PyTorch: log_softmax and
ctc_loss. One core for both unless --threads says otherwise. First loss and gradient are compared.

The last line is the ratio to PyTorch. Under 1, ser_jax is faster.

    python benchmarks/ctc.py
"""

import argparse
from pathlib import Path

import timing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=800)
    parser.add_argument("--labels", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1, help="cores for both (default: 1)")
    parser.add_argument("--quick", action="store_true", help="two short sequences, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax"])
    if args.quick:
        args.batch, args.frames, args.labels, args.rounds = 2, 40, 10, 2

    examples = sequences(args.batch, args.frames, args.labels)
    candidates = {"ser_jax": of_ser_jax(*examples), "torch": of_torch(*examples, threads)}
    check_same(candidates["ser_jax"](), candidates["torch"]())
    seconds = timing.interleaved(candidates, args.rounds)
    median, by = timing.medians(seconds), timing.ratio(seconds, "ser_jax", "torch")
    low, high = timing.spread(seconds, "ser_jax", "torch", "cpu")
    print(f"loss and gradient of {args.batch} × {args.frames} frames, up to {args.labels} labels, {args.rounds} rounds; "
          f"quartiles of the CPU ratio {low:.3f}–{high:.3f}")
    timing.report(
        facts, ["loss and gradient", "wall ms", "CPU ms"],
        [[name, *(f"{median[name][clock] * 1e3:.1f}" for clock in timing.CLOCKS)] for name in candidates],
        {"ser_jax / torch, wall": by["wall"], "ser_jax / torch, CPU": by["cpu"]},
        args.json, batch=args.batch, frames=args.frames, labels=args.labels)


def sequences(batch, frames, labels):
    """(f32[B, F, K] logits, bool[B, F] mask, int32[B, L] labels, int32[B] their number)."""
    import numpy as np

    from ser_jax.tasks import alphabet

    random = np.random.default_rng(0)
    logits = random.standard_normal((batch, frames, alphabet.SIZE)).astype(np.float32)
    lengths = np.linspace(frames * 3 // 4, frames, batch).round().astype(int)
    counts = np.linspace(labels // 2, labels, batch).round().astype(np.int32)
    symbols = random.integers(0, alphabet.BLANK, (batch, labels)).astype(np.int32)
    return logits, np.arange(frames) < lengths[:, None], symbols, counts


def of_ser_jax(logits, mask, labels, counts):
    """A function that returns (loss, gradient) as numpy arrays."""
    import jax
    import numpy as np

    from ser_jax.tasks.ctc import CTCConfig

    task, batch = CTCConfig().build(), {"labels": labels, "num_labels": counts}
    both = jax.jit(jax.value_and_grad(lambda logits, batch: task.loss({"logits": logits, "mask": mask}, batch)[0]))
    return lambda: jax.tree.map(np.asarray, both(logits, batch))


def of_torch(logits, mask, labels, counts, threads):
    """The same in PyTorch."""
    import torch
    from torch_wavenet import ctc_loss

    from ser_jax.tasks import alphabet

    torch.set_num_threads(threads)
    frames, labels, counts = (torch.from_numpy(array).long() for array in (mask.sum(1), labels, counts))

    def call():
        variable = torch.from_numpy(logits).requires_grad_()
        loss = ctc_loss(variable, frames, labels, counts, alphabet.BLANK)
        loss.backward()
        return loss.detach().numpy(), variable.grad.numpy()

    return call


def check_same(own, peer):
    """Ends the benchmark unless the losses agree to 1e-5 (relative) and the gradients to 5e-3 of the largest element.

    (Both gradients are differences of log-likelihoods of some thousand in float32.)
    """
    import numpy as np

    loss = abs(float(own[0]) / float(peer[0]) - 1)
    gradient = float(np.abs(own[1] - peer[1]).max() / np.abs(peer[1]).max())
    print(f"same loss: relative difference {loss:.1e}; gradient: {gradient:.1e} of the largest element")
    if loss > 1e-5 or gradient > 5e-3:
        raise SystemExit("not the same loss")


if __name__ == "__main__":
    main()
