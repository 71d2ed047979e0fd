"""A run that was stopped, however it was stopped, continues as if it never had been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import training
from training import (
    arguments,
    assert_same_state,
    curve,
    finish,
    gradients,
    metrics,
    pretrain,
    saved_state,
    start,
    steps_of,
)

from ser_jax import cli

BRANCH, END = 5, 20  # steps at which a run goes on elsewhere, and at which it ends
EVERY_STEP = ("train.save_every=1", "train.keep=1000", "train.eval_every=0")


@pytest.fixture(scope="module")
def stopped(two_corpora, uninterrupted, tmp_path_factory):
    """Three runs that go on side by side until each is stopped in its way: {way: (workdir, exit code, stderr)}."""
    root = tmp_path_factory.mktemp("stopped")
    step = random.SystemRandom().randrange(8, 20)
    saves_often = ["train.save_every=3"]
    ways = {
        "kill": ([], signal.SIGKILL, lambda run: training.last_step(run) >= step),
        "terminate": (["data.workers=2"], signal.SIGTERM, lambda run: training.last_step(run) >= step),
        "kill while saving": (saves_often, signal.SIGKILL, lambda run: steps_of(run) and unfinished(run)),
    }
    running = {way: start(arguments(two_corpora, root / way, *extra)) for way, (extra, *_) in ways.items()}
    waiting = dict(ways)
    while waiting:
        for way, (_, number, is_time) in list(waiting.items()):
            assert running[way].poll() is None, running[way].stderr.read()
            if is_time(root / way):
                running[way].send_signal(number)
                del waiting[way]
        time.sleep(0.001)
    return {way: (root / way, *finish(process)) for way, process in running.items()}


def unfinished(workdir):
    """What a save that is not committed has written."""
    return sorted(path.name for path in (workdir / "checkpoints").glob("*tmp*"))


def assert_as_uninterrupted(workdir, uninterrupted):
    assert metrics(workdir) == metrics(uninterrupted)
    assert steps_of(workdir) == steps_of(uninterrupted)
    assert_same_state(saved_state(workdir), saved_state(uninterrupted))


@pytest.mark.parametrize("way", ["kill", "terminate"])
def test_a_stopped_run_continues_bit_for_bit(way, stopped, two_corpora, uninterrupted, tmp_path):
    stopped_workdir, code, errors = stopped[way]
    assert code == {"kill": -signal.SIGKILL, "terminate": 75}[way], errors
    workdir = shutil.copytree(stopped_workdir, tmp_path / "run")
    assert 0 < len(metrics(workdir)) < len(metrics(uninterrupted))
    if way == "terminate":
        assert f"saved at step {max(steps_of(workdir))}: " in errors
    assert pretrain(two_corpora, workdir) == 0
    assert_as_uninterrupted(workdir, uninterrupted)


def test_a_kill_while_saving_leaves_the_earlier_checkpoint(stopped, two_corpora, uninterrupted, tmp_path, capsys):
    stopped_workdir, code, errors = stopped["kill while saving"]
    assert code == -signal.SIGKILL, errors
    workdir = shutil.copytree(stopped_workdir, tmp_path / "run")
    leftovers = unfinished(workdir)
    assert leftovers and steps_of(workdir)
    assert cli.main(["evaluate", str(workdir), "--step", "last"]) == 0
    assert unfinished(workdir) == leftovers  # only training cleans: the run may be going on
    assert pretrain(two_corpora, workdir) == 0
    assert not unfinished(workdir)
    assert_as_uninterrupted(workdir, uninterrupted)


def test_stops_where_an_evaluation_is_due_and_evaluations_between(two_corpora, uninterrupted, tmp_path, capsys):
    workdir = tmp_path / "run"
    for _ in range(2):  # before the first step, as a job does that is pre-empted while it compiles
        assert pretrain(two_corpora, workdir, stop_after=0) == 75
    assert steps_of(workdir) == [0]
    assert pretrain(two_corpora, workdir, stop_after=10) == 75
    assert not metrics(workdir, "eval")  # saved at once, not after an evaluation that may take minutes
    assert cli.main(["evaluate", str(workdir), "--step", "last"]) == 0
    assert pretrain(two_corpora, workdir, stop_after=1) == 75
    assert [line["step"] for line in metrics(workdir, "eval")] == [10]
    assert pretrain(two_corpora, workdir) == 0
    assert_as_uninterrupted(workdir, uninterrupted)


def test_a_finished_run_is_left_as_it_is(two_corpora, uninterrupted, tmp_path):
    workdir = shutil.copytree(uninterrupted, tmp_path / "run")
    assert pretrain(two_corpora, workdir) == 0
    assert_as_uninterrupted(workdir, uninterrupted)


@pytest.mark.parametrize("steps", [10, 12], ids=["that is replaced", "before"])
def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_stays(two_corpora, tmp_path, steps):
    """After 10 steps an evaluation was due: it is made up for, and the checkpoint is replaced by one that has its scores."""
    workdir = tmp_path / "run"
    assert pretrain(two_corpora, workdir, stop_after=steps) == 75
    before, state = max(steps_of(workdir)), saved_state(workdir)
    code, errors = finish(start(arguments(two_corpora, workdir), file_limit=40_000))  # too little for a checkpoint alone
    assert code == 1
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"ser-jax pretrain: no space left while saving to {workdir}")
    assert max(steps_of(workdir)) == before == steps
    assert_same_state(saved_state(workdir), state)
    assert not list(workdir.glob(".checkpoints*"))


# -------------------------------------------------------------------- another topology
@pytest.fixture(scope="module")
def topologies(two_corpora, tmp_path_factory):
    """Workdirs of runs of END steps with a checkpoint at each: on 1 and 8 devices, and continued elsewhere at BRANCH."""
    root = tmp_path_factory.mktemp("topologies")
    assert pretrain(two_corpora, root / "1", *EVERY_STEP, stop_after=END) == 75

    def side_by_side(steps, *runs):
        running = [start(arguments(two_corpora, root / name, *EVERY_STEP, *overrides, stop_after=steps), devices)
                   for name, devices, *overrides in runs]
        for process in running:
            code, errors = finish(process)
            assert code == 75, errors

    side_by_side(END, ("8", 8))
    branch(root / "8", root / "8 to 2")
    branch(root / "8", root / "8 to fsdp")
    side_by_side(END - BRANCH, ("8 to 2", 2), ("8 to fsdp", 8, "train.sharding=fsdp"))
    return root


def branch(workdir, to):
    """A copy of a run as it was after BRANCH steps."""
    shutil.copytree(workdir, to)
    for step in steps_of(to):
        if step > BRANCH:
            shutil.rmtree(to / "checkpoints" / str(step))


def assert_continues(branched, origin, topologies):
    """Restored state bit-equal, first loss equal to rounding, later losses within the spread of uninterrupted runs.

    The first loss depends on the restored state, on the batch and on all random numbers of the step. The gradients that
    Adam got are compared as a whole; `gradients_in_float64.py` says why no closer, and compares them leaf by leaf.
    """
    first = BRANCH + 1
    losses, expected = curve(branched), curve(origin)
    assert [step for step in losses if step <= BRANCH] == list(range(1, first))
    assert losses[first] == pytest.approx(expected[first], rel=1e-6)
    before = saved_state(origin, BRANCH)
    assert_same_state(saved_state(branched, BRANCH), before)
    now, then = (gradients(before, saved_state(run, first)) for run in (branched, origin))
    assert sum(np.any(leaf != 0) for leaf in then.values()) > 20
    assert norm({name: now[name] - then[name] for name in then}) <= 1e-2 * norm(then)
    curves = [curve(topologies / devices) for devices in ("1", "8")]
    spread = max(abs(a[step] - b[step]) for a in curves for b in curves for step in range(1, END + 1))
    for step in range(first, max(losses) + 1):
        assert min(abs(losses[step] - other[step]) for other in curves) <= spread, step


def norm(leaves):
    return np.sqrt(sum(np.square(leaf).sum() for leaf in leaves.values()))


@pytest.mark.parametrize("name", ["8 to 2", "8 to fsdp"])
def test_a_run_continues_on_another_topology(name, topologies):
    assert_continues(topologies / name, topologies / "8", topologies)
    assert max(steps_of(topologies / name)) == END


def test_fsdp_splits_large_parameters_and_their_moments(topologies):
    assert (split_leaves(topologies / "8"), split_leaves(topologies / "8 to fsdp")) == (0, 3)


def split_leaves(workdir):
    """Number of arrays of the newest checkpoint that lie split over the devices."""
    files = workdir.joinpath("checkpoints", str(max(steps_of(workdir)))).glob("*/_sharding")
    shardings = [json.loads(text) for file in files for text in json.loads(file.read_text()).values()]
    return sum("data" in sharding["partition_spec"] for sharding in shardings)


@pytest.mark.slow
def test_the_gradient_of_the_next_step_is_the_same_on_1_2_and_8_devices(topologies):
    script = Path(__file__).parent / "gradients_in_float64.py"
    command = [sys.executable, str(script), str(topologies / "1"), str(BRANCH)]
    environment = {**training.simulated(8), "JAX_ENABLE_X64": "1"}
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert found["leaves"] > 20 and max(found["worst"].values()) < 1e-11, found


def test_two_processes_continue_a_run_of_one_and_save_one_agreed_step(topologies, two_corpora):
    workdir = topologies / "1 to 2 processes"
    branch(topologies / "1", workdir)
    words = arguments(two_corpora, workdir, *EVERY_STEP)
    launcher = start(words, processes=2)
    while max(steps_of(workdir)) < BRANCH + 3:
        assert launcher.poll() is None, launcher.stderr.read()
        time.sleep(0.01)
    os.kill(processes_of(launcher)[1], signal.SIGTERM)  # as a scheduler that takes one node away
    code, errors = finish(launcher)
    assert code == 75, errors
    agreed = max(steps_of(workdir))
    assert f"[0] saved at step {agreed}: " in errors and "2 cpu devices, continues at step 5" in errors
    code, errors = finish(start([*words, "--stop-after", "2"], processes=2))
    assert code == 75 and f"continues at step {agreed}" in errors, errors
    assert max(steps_of(workdir)) == agreed + 2
    assert [line["step"] for line in metrics(workdir, "train")] == list(range(1, agreed + 3))
    assert_continues(workdir, topologies / "1", topologies)


def processes_of(launcher):
    """Process ids of a launch/local.py run, in the order of their numbers."""
    found = subprocess.run(["pgrep", "-P", str(launcher.pid), "-f", "ser_jax pretrain"], capture_output=True, check=True)
    return sorted(map(int, found.stdout.split()))
