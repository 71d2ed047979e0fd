"""Is a training step of the attentive CNN as fast in ser_jax as in PyTorch on the same machine?

Protocol: the published net beside 1024 values (64,650 parameters), float32, dropout 0.8, three losses, Adam; rows lie
in memory, a batch is gathered by index, normalised and padded, and the parameters are updated. ser_jax runs the program
of `ser_jax/heads/replica_programs.py`, several steps a call; PyTorch runs eagerly with the fused Adam, in three forms
of the net (see torch_attentive_cnn.py). One core for all, unless --threads says otherwise. First the nets are shown to
be the same: equal loss, gradient and inference output from equal weights.

All utterances fill the 748 frames unless --shortest says otherwise: ser_jax leaves out pooling windows of padding,
which saves nothing then. The last line is the ratio to the fastest of PyTorch's forms; under 1, ser_jax is faster.

    python benchmarks/attentive_cnn_step.py
    python benchmarks/attentive_cnn_step.py --shortest 200    # utterances of 2 to 7.5 s
"""

import argparse
from pathlib import Path

import timing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="of one call")
    parser.add_argument("--values", type=int, default=1024, help="of the vector beside the frames")
    parser.add_argument(
        "--shortest", type=int, default=None, help="frames of the shortest utterance (default: the longest)"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="cores for both")
    parser.add_argument("--quick", action="store_true", help="a tiny net, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax"])
    sizes = {}
    if args.quick:
        args.batch, args.steps, args.rounds, args.values = 4, 2, 2, 5
        sizes = {"frames": 200, "bands": 4, "filters": 6}

    import torch
    import torch_attentive_cnn as peer

    torch.set_num_threads(threads)
    net, data, constants = problem(args.batch * args.steps, args.values, args.shortest, **sizes)
    check_same(net, data, constants)
    candidates = {"ser_jax": jax_steps(net, data, constants, args.batch)}
    candidates |= {f"torch {form}": torch_steps(net, data, constants, args.batch, form) for form in peer.FORMS}
    seconds = timing.interleaved(candidates, args.rounds, warmup=2)
    median = timing.medians(seconds)
    clock, what = ("cpu", "CPU") if threads == 1 else ("wall", "wall")
    peers = sorted(list(candidates)[1:], key=lambda name: -median[name][clock])
    by = {name: timing.ratio(seconds, "ser_jax", name)[clock] for name in peers}
    rows = []
    for name in candidates:
        low, high = timing.spread(seconds, name, peers[-1], clock)
        each = {clock: f"{1e3 * value / args.steps:.2f}" for clock, value in median[name].items()}
        rows.append(
            [
                name,
                each["wall"],
                each["cpu"],
                f"{timing.ratio(seconds, name, peers[-1])[clock]:.3f}",
                f"{low:.3f}–{high:.3f}",
            ]
        )
    print(
        f"step of batch {args.batch}, {args.values} values beside {data['frames'].shape[1]} frames of which "
        f"{data['count'].mean() / data['frames'].shape[1]:.0%} are sound, {args.rounds} rounds of {args.steps} steps"
    )
    timing.report(
        facts,
        ["step", "wall ms", "CPU ms", f"{what} ratio", "quartiles"],
        rows,
        {f"ser_jax / {name}, {what}": by[name] for name in peers},
        args.json,
        rounds={clock: {name: list(v) for name, v in by_name.items()} for clock, by_name in seconds.items()},
    )


def problem(count, values, shortest=None, frames=748, bands=26, filters=200, seed=0):
    """(AttentiveNet, data of `count` rows, constants): normal noise, random labels, lengths spread evenly."""
    import numpy as np

    from ser_jax.heads.attentive import AttentiveNet
    from ser_jax.models.attentive_cnn import AttentiveCNNConfig

    config, random = AttentiveCNNConfig(filters), np.random.default_rng(seed)
    windows = config.windows(frames)
    counts = random.permutation(np.linspace(shortest or frames, frames, count).round().astype(np.int32))
    x = (2 + 3 * random.standard_normal((count, frames, bands))).astype(np.float32)
    data = {
        "frames": np.where(np.arange(frames)[:, None] < counts[:, None, None], x, 0),
        "count": counts,
        "windows": np.minimum(config.windows_with_sound(counts), windows).astype(np.int32),
        "vector": np.tanh(random.standard_normal((count, values))).astype(np.float32),
    }
    data |= {
        name: random.integers(0, size, count).astype(np.int32)
        for name, size in {"emotion": 4, "arousal": 3, "valence": 3}.items()
    }
    constants = {
        "frames_shift": 2 * np.ones(bands),
        "frames_scale": np.ones(bands) / 3,
        "vector_shift": np.zeros(values),
        "vector_scale": np.ones(values),
    }
    return (
        AttentiveNet(config, bands, windows, values, 4, 1e-3, 0.2, 0.2),
        data,
        {name: array.astype(np.float32) for name, array in constants.items()},
    )


