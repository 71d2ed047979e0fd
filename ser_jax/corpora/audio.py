"""Audio files to 16 kHz mono int16, by libsndfile (WAV, FLAC, NIST SPHERE, OGG, MP3, ...) and soxr."""

import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ser_jax.corpora.schema import SAMPLE_RATE, BadAudio

SUFFIXES = (".wav", ".flac", ".sph", ".nist", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
MIN_SECONDS = 0.1
PAST_END_SECONDS = 0.05  # label files round: a segment may end this much after the audio
UNNORMALISED_PEAK = 8.0  # lossy codecs overshoot +-1 a little; more means integers stored as floats
HEADER_SLACK_BYTES = 4096  # some writers count padding or the header itself into the data size


class AudioFile:
    """An open audio file from which segments are read by seeking. Use as a context manager.

    Args:
      source: a path, or the bytes of a whole file.

    Attributes:
      sample_rate: of the file, in Hz.
      seconds: duration that the file declares.

    Raises:
      BadAudio: when libsndfile cannot open it, or when the data is shorter than the header says.
    """

    def __init__(self, source):
        self._stream = None
        self._file = None
        try:
            self._stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
            if self._stream.seek(0, os.SEEK_END) == 0:
                raise BadAudio("empty file")
            if _is_cut(self._stream):
                raise BadAudio("truncated: the file is shorter than its header says")
            self._stream.seek(0)
            self._file = soundfile.SoundFile(self._stream if isinstance(source, bytes) else os.fspath(source))
        except FileNotFoundError:
            self.close()
            raise BadAudio("no such file") from None
        except OSError as error:
            self.close()
            raise BadAudio(f"unreadable: {error.strerror or error}") from None
        except ValueError as error:  # a NUL in the path, or no numbers in a SPHERE header
            self.close()
            raise BadAudio(f"unreadable: {error}") from None
        except soundfile.LibsndfileError as error:
            self.close()
            raise BadAudio(f"not an audio file that libsndfile reads: {_one_line(error)}") from None
        except BadAudio:
            self.close()
            raise
        self.sample_rate = self._file.samplerate
        self.seconds = self._file.frames / self.sample_rate

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for file in (self._file, self._stream):
            if file is not None:
                file.close()

    def read(self, start=None, end=None):
        """The segment from `start` to `end` (seconds, None = the file's own) as int16[T], 16 kHz mono.

        Channels are averaged. 16-bit 16 kHz mono input passes bit for bit; anything else is resampled by soxr (HQ),
        rounded to the nearest of 65536 levels and clipped there.

        Raises:
          BadAudio: segment outside the file, truncated or damaged data, NaN or infinity, not normalised floats.
        """
        first, count = self._frames(start, end)
        try:
            self._file.seek(first)
            samples = self._file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise BadAudio(f"unreadable or truncated: {_one_line(error)}") from None
        if len(samples) < count:
            raise BadAudio(f"truncated: {len(samples)} of {count} samples could be read")
        if not np.isfinite(samples).all():
            raise BadAudio("NaN or infinite samples")
        if samples.size and np.abs(samples).max() > UNNORMALISED_PEAK:
            raise BadAudio(f"float samples up to {np.abs(samples).max():.4g}: not normalised to -1..1")
        return resample(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1), self.sample_rate)

    def _frames(self, start, end):
        rate, frames = self.sample_rate, self._file.frames
        first = 0 if start is None else round(start * rate)
        last = frames if end is None else round(end * rate)
        if frames < last <= frames + round(PAST_END_SECONDS * rate):
            last = frames
        if (start, end) != (None, None) and not 0 <= first < last <= frames:
            to = "end" if end is None else f"{end:g} s"
            raise BadAudio(f"segment outside the file: {start or 0:g} s to {to} of {self.seconds:.2f} s")
        return first, last - first


def read(source, start=None, end=None):
    """Reads a path or the bytes of a file as int16[T] at 16 kHz mono; see `AudioFile.read`."""
    with AudioFile(source) as file:
        return file.read(start, end)


def resample(mono, rate):
    """int16[T] at 16 kHz of float32[S] in -1..1 at `rate` Hz, as `AudioFile.read` makes it."""
    if rate != SAMPLE_RATE and mono.size:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    return np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)


def check(speech):
    """Raises BadAudio when int16[T] `speech` at 16 kHz holds nothing to learn from: empty, constant, too short."""
    if speech.size == 0:
        raise BadAudio("empty: no samples")
    if speech.size < MIN_SECONDS * SAMPLE_RATE:
        raise BadAudio(f"too short: {speech.size / SAMPLE_RATE:.3f} s (shortest: {MIN_SECONDS} s)")
    low, high = speech.min(), speech.max()
    if low == high:
        raise BadAudio("silent: all samples are zero" if low == 0 else f"clipped to constant: all samples are {low}")


def _is_cut(stream):
    """Whether a RIFF or NIST SPHERE file ends before the data that its header declares.

    libsndfile shortens such files silently; for the other formats it returns fewer samples or fails, see `read`.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(1024)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            name, length = struct.unpack("<4sI", stream.read(8))
            if name == b"data":
                # programs that write to a pipe cannot know the length and leave a huge one
                return length < 0x7FFF0000 and position + 8 + length > size + HEADER_SLACK_BYTES
            position += 8 + length + length % 2
        return True
    if head[:7] == b"NIST_1A":
        fields = dict(re.findall(rb"(\w+) -i (\d+)", head))
        header = int(head[8:16].strip() or 1024)
        names = (b"sample_count", b"channel_count", b"sample_n_bytes")
        declared = int(np.prod([int(fields.get(name, 1)) for name in names])) if names[0] in fields else 0
        pcm = b"shorten" not in head
        return pcm and header + declared > size + HEADER_SLACK_BYTES
    return False


def _one_line(error):
    return " ".join(error.error_string.split()).removeprefix("Error : ")


def files_below(folder):
    """Audio files below `folder` in an order that does not depend on the file system; links to folders are followed."""
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.realpath(parent) in seen:  # a link to a folder above
            folders[:] = []
            continue
        seen.add(os.path.realpath(parent))
        found += [Path(parent, name) for name in names
                  if not name.startswith(".") and name.lower().endswith(SUFFIXES)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
