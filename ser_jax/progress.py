"""Progress on stderr: a bar with an ETA on a terminal, a plain line every few seconds elsewhere."""

import sys
import time

from tqdm import tqdm

PLAIN_SECONDS = 10.0


class Progress:
    """Counts work done. Use as a context manager; call `update(n)` as work completes.

    Args:
      total: number of units of work.
      what: what is being done, e.g. "prepare librispeech".
      unit: name of one unit, e.g. "utterances".
      done: units already finished by an earlier, interrupted run.
    """

    def __init__(self, total, what, unit="utterances", done=0):
        self.total, self.what, self.unit = total, what, unit
        self._done = self._first = done
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, unit=f" {unit}", initial=done, file=sys.stderr, smoothing=0.1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._bar is not None:
            self._bar.close()
        elif exc[0] is None:
            self._line(time.monotonic())

    def update(self, n=1):
        self._done += n
        if self._bar is not None:
            self._bar.update(n)
            return
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            self._line(now)

    def _line(self, now):
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        left = f", {format_seconds((self.total - self._done) / rate)} left" if rate and self._done < self.total else ""
        print(f"{self.what}: {self._done}/{self.total} {self.unit}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)


def format_seconds(seconds):
    """75 -> '1m15s', 3700 -> '1h01m'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
