"""A miniature TIMIT in the layout of LDC93S1, from synthetic signals: voiced phones hum, others hiss, h# is silent."""

import numpy as np
from official_archives import sphere

SPEAKERS = {  # speaker: folder; two of the development list, one of the core test, one of neither
    "FCJF0": "TRAIN/DR1", "MDAC0": "TRAIN/DR1", "MARC0": "TRAIN/DR2",
    "FAKS0": "TEST/DR1", "MMDB1": "TEST/DR1", "MDAB0": "TEST/DR1", "MSJS1": "TEST/DR1"}
SENTENCES = ("SA1", "SI648", "SX37")
PHONES = ("h#", "sh", "iy", "q", "hv", "ae", "dcl", "d", "y", "axr", "dcl", "jh", "s", "ux", "h#")
SILENT, HISSING = ("h#", "dcl"), ("sh", "s", "jh", "d", "q")
LENGTH = 800  # samples of a phone, the last one: half of it


def segments(sentence="SX37"):
    """[(label, start, end)], shifted a little from sentence to sentence."""
    shift = 10 * SENTENCES.index(sentence)
    starts = [0, *(LENGTH * i + shift for i in range(1, len(PHONES)))]
    return list(zip(PHONES, starts, [*starts[1:], starts[-1] + LENGTH // 2], strict=True))


def speech(sentence, seed):
    """int16[T] of the segments."""
    rng, parts = np.random.default_rng(seed), []
    for label, start, end in segments(sentence):
        time = np.arange(start, end) / 16_000
        hum = sum(np.sin(2 * np.pi * (110 + 10 * (seed % 7)) * k * time) / k for k in range(1, 6))
        noise = rng.normal(0, 1, len(time))
        parts.append(noise if label in SILENT else 2000 * noise if label in HISSING else 6000 * hum + noise)
    return np.concatenate(parts).astype(np.int16)


def timit_files(speakers=SPEAKERS, sentences=SENTENCES, lower=False, audio=sphere):
    """{path: bytes}; `audio` encodes int16[T], names are in lower case on demand."""
    files = {}
    for seed, (speaker, folder) in enumerate(speakers.items()):
        for sentence in sentences:
            samples, place = speech(sentence, 3 * seed + SENTENCES.index(sentence)), f"{folder}/{speaker}/{sentence}"
            words = f"Sentence {sentence} of {speaker}, 2 pm."
            contents = {
                "WAV": audio(samples),
                "PHN": "".join(f"{start} {end} {label}\n" for label, start, end in segments(sentence)).encode(),
                "TXT": f"0 {len(samples)} {words}\n".encode(),
                "WRD": f"800 {len(samples) - 400} sentence\n".encode()}
            for suffix, content in contents.items():
                path = f"{place}.{suffix}"
                files[path.lower() if lower else path] = content
    return files
