"""How long do 5 folds × 10 seeds of the attentive CNN take, and what does the same loop take in PyTorch?

Protocol: synthetic utterances of 748 frames × 26 bands (all sound unless --shortest says otherwise) beside 1024 values;
five folds (a fifth tested, a tenth of the rest for dev), batch 32, the best epoch by dev UAR kept, test rows predicted
with it. Timed is `ser_jax/heads/replicas.py` with 1, 5 and 50 replicas in a program and with one process per core, and,
as the peer, the loop of torch_attentive_cnn.py, one replica after the other, in one process with all cores and with one
process per core. Each trains one epoch before it is timed (compilation, start of processes). A few epochs stand for the
100 of a real run: the time is per replica and epoch, the one prediction of the test rows included.

The last line is the best of ser_jax to the best of PyTorch, wall time. Under 1, ser_jax is faster.

    python benchmarks/replicas.py                              # 50 replicas, all cores: minutes
    python benchmarks/replicas.py --seeds 1 --threads 1        # one core, CPU time counts: for a busy machine
"""

import argparse
import functools
from pathlib import Path

import attentive_cnn_step
import timing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=650)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--together", type=int, nargs="+", default=[1, 5, 50], help="replicas in a program")
    parser.add_argument(
        "--shortest", type=int, default=None, help="frames of the shortest utterance (default: the longest)"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tiny net, few replicas")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax", "joblib"])
    sizes, values, batch = {}, 1024, 32
    if args.quick:
        args.utterances, args.folds, args.seeds, args.together, values, batch = 20, 2, 1, [1, 2], 3, 4
        sizes = {"frames": 200, "bands": 4, "filters": 6}

    import joblib
    import torch

    from ser_jax.heads.replicas import Schedule, train_replicas

    torch.set_num_threads(threads)
    net, data, constants = attentive_cnn_step.problem(args.utterances, values, args.shortest, **sizes)
    replicas, candidates = make_replicas(args, constants), {}
    for together in sorted({min(count, len(replicas)) for count in args.together}):
        candidates[f"ser_jax, {together} in a program"] = lambda schedule, together=together: train_replicas(
            net, data, replicas, schedule, together
        )
    if threads > 1:
        candidates[f"ser_jax, {threads} processes"] = lambda schedule: train_replicas(
            net, data, replicas, schedule, jobs=threads
        )
    candidates["torch, one process"] = lambda schedule: [
        torch_train(net, data, replica, schedule) for replica in replicas
    ]
    if threads > 1:
        candidates[f"torch, {threads} processes"] = lambda schedule: joblib.Parallel(n_jobs=threads)(
            joblib.delayed(torch_train)(net, data, replica, schedule, True) for replica in replicas
        )

    for run in candidates.values():
        run(Schedule(1, batch))
    candidates = {name: functools.partial(run, Schedule(args.epochs, batch)) for name, run in candidates.items()}
    seconds = timing.interleaved(candidates, args.rounds, warmup=0)
    median = timing.medians(seconds)
    clock, what = ("cpu", "CPU") if threads == 1 else ("wall", "wall")
    best = {
        name: min((other for other in candidates if other.startswith(name)), key=lambda other: median[other][clock])
        for name in ("ser_jax", "torch")
    }
    each = 1e3 / len(replicas) / args.epochs
    rows = [
        [
            name,
            f"{median[name]['wall'] * each:.1f}",
            "-" if name.endswith("processes") else f"{median[name]['cpu'] * each:.1f}",
            f"{timing.ratio(seconds, name, best['torch'])[clock]:.3f}",
        ]
        for name in candidates
    ]
    print(
        f"{len(replicas)} replicas ({args.folds} folds × {args.seeds} seeds), {args.utterances} utterances of which "
        f"{len(replicas[0].train)} are trained on, {args.epochs} epochs; ms per replica and epoch"
    )
    timing.report(
        facts,
        ["loop", "wall ms", "CPU ms", f"{what} ratio"],
        rows,
        {f"{best['ser_jax']} / {best['torch']}, {what}": timing.ratio(seconds, best["ser_jax"], best["torch"])[clock]},
        args.json,
        replicas=len(replicas),
        rounds={clock: {name: list(v) for name, v in by_name.items()} for clock, by_name in seconds.items()},
    )


def make_replicas(args, constants):
    """Every fold with every seed; dev is a tenth of the rows that are not tested."""
    import numpy as np

    from ser_jax.heads.replicas import Replica

    order, made = np.random.default_rng(1).permutation(args.utterances), []
    for seed in range(args.seeds):
        for test in np.array_split(order, args.folds):
            rest = order[~np.isin(order, test)]
            dev = max(len(rest) // 10, 1)
            made.append(Replica(seed, rest[dev:], rest[:dev], test, constants))
    return made


def torch_train(net, data, replica, schedule, alone=False):
    """torch_attentive_cnn.train with the fastest form of the net; on one thread in a process of its own."""
    import os
    import sys

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import torch
    import torch_attentive_cnn as peer

    if alone:
        torch.set_num_threads(1)
    return peer.train(net, data, replica, schedule, "unfold", replica.seed)


if __name__ == "__main__":
    main()
