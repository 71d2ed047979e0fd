"""A miniature VCTK in the layout of releases 0.80 and 0.92, spoken by eSpeak NG at 48 kHz."""

import io
import zipfile

import numpy as np
import soundfile
import soxr

from ser_jax.corpora.espeak_process import speak

RATE = 48_000
SPEAKERS = {  # speaker: (line of speaker-info.txt, eSpeak voice); the lines have the columns and oddities of 0.92
    "p225": ("p225  23  F    English    Southern  England", "en-gb-x-rp+f2"),
    "p226": ("p226  22  M    English    Surrey", "en-gb-x-rp+m3"),
    "p280": ("p280  25  F    Unknown    France (mic2 files unavailable)", "en+f5"),
    "p315": ("p315  18  M    American    New  England (Text and mic2 files unavailable)", "en-us+m7"),
    "p376": ("p376  22  M    Indian", "en+m1"),
    "s5": ("s5    24  F    British", "en-gb-scotland+f3"),
}
ONE_MICROPHONE = ("p280", "p315")
TEXTS = ("Ask her to bring the blue folder.", "We walk to the river, don't we?")


def vctk_files(release="0.92", speakers=SPEAKERS, texts=TEXTS):
    """{path in the release: bytes}; every speaker says every text, the second microphone is a little quieter.

    0.92 (whose archive has no folder of its own around it) keeps FLAC of two microphones; p315 has no texts, p280 and
    p315 have no second microphone. 0.80, in `VCTK-Corpus/`, keeps WAV of one, has neither p315 nor s5, and does not
    list p280.
    """
    if release == "0.80":
        speakers = {speaker: facts for speaker, facts in speakers.items() if speaker not in ("p315", "s5")}
    root = "VCTK-Corpus/" if release == "0.80" else ""
    lines, files = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS "], {}
    for speaker, (line, voice) in speakers.items():
        if release == "0.92":
            lines.append(line)
        elif speaker != "p280":
            lines.append(line.removeprefix("p"))
        for number, text in enumerate(texts, 1):
            identity = f"{speaker}_{number:03d}"
            sound = _say(text, voice)
            if speaker != "p315":
                files[f"{root}txt/{speaker}/{identity}.txt"] = f"{text}\n".encode()
            if release == "0.80":
                files[f"{root}wav48/{speaker}/{identity}.wav"] = _audio(sound, "WAV")
                continue
            files[f"wav48_silence_trimmed/{speaker}/{identity}_mic1.flac"] = _audio(sound, "FLAC")
            if speaker not in ONE_MICROPHONE:
                files[f"wav48_silence_trimmed/{speaker}/{identity}_mic2.flac"] = _audio(sound // 2, "FLAC")
        if release == "0.92":
            files[f"wav48_silence_trimmed/{speaker}/log.txt"] = b"trimmed\n"
    files[f"{root}speaker-info.txt"] = ("\n".join(lines) + "\n").encode()
    return files


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _say(text, voice):
    _, speech, rate = speak(text, {"voice": voice, "rate": 170, "volume": 60, "pitch": 50, "range": 50})
    return np.rint(soxr.resample(speech.astype(np.float64), rate, RATE, quality="HQ") / 2).astype(np.int16)


def _audio(samples, kind):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind, subtype="PCM_16")
    return file.getvalue()
