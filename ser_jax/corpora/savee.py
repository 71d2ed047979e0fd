"""SAVEE, Surrey audio-visual expressed emotion (Haq and Jackson 2009; http://kahlan.eps.surrey.ac.uk/savee/): audio.

A file name is the initial(s) of the emotion and the number of the sentence, the folder is the speaker: `DC/sa03.wav` is
the third sad sentence of DC. There are 15 sentences for each emotion and 30 neutral ones.
"""

import re

from ser_jax.corpora.by_name import BadName, ByNameOrTfds, code
from ser_jax.corpora.tfds_official import OfficialBuilder

EMOTIONS = {"a": "angry", "d": "disgusted", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad",
            "su": "surprised"}
SENTENCES = {**dict.fromkeys(EMOTIONS, 15), "n": 30}
NAME = re.compile(r"(?:(DC|JE|JK|KL)_?)?(a|d|f|h|n|sa|su)(\d\d)")


class Savee(ByNameOrTfds):
    """Reads SAVEE: 480 utterances of four male speakers. extra: sentence (its number within the emotion).

    The words are not in the audio release: text is empty. id = speaker and file, e.g. "DC_sa03"; copies that have the
    speaker in the name (`DC_sa03.wav`) are read as well. For via="tfds" see `ByNameOrTfds`: the official builder needs
    `AudioData.zip` and puts two speakers into train, one into validation and one into test.

    Args:
      source: the folder that has `DC`, `JE`, `JK` and `KL`, one above it, or `AudioData.zip`.
      via, scratch: see `ByNameOrTfds`.
    """

    name = "savee"
    language = "en"
    licence = "free for research, on registration with the University of Surrey"
    synthetic = False
    ARCHIVES = ("AudioData",)
    EXPECTED = "AudioData/DC/a01.wav, ... (or AudioData.zip)"
    RATE = 44_100
    LABELS = {"anger": "angry", "disgust": "disgusted", "fear": "fearful", "happiness": "happy", "neutral": "neutral",
              "sadness": "sad", "surprise": "surprised"}
    SPEAKERS = dict.fromkeys(("DC", "JE", "JK", "KL"), "male")

    def official(self):
        return OfficialBuilder(self.name, None, self.source, [], self.scratch, by_hand=["AudioData.zip"])

    def describe(self, path):
        match = NAME.fullmatch(path.stem)
        if match is None:
            raise BadName("the name is not emotion and number, as sa03")
        speaker, emotion, number = match[1] or path.parent.name, match[2], int(match[3])
        if path.parent.name in self.SPEAKERS and path.parent.name != speaker:
            raise BadName(f"the name says speaker {speaker}, the folder {path.parent.name}")
        gender = code(self.SPEAKERS, speaker, "speaker")
        if not 1 <= number <= SENTENCES[emotion]:
            raise BadName(f"sentence {number} of {SENTENCES[emotion]}")
        return {"id": f"{speaker}_{emotion}{number:02d}", "speaker_id": speaker, "gender": gender,
                "emotion": EMOTIONS[emotion], "extra": {"sentence": number}}
