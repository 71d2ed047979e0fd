"""EmoDB, the Berlin database of emotional speech (Burkhardt et al., Interspeech 2005).

A file name is speaker (2 digits), sentence (3 characters), emotion (the initial of its German name) and version, a
letter: `03a01Wa.wav` is the first version of speaker 03 saying sentence a01 in anger ("Wut"). The tables below are
those of the corpus' own pages (http://emodb.bilderbar.info/docu/).
"""

import re

from ser_jax.corpora.by_name import BadName, ByName, code

EMOTIONS = {"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}
SPEAKERS = {"03": ("male", 31), "08": ("female", 34), "09": ("female", 21), "10": ("male", 32), "11": ("male", 26),
            "12": ("male", 30), "13": ("female", 32), "14": ("female", 35), "15": ("male", 25), "16": ("female", 31)}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
NAME = re.compile(r"(\d\d)([a-z]\d\d)([A-Z])([a-z])")


class Emodb(ByName):
    """Reads EmoDB: 535 utterances of ten actors. extra: sentence (its code), version (letter) and age of the speaker.

    Args:
      source: the folder that has `wav/`, or `wav` itself, or the archive (`download.zip`).
      scratch: see `ByName`.
    """

    name = "emodb"
    language = "de"
    licence = "free for research; no licence text on the corpus' pages"
    synthetic = False
    ARCHIVES = ("emodb", "download")
    EXPECTED = "wav/03a01Wa.wav, ..."

    def describe(self, path):
        match = NAME.fullmatch(path.stem)
        if match is None:
            raise BadName("the name is not speaker, sentence, emotion and version, as 03a01Wa")
        speaker, sentence, emotion, version = match.groups()
        gender, age = code(SPEAKERS, speaker, "speaker")
        return {"id": path.stem, "text": code(SENTENCES, sentence, "sentence"), "speaker_id": speaker,
                "gender": gender, "emotion": code(EMOTIONS, emotion, "emotion"),
                "extra": {"sentence": sentence, "version": version, "age": age}}
