"""How many times faster than speech is the recognition of phones, and than a NumPy loop over the frames?

Protocol: scores of 144 states (48 phones of 3) and a phone bigram, random; 16 utterances of 200 to 400 frames of 10 ms,
the lengths of read sentences. ser_jax: `viterbi.decode` of the batch, compiled, to states as a numpy array. "numpy":
the textbook search, one utterance and one frame at a time, with NumPy over the 48 × 48 pairs of phones and int16
back-pointers. "numpy, batch": the same for all 16 at once. One core for all unless --threads says otherwise. First the
states of all three are compared: they must be equal. With --align: forced alignment to 40 phones instead.

The last line is the ratio to "numpy". Under 1, ser_jax is faster.

    python benchmarks/viterbi.py
"""

import argparse
from pathlib import Path

import timing

FRAME_SECONDS = 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=400, help="of the longest utterance (default: 400)")
    parser.add_argument("--phones", type=int, default=48)
    parser.add_argument("--align", action="store_true", help="forced alignment instead of recognition")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="cores for all (default: 1)")
    parser.add_argument("--quick", action="store_true", help="two short utterances, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads)
    if args.quick:
        args.batch, args.frames, args.phones, args.rounds = 2, 140, 5, 2

    make = alignment if args.align else recognition
    candidates, audio = make(args.batch, args.frames, args.phones)
    check_same({name: call() for name, call in candidates.items()})
    seconds = timing.interleaved(candidates, args.rounds)
    median, rows = timing.medians(seconds), []
    for name in candidates:
        low, high = timing.spread(seconds, name, "numpy", "cpu")
        rows.append([name, f"{median[name]['wall'] * 1e3:.1f}", f"{median[name]['cpu'] * 1e3:.1f}",
                     f"{timing.ratio(seconds, name, 'numpy')['cpu']:.4f}", f"{low:.4f}–{high:.4f}",
                     f"{audio / median[name]['cpu']:.0f}"])
    what = "alignment" if args.align else "recognition"
    print(f"{what}: {args.batch} utterances, {audio:.1f} s, {3 * args.phones} states, {args.rounds} rounds")
    timing.report(
        facts, [what, "wall ms", "CPU ms", "CPU to numpy", "quartiles", "× real time (CPU)"], rows,
        {f"ser_jax / {name}, {label}": timing.ratio(seconds, "ser_jax", name)[clock]
         for name in reversed([name for name in candidates if name != "ser_jax"])
         for clock, label in (("wall", "wall"), ("cpu", "CPU"))},
        args.json, what=what, batch=args.batch, frames=args.frames, phones=args.phones,
        real_time={name: audio / median[name]["cpu"] for name in candidates})


def recognition(batch, frames, phones):
    """({name: function that returns i32[B, T] states}, seconds of speech)."""
    import jax
    import numpy as np

    from ser_jax.tasks import viterbi

    random, scores, lengths = utterances(batch, frames, phones)
    equal = np.full((phones, 3), np.log(0.5), np.float32)
    follow, start, end = (np.log(random.dirichlet(np.ones(phones), size)).astype(np.float32)
                          for size in (phones, None, None))
    graph = viterbi.PhoneLoop(equal, equal, follow, start, end)
    compiled = jax.jit(viterbi.decode)
    return {
        "ser_jax": lambda: np.asarray(compiled(scores, lengths, graph)[0]),
        "numpy": lambda: np.concatenate([numpy_search(scores[i:i + 1], lengths[i:i + 1], graph) for i in range(batch)]),
        "numpy, batch": lambda: numpy_search(scores, lengths, graph),
    }, float(lengths.sum() * FRAME_SECONDS)


def numpy_search(scores, lengths, graph):
    """i32[B, T] states of the best paths, −1 beyond the length."""
    import numpy as np

    batch, frames, states = scores.shape
    phones, rows = states // 3, np.arange(batch)
    scores, itself = scores.reshape(batch, frames, phones, 3), np.arange(states, dtype=np.int16).reshape(phones, 3)
    best = np.full((batch, phones, 3), -np.inf, np.float32)
    best[:, :, 0] = graph.start + scores[:, 0, :, 0]
    before = np.zeros((frames, batch, phones, 3), np.int16)
    final = np.full(batch, -1)
    for t in range(frames):
        if t:
            pairs = (best[:, :, 2] + graph.leave[:, 2])[:, :, None] + graph.follow
            last = pairs.argmax(1)
            entry = np.take_along_axis(pairs, last[:, None], 1)[:, 0]
            arrive = np.concatenate([entry[..., None], best[..., :2] + graph.leave[:, :2]], 2)
            origin = np.concatenate([(3 * last + 2)[..., None], np.broadcast_to(itself[:, :2], (batch, phones, 2))], 2)
            remain = best + graph.stay
            entered = arrive > remain
            before[t] = np.where(entered, origin, itself)
            best = np.where(entered, arrive, remain) + scores[:, t]
        ending = lengths == t + 1
        if ending.any():
            final[ending] = 3 * (best[ending, :, 2] + graph.leave[:, 2] + graph.end).argmax(1) + 2
    path, state = np.full((batch, frames), -1, np.int32), final
    before = before.reshape(frames, batch, states)
    for t in range(frames - 1, -1, -1):
        valid = t < lengths
        path[:, t] = np.where(valid, state, -1)
        state = np.where(valid, before[t, rows, state], state)
    return path


def alignment(batch, frames, phones):
    """({name: function that returns i32[B, T] places}, seconds of speech)."""
    import jax
    import numpy as np

    from ser_jax.tasks import viterbi

    random, scores, lengths = utterances(batch, frames, phones)
    counts = np.minimum(120, lengths // 2)
    states = (3 * random.integers(0, phones, (batch, 40)).repeat(3, 1) + np.tile(np.arange(3), 40)).astype(np.int32)
    compiled = jax.jit(viterbi.align)

    def by_numpy():
        path = np.full(scores.shape[:2], -1, np.int32)
        for i, (length, count) in enumerate(zip(lengths, counts)):
            own = scores[i][:, states[i, :count]]
            best = np.full(count, -np.inf, np.float32)
            best[0] = own[0, 0]
            entered = np.zeros((length, count), bool)
            for t in range(1, length):
                arrive = np.concatenate([best[:1] - np.inf, best[:-1]])
                entered[t] = arrive > best
                best = np.maximum(arrive, best) + own[t]
            place = count - 1
            for t in range(length - 1, -1, -1):
                path[i, t] = place
                place -= entered[t, place]
        return path

    return {"ser_jax": lambda: np.asarray(compiled(scores, lengths, states, counts)[0]),
            "numpy": by_numpy}, float(lengths.sum() * FRAME_SECONDS)


def utterances(batch, frames, phones):
    """(random generator, f32[B, T, 3 P] scores, i32[B] lengths)."""
    import numpy as np

    random = np.random.default_rng(0)
    scores = (2 * random.standard_normal((batch, frames, 3 * phones))).astype(np.float32)
    return random, scores, np.linspace(frames / 2, frames, batch).astype(np.int32)


def check_same(paths):
    """Ends the benchmark unless all give the same paths."""
    import numpy as np

    for name, path in paths.items():
        different = int((path != paths["numpy"]).sum())
        print(f"same paths, {name}: {(path >= 0).sum()} frames, {different} different")
        if not np.array_equal(path, paths["numpy"]):
            raise SystemExit(f"{name} finds other paths")


if __name__ == "__main__":
    main()