def jax_steps(net, data, constants, batch):
    """A function that trains a pass over the data: the program of a replica alone, without dev rows."""
    import jax
    import numpy as np

    from ser_jax.heads.replica_programs import keys_of, portions, programs

    start, epoch, _ = programs(net, (jax.devices()[0],), 1)
    data, constants = jax.device_put((data, {name: array[None] for name, array in constants.items()}))
    random, count = np.random.default_rng(0), len(data["count"])
    order = portions([random.permutation(count)], count // batch, batch)
    keys = keys_of(random, 1, count // batch)
    nothing = portions([np.arange(0)], 0, batch)
    state = start(keys[:, 0], constants)

    def run():
        nonlocal state
        state = jax.block_until_ready(epoch(state, constants, keys, *order, *nothing, 1, 0, data))

    return run


def torch_steps(net, data, constants, batch, form):
    """The same in PyTorch."""
    import torch
    import torch_attentive_cnn as peer

    torch.manual_seed(0)
    module, examples = peer.Net(net, form).train(), peer.tensors(data)
    torch.nn.init.uniform_(module.attention, -0.1, 0.1)
    constants = {name: torch.from_numpy(values) for name, values in constants.items()}
    optimiser = torch.optim.Adam(module.parameters(), lr=net.learning_rate, fused=True)
    order = torch.randperm(len(data["count"])).split(batch)

    def run():
        for index in order:
            x, vector, labels = peer.rows(examples, constants, index)
            optimiser.zero_grad()
            peer.loss(module, net, x, vector, labels).backward()
            optimiser.step()

    return run


def check_same(net, data, constants, tolerance=1e-4):
    """Ends the benchmark unless both frameworks compute the same net from the same weights: loss and gradient of the
    convolution without dropout, logits in inference mode, of eight rows."""
    import dataclasses

    import jax
    import numpy as np
    import torch
    import torch_attentive_cnn as peer

    net = dataclasses.replace(net, config=dataclasses.replace(net.config, dropout=0.0))
    data = {name: array[:8] for name, array in data.items()}
    params = net.init(jax.random.key(0), constants)
    params = {
        name: value + 0.05 * jax.random.normal(jax.random.key(i), value.shape)
        for i, (name, value) in enumerate(params.items(), 1)
    }  # no zeros
    weight = np.ones(len(data["count"]), np.float32)
    loss, gradient = jax.jit(jax.value_and_grad(net.loss))(params, constants, data, weight, jax.random.key(1))
    kernel = np.asarray(gradient["kernel"]).reshape(-1, net.config.filters)
    logits = np.asarray(jax.jit(net.outputs)(params, constants, data)["logits"])
    batch = peer.rows(peer.tensors(data), {name: torch.from_numpy(v) for name, v in constants.items()}, slice(None))
    for form in peer.FORMS:
        other = peer.copy_weights(peer.Net(net, form), params)
        sizes = sum(p.numel() for p in other.parameters()), sum(p.size for p in jax.tree.leaves(params))
        with torch.inference_mode():
            other_logits = other.eval()(*batch[:2])[0].numpy()
        other_loss = peer.loss(other.train(), net, *batch)
        other_loss.backward()
        differ = {
            "loss": abs(other_loss.item() / float(loss) - 1),
            "gradient": float(np.linalg.norm(peer.kernel_gradient(other) - kernel) / np.linalg.norm(kernel)),
            "inference output": float(np.abs(other_logits - logits).max() / np.abs(logits).max()),
        }
        print(
            f"same net, {form}: {sizes[0]:,} parameters, relative difference "
            + ", ".join(f"{what} {value:.1e}" for what, value in differ.items())
        )
        if sizes[0] != sizes[1] or max(differ.values()) > tolerance:
            raise SystemExit(f"not the same net: {sizes}, {differ}")


if __name__ == "__main__":
    main()
