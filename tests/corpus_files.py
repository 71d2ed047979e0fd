"""Small real corpora for tests: voices whose gender and emotion can be heard, in the official layouts."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from ser_jax.corpora import prepare, ravdess, reader
from ser_jax.data.prepared import PreparedCorpus

MALE_F0, FEMALE_F0 = 110.0, 210.0  # Hz
EMOTIONS = ("neutral", "happy", "sad", "angry")


def voice(f0, seconds=0.5, seed=0, rate=16_000, tremolo=4.0):
    """A buzz with harmonics of `f0`, a slow `tremolo` (Hz) that tells the emotion, and noise: int16[seconds * rate]."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    f0 = f0 * random.uniform(0.96, 1.04)
    harmonics = range(1, int(min(4000.0, rate / 2) / f0))
    buzz = sum(np.sin(2 * np.pi * k * f0 * t + random.uniform(0, 2 * np.pi)) / k for k in harmonics)
    sound = buzz * (1 + 0.6 * np.sin(2 * np.pi * tremolo * t)) + 0.05 * random.standard_normal(len(t))
    return np.rint(sound / np.abs(sound).max() * 12_000).astype(np.int16)


def speaker_voice(number, seconds=0.5, seed=0, rate=16_000, emotion=0):
    """Voice of speaker `number`: odd numbers are male, even ones female, as in RAVDESS."""
    f0 = (MALE_F0 if number % 2 else FEMALE_F0) * (1 + 0.01 * (number % 5 - 2))
    return voice(f0, seconds, seed=1000 * number + seed, rate=rate, tremolo=2.0 + 3.0 * emotion)


def write_audio(path, samples, rate=16_000, **kwargs):
    """Writes samples with soundfile and makes the folders; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **kwargs)
    return path


def write_ravdess(root, actors=(1, 2, 3, 4), emotions=("01", "03", "04", "05"), statements=("01", "02"),
                  repetitions=("01",), seconds=0.5, rate=16_000, suffix=".flac", channel="01"):
    """Writes a RAVDESS tree with official names; returns its root. 8 utterances per actor by default."""
    for actor in actors:
        for seed, (emotion, statement, repetition) in enumerate(
                (e, s, r) for e in emotions for s in statements for r in repetitions):
            assert emotion in ravdess.EMOTIONS
            name = f"03-{channel}-{emotion}-01-{statement}-{repetition}-{actor:02d}{suffix}"
            speech = speaker_voice(actor, seconds, seed, rate, int(emotion))
            write_audio(Path(root, f"Actor_{actor:02d}", name), speech, rate)
    return Path(root)


def write_manifest(root, speakers=4, per_speaker=5, seconds=0.5, language="en"):
    """Writes audio, text, gender, emotion, ratings, session (two speakers each) and split; returns the table's path."""
    rows = []
    for number in range(1, speakers + 1):
        for seed in range(per_speaker):
            emotion = seed % len(EMOTIONS)
            speech = speaker_voice(number, seconds, seed, emotion=emotion)
            path = write_audio(Path(root, "audio", f"s{number}_{seed}.wav"), speech)
            rows.append({
                "path": path.relative_to(root).as_posix(), "text": f"sentence number {seed}",
                "speaker_id": f"s{number}", "gender": "male" if number % 2 else "female",
                "emotion": EMOTIONS[emotion], "valence": 3.0 - 0.5 * emotion, "arousal": 1.0 + emotion,
                "dominance": 2.5, "session": f"ses{(number + 1) // 2}",
                "split": "train" if number < speakers else "test", "language": language})
    return write_table(Path(root, "manifest.csv"), rows)


def write_table(path, rows, **kwargs):
    """Writes dicts as CSV (or TSV by the suffix of `path`); returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with open(path, "w", newline="", encoding=kwargs.pop("encoding", "utf-8")) as file:
        table = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",", **kwargs)
        table.writeheader()
        table.writerows(rows)
    return path


def prepare_tree(corpus, source, out, options=None, **kwargs):
    """Prepares in this process, as `ser-jax prepare` does, and opens the result."""
    kwargs.setdefault("workers", 1)
    prepare.prepare(reader(corpus, source, options), out, source, **kwargs)
    return PreparedCorpus(out)
