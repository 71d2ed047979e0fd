"""A miniature IEMOCAP in the layout and the text formats of the official release, spoken by eSpeak NG."""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from ser_jax.corpora.espeak import Espeak

CODES = {"neutral": ("neu",), "happy": ("hap", "exc"), "sad": ("sad", "fru"), "angry": ("ang",)}
RARE = ("oth", "sur", "fea", "dis")  # one of each, on the second turn of the first speakers
LABELS = {"ang": "Anger", "hap": "Happiness", "exc": "Excited", "neu": "Neutral", "sad": "Sadness",
          "fru": "Frustration", "fea": "Fear", "sur": "Surprise", "dis": "Disgust", "oth": "Other"}
DISAGREED = 3  # the turn of each speaker that has no majority
OUTLIER = "Ses01F_impro01_F000"  # dominance 5.5


@dataclasses.dataclass
class SpokenTurn:
    """What was written about a turn; means: valence, activation, dominance."""

    name: str
    code: str
    means: tuple[float, float, float]
    text: str
    speech: np.ndarray


def write_iemocap(root, turns=8, **options):
    """Writes `root/IEMOCAP_full_release`: 5 sessions of two dialogues, in which both speakers take turns.

    Speech, words and ratings are those of the embedded corpus, so that emotion and ratings can be heard. Each speaker
    has one turn without majority (`xxx`), one mean is 5.5, and there is what a reader has to leave alone: hidden files,
    words of nobody, words without labels, folders of single evaluators.

    Args:
      root: folder to write into.
      turns: by each of the 10 speakers, at least 5; half of them improvised.
      **options: of the embedded corpus, e.g. seed.

    Returns:
      {name: SpokenTurn}.
    """
    release = Path(root, "IEMOCAP_full_release")
    corpus = Espeak(speakers=10, utterances=turns, **options)
    spoken = {}
    for unit in corpus.units():
        utterance = next(corpus.load(unit))
        spoken.setdefault(utterance.speaker_id, []).append(utterance)
    written = {}
    for session in range(1, 6):
        pair = [spoken[f"ses{session:02d}{letter}"] for letter in "FM"]
        script = "Ses05M_script01_1b" if session == 5 else f"Ses{session:02d}M_script01_1"
        half = turns // 2
        for dialog, part in ((f"Ses{session:02d}F_impro01", slice(0, half)), (script, slice(half, turns))):
            written |= _write_dialog(release / f"Session{session}", dialog, [own[part] for own in pair], part.start)
        _write_clutter(release / f"Session{session}", f"Ses{session:02d}F_impro01")
    return written


def _write_dialog(folder, dialog, pair, first):
    evaluation, transcript, clock, written = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], [], 4.0, {}
    for i, utterances in enumerate(zip(*pair, strict=True)):
        for letter, utterance in zip("FM", utterances, strict=True):
            name = f"{dialog}_{letter}{i:03d}"
            code = _code(utterance, first + i)
            felt = (utterance.valence, 0.5), (utterance.arousal, -0.5), (utterance.dominance, 0.5)
            ratings = [(round(value), min(5, max(1, round(value + shift)))) for value, shift in felt]
            means = tuple(5.5 if name == OUTLIER and k == 2 else (a + b) / 2 for k, (a, b) in enumerate(ratings))
            start, clock = clock, clock + len(utterance.speech) / 16_000
            written_means = ", ".join(f"{mean:.4f}" for mean in means)
            evaluation += [f"[{start:.4f} - {clock:.4f}]\t{name}\t{code}\t[{written_means}]",
                           *_judgements(code, ratings, letter), ""]
            transcript.append(f"{name} [{start:08.4f}-{clock:08.4f}]: {utterance.text}")
            path = folder / "sentences" / "wav" / dialog / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, utterance.speech, 16_000, subtype="PCM_16")
            written[name] = SpokenTurn(name, code, means, utterance.text, utterance.speech)
    transcript[1:1] = ["M: Yeah.", f"{dialog}_MXX0 [151.2551-153.4251]: [LAUGHTER], That's what they say."]
    _write(folder / "dialog" / "EmoEvaluation" / f"{dialog}.txt", "\n".join(evaluation) + "\n")
    _write(folder / "dialog" / "transcriptions" / f"{dialog}.txt", "\n".join(transcript) + "\n")
    return written


def _code(utterance, number):
    speaker = 2 * (int(utterance.session[3:]) - 1) + (utterance.gender == "male")
    if number == DISAGREED:
        return "xxx"
    if number == 1 and speaker < len(RARE):
        return RARE[speaker]
    codes = CODES[utterance.emotion]
    return codes[number % len(codes)]


def _judgements(code, ratings, letter):
    """Lines of three observers of the category, two of the ratings, and the speaker's own."""
    third = "Neutral; " + LABELS.get("fru" if code == "neu" else code, "")
    labels = ["Neutral", "Anger", "Sadness"] if code == "xxx" else [LABELS[code], LABELS[code], third]
    lines = [f"C-E{k}:\t{label};\t()" for k, label in zip((2, 3, 4), labels, strict=True)]
    lines.append(f"C-{letter}1:\t{LABELS.get(code, 'Other')};\t(curious; I guess (really))")
    for evaluator, k in (("E3", 0), ("E4", 1)):
        valence, activation, dominance = (pair[k] for pair in ratings)
        lines.append(f"A-{evaluator}:\tval {valence}; act {activation}; dom  {dominance};\t(staying polite, attitude)")
    lines.append(f"A-{letter}1:\tval 3; act ; dom  1;\t()")
    return lines


def _write_clutter(folder, dialog):
    hidden = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xff\xfe\n[1.0 - 2.0]\n"
    for place in ("dialog/EmoEvaluation/._%s.txt", "dialog/transcriptions/._%s.txt", "sentences/wav/%s/._%s_F000.wav"):
        path = folder / place.replace("%s", dialog)
        path.write_bytes(hidden)
    _write(folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialog}_e2_cat.txt",
           f"{dialog}_F000 :Neutral state; ()\n")
    _write(folder / "dialog" / "EmoEvaluation" / "Attribute" / f"{dialog}_e3_atr.txt",
           f"{dialog}_F000 :act 2; :val 3; :dom  2; ()\n")


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
