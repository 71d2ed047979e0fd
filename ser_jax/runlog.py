"""What a training run tells: metrics.jsonl, log lines with rate, waiting share and ETA, TensorBoard, a profiler trace."""

import collections
import contextlib
import json
import math
import sys
import time

from ser_jax.errors import UserError
from ser_jax.files import write_text
from ser_jax.progress import format_seconds
from ser_jax.results import JsonlWriter, read_jsonl

PROFILE_FIRST, PROFILE_LAST = 10, 15


class RunLog:
    """Collects the metrics of the steps and where the time goes; only the lead process writes.

    Args:
      workdir: folder of the run. Lines of metrics.jsonl later than `start` (taken, then lost with the process) are cut.
      settings: config.Train.
      start: steps already taken.
      evaluated: last step whose evaluation counts; a later one will be done again.
      lead: whether this process writes.
    """

    def __init__(self, workdir, settings, start, evaluated, lead):
        self.settings, self.lead, self.workdir = settings, lead, workdir
        self._seconds = collections.Counter()
        self._since, self._since_step, self._finished = time.monotonic(), start, start
        self._begun, self._first, self._profiling = time.monotonic(), start, False
        self._writer = self._board = None
        if lead:
            path = workdir / "metrics.jsonl"
            if path.exists():
                until = {"train": start, "eval": evaluated}
                kept = [record for record in read_jsonl(path) if record["step"] <= until[record["kind"]]]
                write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
            self._writer = JsonlWriter(path)
            if settings.tensorboard:
                self._board = _tensorboard(workdir)

    def say(self, line):
        if self.lead:
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def timed(self, what):
        """Adds the block's time to `what`: data, step, eval or save."""
        begin = time.monotonic()
        yield
        self._seconds[what] += time.monotonic() - begin

    def finish(self, pending):
        """Fetches the metrics of a step that was dispatched, stops at the first value that is not finite, logs.

        Args:
          pending: (step, dict of scalar device arrays), or None. A step finished twice is logged once.
        """
        if pending is None or pending[0] <= self._finished:
            return
        step, metrics = pending
        self._finished = step
        values = {name: float(value) for name, value in metrics.items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                self._stop(step, f"{name} is {values[name]}")
        every = self.settings.log_every
        if (every and step % every == 0) or step == self.settings.steps:
            self._log(step, values)

    def check(self, step, finite):
        """Stops before a state that is not finite is saved: its loss would tell only in the step after.

        Args:
          finite: bool array, of the whole state after `step`.
        """
        if not finite:
            self._stop(step, "the updated model is not finite")

    def _stop(self, step, what):
        raise UserError(f"{what} at step {step}; the last good checkpoint is kept in {self.workdir}. "
                        "Lower optim.learning_rate or set optim.clip_norm, and run in a new --workdir")

    def _log(self, step, values):
        now = time.monotonic()
        elapsed, steps = max(now - self._since, 1e-9), step - self._since_step
        rate = steps * self.settings.batch_size / elapsed
        shares = {f"{what}_share": round(self._seconds[what] / elapsed, 4) for what in ("data", "step", "eval", "save")}
        self.write("train", step, values | {"examples_per_second": round(rate, 3), **shares})
        left = (self.settings.steps - step) * (now - self._begun) / max(step - self._first, 1)
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.say(f"step {step}/{self.settings.steps}  {numbers}  {rate:.1f} examples/s  "
                 f"waiting for data {shares['data_share']:.1%}  ETA {format_seconds(left)}")
        self._since, self._since_step = now, step
        self._seconds.clear()

    def write(self, kind, step, values):
        """One line of metrics.jsonl: kind "train" or "eval"."""
        if not self.lead:
            return
        self._writer.write({"step": step, "kind": kind, **values})
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "eval":
            self.say(f"step {step}  eval  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def profile(self, step):
        """Traces steps 10–15 of this process' run into workdir/profile when asked to."""
        import jax
        taken = step - self._first
        if self.settings.profile and self.lead and taken == PROFILE_FIRST:
            jax.profiler.start_trace(str(self.workdir / "profile"))
            self._profiling = True
        if self._profiling and taken > PROFILE_LAST:
            jax.profiler.stop_trace()
            self._profiling = False
            self.say(f"profile of steps {PROFILE_FIRST}–{PROFILE_LAST}: {self.workdir / 'profile'}")

    def close(self):
        if self._profiling:
            import jax
            jax.profiler.stop_trace()
        if self._writer:
            self._writer.close()
        if self._board:
            self._board.close()


def _tensorboard(workdir):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("train.tensorboard needs the extra: pip install 'ser_jax[tensorboard]'") from None
    return SummaryWriter(str(workdir / "tensorboard"))
