"""How much of the forward pass of SampleCNN is left after files, padding, pooling and writing? And against PyTorch's?

Protocol: net A with random weights, whole utterances cut into 5-s pieces, mean+max embedding (1536 values), batch 32.

(a) The jitted forward pass with pooling, of one full batch that lies in memory, against PyTorch in inference mode (`Conv1d`,
and 2-D convolutions in channels-last memory), after the embeddings are shown to agree.

(b) `ser_jax.export.run.export` from a prepared corpus in a temporary folder to a finished .parquet, against the bare
jitted forward pass over the same padded batches, made beforehand. The compiled programs are kept from round to round
(compiling is paid once per export, whatever its size; its time is in the table). The share is bare time / export time.
Padding is inside both; the table tells how much of the batches it is: padded samples at the ends of pieces, and empty
rows of batches that are not full.

The last line is the share of (b); the goal is 0.9.

    python benchmarks/sample_cnn_export.py                              # 128 utterances of 5 s: no padding
    python benchmarks/sample_cnn_export.py --seconds 1:12               # lengths from 1 to 12 s
    python benchmarks/sample_cnn_export.py --corpus prepared/ravdess    # real lengths
"""

import argparse
import contextlib
import os
import time
import types
from pathlib import Path
from unittest import mock

import jax_step
import sample_cnn_step as step
import timing

