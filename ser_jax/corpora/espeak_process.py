"""Keeps one speaking process of eSpeak NG (`espeak_voice.py`) alive for every process that asks for speech.

It is started by the first request, replaced when it is lost, and ends with the process that started it.
"""

import atexit
import importlib.metadata
import importlib.util
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from ser_jax.errors import UserError

ANSWER_SECONDS = 60.0


def wheel_version():
    """Version of the wheel that brings eSpeak NG. Raises UserError where it is missing."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise UserError("the embedded corpus is spoken by eSpeak NG, which is not installed: pip install 'ser_jax[demo]'")
    return importlib.metadata.version("espeakng-loader")


class _Ended(Exception):
    """The speaking process ended or stopped answering."""


class VoiceProcess:
    """A running `espeak_voice.py` (its docstring describes the frames). Ends with this process."""

    def __init__(self):
        wheel_version()
        if not hasattr(os, "fork"):
            raise UserError("the embedded corpus needs Linux or macOS (each utterance is spoken by a forked process)")
        import espeakng_loader

        from ser_jax.corpora import espeak_voice

        # -P keeps this folder, the script's own, out of the module path. A session of its own: Ctrl-C is for us alone, and
        # `close` reaches the fork that speaks as well.
        command = [sys.executable, "-P", str(Path(espeak_voice.__file__).resolve()),
                   espeakng_loader.get_library_path(), espeakng_loader.get_data_path()]
        self.owner = os.getpid()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        atexit.register(self.close)
        try:
            hello = json.loads(self._read_frame())
        except _Ended as error:
            self.close()
            raise UserError(f"eSpeak NG does not start: {error}; see the lines above") from None
        if "error" in hello:
            self.close()
            raise UserError(f"eSpeak NG does not start: {hello['error']}; reinstall espeakng-loader")
        self.pid, self.sample_rate, self.version = self._process.pid, hello["sample_rate"], hello["version"]

    def say(self, request):
        """Returns ([[label, sample], ...], int16[T])."""
        body = json.dumps(request).encode()
        try:
            self._process.stdin.write(struct.pack("<I", len(body)) + body)
            self._process.stdin.flush()
        except OSError:
            raise _Ended("it ended") from None
        answer, pcm = json.loads(self._read_frame()), self._read_frame()
        if "error" in answer:
            raise UserError(f"eSpeak NG {self.version} cannot say {request}: {answer['error']}")
        return answer["phones"], np.frombuffer(pcm, "<i2")

    def close(self):
        """Ends the process and what it forked."""
        atexit.unregister(self.close)
        if self.owner != os.getpid() or self._process.returncode is not None:  # another process' own, or closed before
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except OSError:
            pass
        self._process.wait()

    def _read_frame(self):
        deadline = time.monotonic() + ANSWER_SECONDS
        (length,) = struct.unpack("<I", self._read(4, deadline))
        return self._read(length, deadline)

    def _read(self, count, deadline):
        file, parts = self._process.stdout.fileno(), []
        while count:
            if not select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise _Ended(f"no answer in {ANSWER_SECONDS:g} s")
            part = os.read(file, count)
            if not part:
                raise _Ended("it ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


_lock = threading.Lock()
_process = None


def speak(text, settings):
    """Says `text` through this process' VoiceProcess, which is started when needed and once more if it was lost.

    Args:
      text: what to say.
      settings: {"voice", "rate", "pitch", "range", "volume"}.

    Returns:
      ([[IPA label, first sample], ...], int16[T], sample rate).

    Raises:
      UserError: no such voice, or the process was lost twice on this text.
    """
    global _process
    with _lock:
        for _ in range(2):
            if _process is None or _process.owner != os.getpid():
                _process = VoiceProcess()
            try:
                return *_process.say({"text": text, **settings}), _process.sample_rate
            except _Ended as error:
                reason = str(error)
                _process.close()
                _process = None
    raise UserError(f"the process of eSpeak NG was lost twice while saying {text!r}: {reason}")
