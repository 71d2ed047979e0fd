"""Runs of `ser-jax pretrain` for tests: in this process, in a process of their own, in several; and what they leave."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ser_jax import cli

REPOSITORY = Path(__file__).parents[1]
CONFIG = Path(__file__).parent / "small_config.py"
LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("ser_jax", run_name="__main__")
"""
TIMING = ("examples_per_second", "data_share", "step_share", "eval_share", "save_share")


def arguments(corpora, workdir, *overrides, stop_after=None):
    """Arguments of `ser-jax` that train `small_config.py`; overrides as `--set` takes them."""
    sets = [f"data.corpora={','.join(map(str, corpora))}", *overrides]
    stop = [] if stop_after is None else ["--stop-after", str(stop_after)]
    return ["pretrain", str(CONFIG), "--workdir", str(workdir), *stop, *(word for s in sets for word in ("--set", s))]


def pretrain(corpora, workdir, *overrides, stop_after=None):
    """Trains in this process; returns the exit code."""
    return cli.main(arguments(corpora, workdir, *overrides, stop_after=stop_after))


def start(words, devices=1, processes=None, file_limit=None):
    """Starts `python -m ser_jax WORDS` in a process of its own; returns the Popen.

    Args:
      devices: simulated devices, of each process.
      processes: start that many under launch/local.py.
      file_limit: bytes; a file cannot grow beyond, as on a full disk.
    """
    environment = simulated(devices)
    if processes is None:
        main = ["-m", "ser_jax"] if file_limit is None else ["-c", LIMITED, str(file_limit)]
        command = [sys.executable, *main, *words]
    else:
        launcher = [sys.executable, str(REPOSITORY / "launch" / "local.py"), "-n", str(processes)]
        command = [*launcher, "--devices-per-process", str(devices), "--", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def simulated(devices):
    """Environment of a process that finds the project and that many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags}


def finish(process):
    """Waits for a process of `start`: (exit code, stderr)."""
    _, errors = process.communicate(timeout=900)
    return process.returncode, errors


def wait_for_step(workdir, step, process):
    """Returns as soon as the run has logged `step`."""
    while last_step(workdir) < step:
        assert process.poll() is None, f"ended with {process.returncode}:\n{process.stderr.read()}"
        time.sleep(0.001)


def last_step(workdir):
    """The last step in metrics.jsonl, 0 when there is none."""
    return max((line["step"] for line in metrics(workdir)), default=0)


def metrics(workdir, kind=None):
    """Lines of metrics.jsonl without what depends on the clock; a line that is being written is not there yet."""
    path = Path(workdir) / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [{key: value for key, value in record.items() if key not in TIMING}
            for record in records if kind in (None, record["kind"])]


def curve(workdir):
    """{step: training loss}."""
    return {line["step"]: line["loss"] for line in metrics(workdir, "train")}


def steps_of(workdir):
    """Steps of the committed checkpoints."""
    return sorted(int(path.name) for path in (Path(workdir) / "checkpoints").glob("*") if path.name.isdigit())


def saved_tree(workdir, step=None):
    """The parts of a checkpoint (default: the newest) as arrays on the host, whatever topology saved it."""
    step = max(steps_of(workdir)) if step is None else step
    with ocp.training.Checkpointer(Path(workdir).resolve() / "checkpoints") as checkpointer:
        found = checkpointer.checkpointables_metadata(step).metadata
        target = {part: jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), found[part])
                  for part in ("model", "training")}
        return checkpointer.load_checkpointables(step, target)


def saved_state(workdir, step=None):
    """{name of the leaf: array} of `saved_tree`."""
    leaves = jax.tree_util.tree_flatten_with_path(saved_tree(workdir, step))[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_state(a, b):
    """Same names, types and bits."""
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].dtype != b[name].dtype or not np.array_equal(a[name], b[name])]
    assert not different


def gradients(before, after):
    """{leaf: gradient} of the one step between two states, from Adam's first moment: m' = 0.9 m + 0.1 g."""
    moments = [name for name in before if ".mu" in name or "'mu'" in name]
    assert moments
    return {name: (after[name].astype(np.float64) - 0.9 * before[name].astype(np.float64)) / 0.1 for name in moments}