TOLERANCE = 1e-3  # of an embedding's largest value, between frameworks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=128)
    parser.add_argument("--seconds", default="5", help="length of the utterances, or SHORTEST:LONGEST (default: 5)")
    parser.add_argument("--corpus", type=Path, help="a prepared corpus instead")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores for both (default: all)")
    parser.add_argument("--skip-torch", action="store_true", help="(b) only")
    parser.add_argument("--quick", action="store_true", help="a tiny net, twelve utterances, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    if args.quick:
        args.utterances, args.seconds, args.batch, args.rounds = 12, "0.8:1.1", 4, 2
    facts = timing.machine_facts(threads, [] if args.skip_torch else ["torch"])
    from ser_jax.data.prepared import PreparedCorpus
    from ser_jax.models.sample_cnn import SampleCNNConfig

    config = SampleCNNConfig(stem_filters=8, filters=(8, 16)) if args.quick else SampleCNNConfig()
    lengths = tuple(float(part) for part in args.seconds.split(":"))
    with timing.scratch() as folder:
        if args.corpus:
            corpus = PreparedCorpus(args.corpus)
        else:
            corpus = timing.synthetic_corpus(folder, args.utterances, lengths if len(lengths) > 1 else lengths[0])
        trained = random_checkpoint(config)
        rows, ratios = [], {}
        if not args.skip_torch:
            rows, ratios = forward(trained, args.batch, 1.0 if args.quick else 5.0, args.rounds, threads)
        more, share, padding = end_to_end(trained, corpus, folder, args.batch, args.rounds)
    print(f"{corpus.name}: {len(corpus)} utterances, {corpus.index['num_samples'].sum() / 16_000:.0f} s; of the samples in "
          f"the batches {padding['ends']:.1%} pad the ends of pieces and {padding['rows']:.1%} are empty rows")
    timing.report(facts, ["what", "wall s", "CPU s", "utterances/s"], rows + more, ratios | share, args.json,
                  padding=padding, batch=args.batch)


def random_checkpoint(config):
    """What `export` needs of a checkpoint.Trained, with generic weights."""
    from ser_jax.config import Experiment

    network = step.network(config, augment=False)
    params, stats = jax_step.generic(network, seed=0)
    experiment = Experiment("benchmark", config, network.task.config)
    return types.SimpleNamespace(network=network, params=params, stats=stats, experiment=experiment, hash="0" * 16, step=0,
                                 workdir=Path("benchmark"), synthetic=True, pretrained_on=set())


def forward(trained, batch, seconds, rounds, threads):
    """(a): (rows of the table, ratios)."""
    import numpy as np
    import torch
    import torch_sample_cnn as peer

    from ser_jax import sharding
    from ser_jax.export.embed import Embedder

    torch.set_num_threads(threads)
    speech, _ = step.crops(batch, seconds)
    embedder = Embedder(trained, batch_size=batch, seconds=seconds)
    arrays = {"speech": speech, "length": np.full(batch, speech.shape[1], np.int32)}
    nets = {f"torch {'channels_last' if last else 'Conv1d'}":
            peer.copy_weights(peer.Net(trained.experiment.model, 2, last), trained.params, trained.stats).eval()
            for last in (False, True)}

    def ours():
        return np.asarray(embedder._forward(*embedder._weights, sharding.put(arrays, embedder.devices.mesh))[0])

    def theirs(net):
        with torch.inference_mode():
            features = net(peer.inputs(torch.from_numpy(speech)))[1]
            return torch.cat([features.mean(1), features.amax(1)], 1).numpy()

    expected = ours()
    for name, net in nets.items():
        difference = np.abs(theirs(net) - expected).max() / np.abs(expected).max()
        print(f"same embedding, {name}: relative difference {difference:.1e}")
        if not difference < TOLERANCE:
            raise SystemExit("not the same net")
    timed = timing.interleaved({"ser_jax": ours} | {name: lambda net=net: theirs(net) for name, net in nets.items()}, rounds)
    median = timing.medians(timed)
    fastest = min(nets, key=lambda name: median[name]["wall"])
    rows = [[f"forward, {name}, batch {batch} × {seconds:g} s", f"{m['wall']:.3f}", f"{m['cpu']:.3f}", f"{batch / m['wall']:.2f}"]
            for name, m in median.items()]
    best, natural = timing.ratio(timed, "ser_jax", fastest), timing.ratio(timed, "ser_jax", "torch Conv1d")
    return rows, {f"forward, ser_jax / {fastest} (the faster one), CPU": best["cpu"],
                  f"forward, ser_jax / {fastest} (the faster one), wall": best["wall"],
                  "forward, ser_jax / torch Conv1d, CPU": natural["cpu"],
                  "forward, ser_jax / torch Conv1d, wall": natural["wall"]}


def end_to_end(trained, corpus, folder, batch_size, rounds, seconds=5.0):
    """(b): (rows of the table, the share, shares of padding)."""
    import jax
    import numpy as np

    from ser_jax import sharding
    from ser_jax.data import batches
    from ser_jax.export.embed import Embedder
    from ser_jax.export.run import PART_UTTERANCES, export

    begin = time.perf_counter()
    embedder = Embedder(trained, batch_size=batch_size, seconds=seconds)
    pieces, short = batches.pieces_of(corpus.index["num_samples"], trained.network.task, seconds)
    parts = {}
    for piece in pieces:
        parts.setdefault(piece.row // PART_UTTERANCES, []).append(piece)
    groups = [group for part in parts.values() for group in batches.batched(part, batch_size, seconds)]
    loaded = [batches.load(corpus.speech, *group, batch_size) for group in groups]
    for size in {length for length, _ in groups}:
        example = next(arrays for arrays in loaded if arrays["speech"].shape[1] == size)
        jax.block_until_ready(embedder._forward(*embedder._weights, sharding.put(example, embedder.devices.mesh)))
    compiling = time.perf_counter() - begin

    def bare():
        outputs = [embedder._forward(*embedder._weights, sharding.put(arrays, embedder.devices.mesh)) for arrays in loaded]
        jax.block_until_ready(outputs)

    def whole():
        # Only so that rounds do not compile again: what is timed is the export as it is.
        with mock.patch("ser_jax.export.embed.Embedder", lambda *_: embedder), quiet():
            export(trained, corpus, folder / "features.parquet", batch_size=batch_size, seconds=seconds, max_rejects=1.0)

    timed = timing.interleaved({"bare": bare, "export": whole}, rounds)
    median, utterances = timing.medians(timed), len(corpus) - len(short)
    names = {"bare": f"bare forward pass over {len(groups)} batches, {len({g[0] for g in groups})} shapes",
             "export": "export, prepared corpus to .parquet"}
    rows = [[names[name], f"{m['wall']:.3f}", f"{m['cpu']:.3f}", f"{utterances / m['wall']:.2f}"] for name, m in median.items()]
    rows.append(["compiling and first batches, once", f"{compiling:.3f}", "", ""])
    total = sum(length * batch_size for length, _ in groups)
    filled = sum(length * len(members) for length, members in groups)
    spoken = sum(piece.length for piece in pieces)
    padding = {"ends": (filled - spoken) / total, "rows": (total - filled) / total}
    by = {clock: float(np.median(timed[clock]["bare"] / timed[clock]["export"])) for clock in timing.CLOCKS}
    return rows, {"export, share of the bare forward pass, CPU": by["cpu"],
                  "export, share of the bare forward pass, wall": by["wall"]}, padding


@contextlib.contextmanager
def quiet():
    """The rounds would fill the page with progress lines."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


if __name__ == "__main__":
    main()
