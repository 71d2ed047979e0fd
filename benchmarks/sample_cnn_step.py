"""Is a training step of SampleCNN as fast in ser_jax as in PyTorch on the same machine?

Protocol: net A (3,425,538 parameters, biases included), float32, dropout 0.5, batch-normalisation in training mode, Adam;
int16 crops of full length on the host in, parameters updated and the loss on the host out. ser_jax runs the step of
`ser_jax/train.py` (`Network.loss`, optax, donated state); PyTorch runs eagerly, in two forms: `Conv1d`, which is how the
net is usually written, and 2-D convolutions in channels-last memory; both with the fused Adam. By default neither side
augments; with --augment both do (random shift, uniform and normal noise). Both see the same cores. First the nets are
shown to be the same: equal loss, gradient norm and inference output from equal weights, dropout off.

The last line is the ratio to `Conv1d`; the line before, to the faster of the two forms. Under 1, ser_jax is faster.

    python benchmarks/sample_cnn_step.py                 # batch 8, all cores
    python benchmarks/sample_cnn_step.py --threads 1     # one core: the clock of a shared machine
"""

import argparse
from pathlib import Path

import jax_step
import timing

RATE = 16_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a crop")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--augment", action="store_true", help="augment on both sides")
    parser.add_argument("--quick", action="store_true", help="a tiny net, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["torch", "optax"])
    if args.quick:
        args.batch, args.seconds, args.rounds = 2, 0.5, 2

    from ser_jax.models.sample_cnn import SampleCNNConfig

    sizes = {"stem_filters": 8, "filters": (8, 16)} if args.quick else {}
    check_same(SampleCNNConfig(**sizes, dropout=0.0), threads)
    config, speech, label = SampleCNNConfig(**sizes), *crops(args.batch, args.seconds)
    candidates = {
        "ser_jax": jax_step.training_step(network(config, args.augment), batch_of(speech, label)),
        "torch Conv1d": torch_step(config, speech, label, args.augment, threads, channels_last=False),
        "torch channels_last": torch_step(config, speech, label, args.augment, threads, channels_last=True),
    }
    seconds = timing.interleaved(candidates, args.rounds, warmup=2)
    median = timing.medians(seconds)
    fastest = min(list(candidates)[1:], key=lambda name: median[name]["wall"])
    rows = []
    for name in candidates:
        low, high = timing.spread(seconds, name, "torch Conv1d")
        by = timing.ratio(seconds, name, "torch Conv1d")
        rows.append([name, f"{median[name]['wall']:.3f}", f"{median[name]['cpu']:.3f}", f"{by['wall']:.3f}",
                     f"{low:.3f}–{high:.3f}", f"{by['cpu']:.3f}", f"{args.batch / median[name]['wall']:.2f}"])
    best, natural = timing.ratio(seconds, "ser_jax", fastest), timing.ratio(seconds, "ser_jax", "torch Conv1d")
    print(f"step of batch {args.batch} × {args.seconds:g} s, "
          + ("the same augmentation in both" if args.augment else "no augmentation in either") + f", {args.rounds} rounds")
    timing.report(
        facts, ["step", "wall s", "CPU s", "to Conv1d", "quartiles", "CPU to Conv1d", "crops/s"], rows,
        {f"ser_jax / {fastest} (the faster one), CPU": best["cpu"],
         f"ser_jax / {fastest} (the faster one), wall": best["wall"],
         "ser_jax / torch Conv1d, CPU": natural["cpu"],
         "ser_jax / torch Conv1d, wall": natural["wall"]},
        args.json, batch=args.batch, seconds=args.seconds, augment=args.augment,
        rounds={clock: {name: list(values) for name, values in by_name.items()} for clock, by_name in seconds.items()})


def crops(batch, seconds):
    """(int16[batch, T] of tones under noise, int32[batch] labels); every crop is full."""
    import numpy as np

    random = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = random.uniform(90, 250, (batch, 1))
    sound = sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 6)) + 0.2 * random.standard_normal((batch, len(t)))
    return np.rint(sound * 4000).astype(np.int16), (np.arange(batch) % 2).astype(np.int32)


def batch_of(speech, label):
    """A training batch of the gender task."""
    import numpy as np

    return {"speech": speech, "length": np.full(len(speech), speech.shape[1], np.int32), "label": label}


def network(config, augment):
    from ser_jax.config import Experiment
    from ser_jax.network import Network
    from ser_jax.tasks.gender import GenderConfig

    made = Network(Experiment("benchmark", config, GenderConfig(min_samples=config.min_samples)))
    if not augment:
        made.task.augment = lambda batch, key: batch
    return made


def torch_step(config, speech, label, augment, threads, channels_last):
    """A function that takes one step in PyTorch."""
    import torch
    import torch_sample_cnn as peer

    from ser_jax.tasks.gender import GenderConfig

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = peer.Net(config, 2, channels_last).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-7, fused=True)
    task = GenderConfig()

    def run():
        x = torch.from_numpy(speech)
        x = peer.augment(x, task.shift, task.noise) if augment else x.float() / 32768
        logits, _ = net(x - x.mean(1, keepdim=True))
        loss = torch.nn.functional.nll_loss(logits, torch.from_numpy(label).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return run


def check_same(config, threads, tolerance=2e-3):
    """Ends the benchmark unless both frameworks compute the same net from the same, generic weights.

    Compared, dropout off, on two crops: loss and norm of the gradient in training mode, output in inference mode. The
    tolerance is for the gradient: rounding in float32 grows through nine batch-normalisations (5e-4 seen in net A, with
    1e-5 in the loss and 2e-7 in the inference output).
    """
    import jax
    import numpy as np
    import torch
    import torch_sample_cnn as peer

    torch.set_num_threads(threads)
    speech, label = crops(2, 12.5 * config.min_samples / RATE)  # 24 steps for the last batch-normalisation
    batch = batch_of(speech, label)
    net = network(config, augment=False)
    params, stats = jax_step.generic(net, seed=1)
    (loss, _), gradient = jax.jit(jax.value_and_grad(net.loss, has_aux=True))(params, stats, batch, jax.random.key(0))
    norm = float(np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient))))
    logits = np.asarray(jax.jit(net.apply)(params, stats, batch)["logits"])
    for channels_last in (False, True):
        other = peer.copy_weights(peer.Net(config, 2, channels_last), params, stats)
        sizes = sum(p.numel() for p in other.parameters()), sum(p.size for p in jax.tree.leaves(params))
        with torch.inference_mode():
            other_logits = other.eval()(peer.inputs(torch.from_numpy(speech)))[0].numpy()
        other_loss = torch.nn.functional.nll_loss(other.train()(peer.inputs(torch.from_numpy(speech)))[0],
                                                  torch.from_numpy(label).long())
        other_loss.backward()
        # The bias before a batch-normalisation has no gradient but the rounding errors that PyTorch sums up.
        other_norm = float(torch.sqrt(sum((p.grad**2).sum() for p in other.parameters())))
        differ = {"loss": abs(other_loss.item() / float(loss) - 1), "gradient norm": abs(other_norm / norm - 1),
                  "inference output": float(np.abs(other_logits / logits - 1).max())}
        print(f"same net, {'channels_last' if channels_last else 'Conv1d'}: {sizes[0]:,} parameters, relative difference "
              + ", ".join(f"{what} {value:.1e}" for what, value in differ.items()))
        if sizes[0] != sizes[1] or max(differ.values()) > tolerance:
            raise SystemExit(f"not the same net: {sizes}, {differ}")


if __name__ == "__main__":
    main()
