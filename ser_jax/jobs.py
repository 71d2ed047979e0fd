"""Runs chains of verbs: one after the other in this process, or several at a time, each with a device of its own.

A job that is done leaves a mark and is not run again while what it depends on stays the same. An interrupted one is: its
pretraining continues from its last checkpoint.
"""

import concurrent.futures
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ser_jax.errors import DONE, SAVED, WRONG_USE, UserError
from ser_jax.files import canonical_hash, write_json
from ser_jax.progress import format_seconds

CHECK_SECONDS = 0.2


class Stopped(UserError):
    """A verb did not end well; what it belongs to ends with its exit code."""

    def __init__(self, message, code):
        super().__init__(message)
        self.exit_code = code


@dataclasses.dataclass(frozen=True)
class Job:
    """Verbs that belong together.

    Attributes:
      name: as it is told, and of its log.
      verbs: command lines without `ser-jax`, in their order.
      mark: file that says it is done.
      depends: JSON-able; what its result depends on besides the verbs.
      after: jobs that must be done first.
    """

    name: str
    verbs: tuple[str, ...]
    mark: Path
    depends: object = None
    after: tuple["Job", ...] = ()

    @property
    def key(self):
        """Changes with anything that the result depends on."""
        return canonical_hash([self.verbs, self.depends, [job.key for job in self.after]])

    @property
    def done(self):
        try:
            return json.loads(self.mark.read_text(encoding="utf-8"))["key"] == self.key
        except (OSError, ValueError, KeyError, TypeError):
            return False


def verb(line, tolerated=DONE):
    """Runs a verb here; `tolerated`: an exit code that does not end the chain.

    Raises:
      Stopped: it ended with another code.
    """
    from ser_jax import cli

    print(f"\n$ ser-jax {line}", flush=True)
    code = cli.main(shlex.split(line))
    if code not in (DONE, tolerated):
        raise _stopped("the step above", code)


def run_all(jobs, count, logs):
    """Runs jobs, each after those it names.

    Args:
      jobs: list of Job, those that others wait for first.
      count: how many at a time; 1 = in this process.
      logs: folder of one log file for each job, where they are processes of their own.

    Raises:
      Stopped: one of them did not end well; the others are asked to save and to end.
    """
    left = [job for job in jobs if not job.done]
    if len(left) < len(jobs):
        print(f"\n{len(jobs) - len(left)} of {len(jobs)} runs are done already", flush=True)
    if count > 1:
        _Several(left, count, Path(logs)).run()
        return
    meter = _Meter(len(left))
    for job in left:
        job.mark.unlink(missing_ok=True)
        for line in job.verbs:
            verb(line)
        _finish(job)
        meter.tell(job)


def _finish(job):
    write_json(job.mark, {"key": job.key, "verbs": list(job.verbs)})


def _stopped(what, code):
    if code == SAVED:
        how = "saved its state; run the same command again"
    elif code == WRONG_USE:
        how = f"ended with {code}; change the settings, or choose another --out where this one was begun with others"
    else:
        how = f"ended with {code}; mend that; run the same command again"
    return Stopped(f"{what} {how}", code)


class _Meter:
    """A line for each finished job, with what is left."""

    def __init__(self, total):
        self.total, self.done, self.begin = total, 0, time.monotonic()

    def tell(self, job):
        self.done += 1
        each = (time.monotonic() - self.begin) / self.done
        left = f", {format_seconds(each * (self.total - self.done))} left" if self.done < self.total else ""
        print(f"\n{self.done} of {self.total} runs, {job.name} is done, "
              f"{format_seconds(time.monotonic() - self.begin)}{left}", flush=True)


class _Several:
    """Jobs as processes, `count` at a time."""

    def __init__(self, jobs, count, logs):
        self.jobs, self.count, self.logs = jobs, count, logs
        self.meter, self.stop, self.running, self.lock = _Meter(len(jobs)), False, set(), threading.Lock()
        self.asked = set()

    def run(self):
        """All of them; a signal, or one that fails, ends the others when they have saved."""
        self.logs.mkdir(parents=True, exist_ok=True)
        waiting, free, found, failed = list(self.jobs), list(range(self.count)), {}, None
        old = _on_signals(self._ask) if threading.current_thread() is threading.main_thread() else {}
        pending = {id(job) for job in self.jobs}
        try:
            with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
                while waiting or found:
                    ready = [job for job in waiting if not any(id(other) in pending for other in job.after)]
                    while ready and free and not self.stop:
                        job = ready.pop(0)
                        waiting.remove(job)
                        slot = free.pop(0)
                        found[pool.submit(self._one, job, slot)] = (job, slot)
                    if not found:
                        break
                    if self.stop:
                        self._ask()  # also what was just being started when it was asked the first time
                    finished, _ = concurrent.futures.wait(found, CHECK_SECONDS, concurrent.futures.FIRST_COMPLETED)
                    for future in finished:
                        job, slot = found.pop(future)
                        free.append(slot)
                        code = future.result()
                        if code == DONE:
                            pending.discard(id(job))
                            self.meter.tell(job)
                        else:
                            failed = failed or (job, code)
                            self._ask()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        if failed:
            raise _stopped(f"{failed[0].name} (its log: {self.logs / _file(failed[0])})", failed[1])
        if waiting:
            raise _stopped("the chain", SAVED)

    def _one(self, job, slot):
        """Runs the verbs of a job; the exit code of the first that is not DONE, or DONE."""
        job.mark.unlink(missing_ok=True)
        environment, cores = _device(slot, self.count)
        with open(self.logs / _file(job), "a", encoding="utf-8") as log:
            for line in job.verbs:
                log.write(f"\n$ ser-jax {line}\n")
                log.flush()
                with self.lock:
                    if self.stop:
                        return SAVED
                    process = subprocess.Popen([sys.executable, "-m", "ser_jax", *shlex.split(line)], stdout=log, stderr=log,
                                               stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
                    self.running.add(process)
                if cores:
                    try:
                        os.sched_setaffinity(process.pid, cores)
                    except ProcessLookupError:
                        pass
                code = process.wait()
                with self.lock:
                    self.running.discard(process)
                if code != DONE:
                    return SAVED if code < 0 and self.stop else code if code > 0 else 128 - code
        _finish(job)
        return DONE

    def _ask(self, *_):
        """No new ones; those that run save their state and end."""
        self.stop = True
        for process in list(self.running - self.asked):
            self.asked.add(process)  # once: a second signal would end it without saving
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def _on_signals(handler):
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}


def _file(job):
    return job.name.replace("/", "_") + ".log"


def _device(slot, count):
    """(environment, cores or None) of the process in a slot: a GPU where there are some, else a share of the cores."""
    environment = dict(os.environ)
    gpus = _gpus()
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        if count > len(gpus):
            environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / -(-count // len(gpus)):.2f}")
        return environment, None
    if not hasattr(os, "sched_getaffinity"):
        return environment, None
    cores = sorted(os.sched_getaffinity(0))
    first, last = slot * len(cores) // count, (slot + 1) * len(cores) // count
    return environment, cores[first:max(last, first + 1)] or [cores[slot % len(cores)]]


def _gpus():
    """What CUDA_VISIBLE_DEVICES can be set to, one for each GPU; [] where JAX is told to use the CPU."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(number) for number, line in enumerate(found.stdout.splitlines()) if line.startswith("GPU ")]
