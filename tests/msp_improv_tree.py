"""A miniature MSP-IMPROV in the layout and the text format of the release."""

from pathlib import Path

from corpus_files import EMOTIONS, FEMALE_F0, MALE_F0, voice, write_audio

CODES = {"A": "angry", "H": "happy", "S": "sad", "N": "neutral", "O": "other", "X": ""}
ACTIVATION = {"A": 2.2, "H": 2.8, "S": 4.2, "N": 4.0, "O": 3.4, "X": 3.6}  # 1 = lively, as in the release
VALENCE = {"A": 1.8, "H": 4.4, "S": 1.6, "N": 3.0, "O": 2.6, "X": 2.4}
WORDS = {"A": "How can I not?", "H": "I'm quite sure that\nwe will find some way.", "S": "", "N": "Yeah..", "O": "No.",
         "X": "Well."}


def turns(sessions):
    """(name, code) in the order of Evalution.txt: each speaker says one turn of each label, in the four scenarios."""
    for session in sessions:
        for letter in "FM":
            for number, code in enumerate("NAHSOX"):
                scenario = "PRST"[number % 4]
                pair = letter * 2 if scenario == "R" else "FM"  # target sentences are read alone
                target = code if code in "AHSN" else "N"
                yield f"S{number + 1:02d}{target}-{letter}{session:02d}-{scenario}-{pair}{number + 1:02d}", code


def write_msp_improv(root, sessions=(1, 2), seconds=0.3, words=True, audio=""):
    """Writes `root/MSP-IMPROV`: six turns by each of two speakers per session; returns that folder.

    Args:
      root: folder to write into.
      words: with the human transcriptions.
      audio: folder of the sessions within the release, "" or "Audio" (the packagings differ).
    """
    release, lines = Path(root, "MSP-IMPROV"), []
    for name, code in turns(sessions):
        sentence, speaker, scenario, _ = name.split("-")
        path = release / audio / f"session{int(speaker[1:])}" / sentence / scenario / f"MSP-IMPROV-{name}.wav"
        emotion = CODES[code] if CODES[code] in EMOTIONS else "neutral"
        f0 = {"F": FEMALE_F0, "M": MALE_F0}[speaker[0]]
        write_audio(path, voice(f0, seconds, len(lines), tremolo=2.0 + 3.0 * EMOTIONS.index(emotion)))
        naturalness = "NaN" if code == "O" else "3.200000"
        lines += [
            f"UTD-IMPROV-{name}.avi; {code}; A:{ACTIVATION[code]:.6f}; V:{VALENCE[code]:.6f}; D:3.000000 ; N:{naturalness};",
            f"WORKER00000153-p16; Angry; Angry,Frustrated; A:{round(ACTIVATION[code]):.6f}; V:2.000000; D:4.000000; "
            "N:3.000000;",
            "WORKER00000209-p02; Neutral; Neutral,Other (curious); A:3.000000; V:NaN; D:2.000000; N:4.000000;", ""]
        if words and WORDS[code]:
            text = release / "Human_transcriptions" / "All_human_transcriptions" / f"MSP-IMPROV-{name}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(WORDS[code] + "\n", encoding="utf-8")
    (release / "Evalution.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    (path.parent / "._MSP-IMPROV-hidden.wav").write_bytes(b"Mac OS X")
    return release
