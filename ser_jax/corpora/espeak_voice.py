"""The speaking process of the embedded corpus: `espeak.py` runs this file as a process of its own.

eSpeak NG keeps state from one utterance to the next which no public call resets, so the same sentence sounds different the
second time, and it seeds the noise of breathy voices by the clock. Here every utterance is therefore spoken, with a fixed
seed, by a fresh fork of a process that has loaded the library and never spoken. It is a process of its own because JAX runs threads, and a process with threads should not fork.

It imports the standard library only and is run as `python espeak_voice.py LIBRARY DATA`, where both paths come from the
`espeakng_loader` wheel. Frames in both directions are a little-endian uint32 length and that many bytes:
  first, from here: JSON {"sample_rate", "version"} or {"error"}
  request:          JSON {"text", "voice", "rate", "pitch", "range", "volume"}
  answer:           JSON {"phones": [[label, sample], ...]} or {"error"}, then a frame of int16 samples (empty on an error)
It ends when its standard input ends, so it never outlives the process that started it.
"""

import contextlib
import ctypes
import json
import os
import struct
import sys

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT
PHONEME_EVENTS, PHONEME_IPA, DONT_EXIT = 1, 2, 0x8000  # options of espeak_Initialize
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}  # espeak_PARAMETER
EVENT_END, EVENT_PHONEME = 0, 7  # espeak_EVENT_TYPE
CHARS_UTF8, POS_CHARACTER = 1, 1
NOISE_SEED = 1


class EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
                ("user_data", ctypes.c_void_p), ("id", EventId)]


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Voice:
    """The library, loaded and initialised. `say` may be called once in a process."""

    def __init__(self, library, data):
        library, data = os.path.abspath(library), os.path.abspath(data)
        self._library = ctypes.CDLL(library)
        os.chdir(data)  # eSpeak keeps its data path in 160 bytes; "." fits wherever Python is installed
        options = PHONEME_EVENTS | PHONEME_IPA | DONT_EXIT
        self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, b".", options)
        if self.sample_rate <= 0:
            raise RuntimeError(f"eSpeak NG cannot read its data in {data}")
        self._library.espeak_Info.restype = ctypes.c_char_p
        self.version = self._library.espeak_Info(None).decode()
        self._pcm, self._phones = [], []
        self._callback = Callback(self._hear)  # kept: ctypes does not keep it for us
        self._library.espeak_SetSynthCallback(self._callback)

    def _hear(self, samples, count, events):
        if samples and count > 0:
            self._pcm.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type != EVENT_END:
            if events[i].type == EVENT_PHONEME:
                self._phones.append([events[i].id.string.decode("utf-8", "ignore"), events[i].sample])
            i += 1
        return 0

    def say(self, text, voice, **parameters):
        """Returns (int16 samples as bytes, [[IPA label, first sample], ...])."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice!r}")
        for name, value in parameters.items():
            self._library.espeak_SetParameter(PARAMETERS[name], value, 0)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(NOISE_SEED))
        text = text.encode("utf-8")
        self._library.espeak_Synth(text, len(text) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        return b"".join(self._pcm), self._phones


def read_frame(file):
    """The next frame of a buffered binary file, or None at its end."""
    head = file.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    body = file.read(length)
    return body if len(body) == length else None


def write_frame(file, body):
    file.write(struct.pack("<I", len(body)) + body)


def in_fork(voice, request):
    """Speaks `request` in a child. Returns (answer, samples)."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            with os.fdopen(write_end, "wb") as file:
                try:
                    samples, phones = voice.say(**request)
                    answer = {"phones": phones}
                except RuntimeError as error:
                    samples, answer = b"", {"error": str(error)}
                write_frame(file, json.dumps(answer).encode())
                write_frame(file, samples)
        finally:  # nothing may return from here into a second copy of `serve`
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        answer, samples = read_frame(file), read_frame(file)
    _, status = os.waitpid(child, 0)
    if answer is None or samples is None:
        return json.dumps({"error": f"the speaking process ended early (status {status})"}).encode(), b""
    return answer, samples


def serve(library, data):
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not break the frames
    try:
        voice = Voice(library, data)
    except (OSError, RuntimeError) as error:
        write_frame(answers, json.dumps({"error": str(error)}).encode())
        answers.flush()
        return
    write_frame(answers, json.dumps({"sample_rate": voice.sample_rate, "version": voice.version}).encode())
    answers.flush()
    while (request := read_frame(requests)) is not None:
        answer, samples = in_fork(voice, json.loads(request))
        write_frame(answers, answer)
        write_frame(answers, samples)
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        serve(*sys.argv[1:])
