"""Shared by the benchmarks: interleaved rounds, medians of per-round ratios, machine facts, synthetic corpora.

The candidates of a comparison are called in turn, A B C, C A B, …, in one process with their programs compiled before the
first round. A ratio is the median of the ratios within the rounds, so that a slow minute of a shared machine falls on
both sides. Two clocks: wall time, and CPU time of the process (which a busy neighbour hardly moves, but which counts the
spinning of idle threads too: with --threads 1 the two agree on a quiet machine).
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

CLOCKS = ("wall", "cpu")


def pin(threads):
    """Binds the process to its first `threads` cores (None = all it may use); call before importing jax or torch.

    Returns the number of cores. XLA and PyTorch both size their pools by it (PyTorch: `torch.set_num_threads`, which the
    caller does).
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    threads = min(threads or len(cores), len(cores))
    if threads < len(cores):
        os.sched_setaffinity(0, cores[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads


def interleaved(candidates, rounds, warmup=1):
    """Times candidates in turn.

    Args:
      candidates: {name: function without arguments that returns when its work is done}.
      rounds: timed rounds; in each, every candidate runs once, and another one begins.
      warmup: calls of each before the first round (compilation).

    Returns:
      {clock: {name: float64[rounds]}}, seconds.
    """
    names = list(candidates)
    for name in names:
        for _ in range(warmup):
            candidates[name]()
    seconds = {clock: {name: np.zeros(rounds) for name in names} for clock in CLOCKS}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            candidates[name]()
            seconds["cpu"][name][turn] = time.process_time() - cpu
            seconds["wall"][name][turn] = time.perf_counter() - wall
    return seconds


def ratio(seconds, a, b):
    """Median over the rounds of a's time by b's, per clock: {"wall": …, "cpu": …}."""
    return {clock: float(np.median(seconds[clock][a] / seconds[clock][b])) for clock in CLOCKS}


def spread(seconds, a, b, clock="wall"):
    """Lower and upper quartile over the rounds of a's time by b's."""
    return np.percentile(seconds[clock][a] / seconds[clock][b], [25, 75]).tolist()


def medians(seconds):
    """{name: {clock: median seconds}}."""
    return {name: {clock: float(np.median(seconds[clock][name])) for clock in CLOCKS} for name in seconds["wall"]}


def machine_facts(threads, packages=()):
    """What a time depends on: processor, threads in use, versions, load average at the start."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = {"python": platform.python_version()}
    for package in ("ser_jax", "jax", "jaxlib", "flax", "numpy", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"cpu": model, "cores": os.cpu_count(), "threads": threads, "versions": versions, "load_start": _load()}


def _load():
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def report(facts, header, rows, ratios, path=None, **more):
    """Prints machine facts, the table, then one line per ratio, the one that answers the question last.

    Args:
      facts: of `machine_facts`.
      header, rows: cells of the table.
      ratios: {what: number}.
      path: also write everything as JSON there, with `more`.
    """
    facts = facts | {"load_end": _load()}
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    print(f"machine: {facts['cpu']}, {facts['cores']} cores, {facts['threads']} in use; {versions}")
    print(f"load average: {facts['load_start']} at the start, {facts['load_end']} at the end")
    text = [[str(cell) for cell in row] for row in [header, *rows]]
    width = [max(len(row[i]) for row in text) for i in range(len(header))]
    for row in text:
        print("  ".join([row[0].ljust(width[0]), *(cell.rjust(w) for cell, w in zip(row[1:], width[1:]))]))
    if path:
        from ser_jax.files import write_json

        table = [dict(zip(header, row)) for row in rows]
        write_json(path, json.loads(json.dumps({"machine": facts, "table": table, "ratios": ratios, **more})))
    for what, value in ratios.items():
        print(f"ratio: {what} = {value:.3f}")


@contextlib.contextmanager
def scratch():
    """Path of a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ser_jax_benchmark_") as folder:
        yield Path(folder)


def synthetic_corpus(folder, utterances, seconds, speakers=4, seed=0):
    """A prepared corpus of tones under noise; returns it as a PreparedCorpus.

    Args:
      folder: gets the audio files and the prepared corpus.
      utterances: number of them, dealt to `speakers` (even ones female and high, odd ones male and low).
      seconds: length of each, or (shortest, longest) for lengths spread evenly between them.
    """
    import csv

    import soundfile

    from ser_jax.corpora import prepare, reader
    from ser_jax.data.prepared import PreparedCorpus

    random = np.random.default_rng(seed)
    shortest, longest = seconds if isinstance(seconds, tuple) else (seconds, seconds)
    source = Path(folder) / "source"
    source.mkdir(parents=True)
    with open(source / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "id", "speaker_id", "gender", "emotion"])
        for number, length in enumerate(np.linspace(shortest, longest, utterances)):
            speaker = number % speakers
            pitch = (110, 210)[speaker % 2 == 0] * random.uniform(0.9, 1.1)
            time_axis = np.arange(round(length * 16_000)) / 16_000
            sound = sum(np.sin(2 * np.pi * k * pitch * time_axis) / k for k in range(1, 9))
            sound = 0.1 * sound + 0.01 * random.standard_normal(len(time_axis))
            soundfile.write(source / f"{number:05d}.wav", sound, 16_000, subtype="PCM_16")
            gender = "female" if speaker % 2 == 0 else "male"
            table.writerow([f"{number:05d}.wav", f"u{number:05d}", f"s{speaker}", gender, ("happy", "sad")[number // speakers % 2]])
    manifest = reader("manifest", source / "manifest.csv", {"licence": "none: synthetic tones"})
    prepare.prepare(manifest, Path(folder) / "prepared", source, workers=1)
    return PreparedCorpus(Path(folder) / "prepared")
