"""The embedded corpus: acted emotions spoken by eSpeak NG. No download, any Linux or macOS machine.

It has everything the verbs ask for: transcripts, speakers, genders, sessions, phones, emotion classes, valence, arousal and
dominance. It is for trying the whole chain and for tests; it says nothing about human emotion, so everything made from it is
stamped SYNTHETIC.

eSpeak NG is a GPL-3.0-or-later library. It is no part of this project: the wheel `espeakng-loader` brings it
(`pip install 'ser_jax[demo]'`), and a process of its own (`espeak_process.py`, `espeak_voice.py`) loads it at run time.
"""

import random

import numpy as np

from ser_jax.corpora.espeak_matrix import WORDS, Matrix
from ser_jax.corpora.espeak_process import speak, wheel_version
from ser_jax.corpora.espeak_sentences import SENTENCES
from ser_jax.corpora.schema import SAMPLE_RATE, Unit, Utterance
from ser_jax.errors import UsageError

# Variants of eSpeak NG 1.52 that are clearly one gender and sound like a person: no whisper, croak, monotone or clipping ones.
VARIANTS = {
    "female": ("f2", "Annie", "f5", "aunty", "f3", "belinda", "f1", "Alicia", "f4", "linda", "Andrea", "grandma"),
    "male": ("m3", "Denis", "m7", "m1", "michel", "m5", "Lee", "m8", "m2", "victor", "m4", "m6"),
}
# Five accents and twelve variants have no common factor, so an English voice returns only after 60 sessions.
ACCENTS = {"en": ("en-us", "en-gb-x-rp", "en-gb-scotland", "en", "en-us-nyc"), "de": ("de",)}

# Emotion: mean valence, arousal, dominance on 1..5, about where the ratings of acted corpora put these words.
CENTRES = {"neutral": (3.0, 2.7, 3.0), "happy": (4.2, 3.7, 3.4), "sad": (1.9, 2.1, 2.2), "angry": (1.7, 4.1, 4.2)}
RATING_SPREAD = 0.45
OWN_WORDS, NEUTRAL_WORDS = 0.6, 0.3  # the rest says what another emotion would say

SHORTEST_PAUSE = SAMPLE_RATE // 100  # samples; what is shorter belongs to the phone before it
HELD_OUT = 0.2  # of the sessions and of every sentence list, for dev and for test each


class Espeak:
    """Reader of the embedded corpus.

    Two speakers, a woman and a man, share a session. Every speaker acts every emotion equally often (within one). Speakers of
    the dev and test splits say sentences that nobody in the other splits says; no session crosses splits. Ratings are drawn
    around the centre of the emotion and drive pitch, pitch range, rate and volume, with jitter, so that emotion can be heard
    but not read off; the words match the emotion more often than not.

    Args:
      source: must be None, there is nothing to read.
      speakers: even, at least 6 for every language (3 sessions, one for each split).
      utterances: by each speaker.
      seed: of everything that is drawn.
      language: "en", "de", or both as "en,de": sessions take turns.
      story: number of consecutive utterances of a speaker that have one emotion and one rating and are pieces of one recording
        (`chunk_of`), for majority voting. 1 = every utterance stands alone.
      sentences: "acted", whole sentences whose words match the emotion more often than not, or "matrix", five-word sentences
        without feeling from 50 words (`espeak_matrix.py`), for a recogniser: dev and test say no sentence of another split,
        but every word is known.

    Raises:
      UsageError: an option is out of range.
    """

    name = "espeak"
    synthetic = True
    licence = ("our own sentences, spoken by eSpeak NG (GPL-3.0-or-later library, loaded at run time from the wheel "
               "espeakng-loader, not part of this project)")

    def __init__(self, source=None, speakers=24, utterances=40, seed=0, language="en", story=1, sentences="acted"):
        if source is not None:
            raise UsageError("espeak is made on this machine and has no source folder; leave out --source")
        self.languages = tuple(dict.fromkeys(part.strip() for part in str(language).split(",")))
        for part in self.languages:
            if part not in SENTENCES:
                raise UsageError(f"espeak: language={part} is not known; take one or more of {','.join(SENTENCES)}")
        self.language = ",".join(self.languages)
        self.speakers = _at_least("speakers", speakers, 6 * len(self.languages))
        if self.speakers % 2:
            raise UsageError(f"espeak: speakers={speakers} must be even (a session is a woman and a man)")
        self.utterances = _at_least("utterances", utterances, 1)
        self.seed = _at_least("seed", seed, 0)
        self.story = _at_least("story", story, 1)
        if sentences not in ("acted", "matrix"):
            raise UsageError(f"espeak: sentences={sentences} is not known; take acted or matrix")
        self.sentences = sentences
        self._lines = None

    def options(self):
        """The options, and the version of the wheel that speaks."""
        options = {"speakers": self.speakers, "utterances": self.utterances, "seed": self.seed, "language": self.language,
                   "story": self.story, "espeakng_loader": wheel_version()}
        if self.sentences != "acted":  # named only then: corpora prepared before there was a choice stay what they are
            options["sentences"] = self.sentences
        return options

    def units(self):
        """One unit for each utterance.

        Raises:
          UserError: the wheel `espeakng-loader` is missing.
        """
        stamp = f"espeakng-loader {wheel_version()}"
        return [Unit(key=key, path=line["source"], stamp=stamp) for key, line in self._script().items()]

    def load(self, unit):
        """Speaks one utterance.

        Raises:
          UserError: the wheel is missing, has no such voice, or its process does not answer.
        """
        line = self._script()[unit.key]
        phones, speech, rate = speak(line["text"], line["extra"])
        speech, phones = to_16k(speech, phones, rate)
        yield Utterance(**line, corpus=self.name, speech=speech, phones=phones)

    def __getstate__(self):
        return self.__dict__ | {"_lines": None}

    def _script(self):
        if self._lines is None:
            self._lines = {line["id"]: line for line in script(self)}
        return self._lines


def _at_least(name, value, least):
    if not isinstance(value, int) or value < least:
        raise UsageError(f"espeak: {name}={value!r} must be a whole number, at least {least}")
    return value


def script(corpus):
    """All that is said, by whom and how: yields the fields of every Utterance but `corpus`, `speech` and `phones`.

    Depends on the options alone: `random.Random` seeded by text gives the same numbers on every machine.
    """
    sessions = corpus.speakers // 2
    for session in range(sessions):
        language = corpus.languages[session % len(corpus.languages)]
        same = range(session % len(corpus.languages), sessions, len(corpus.languages))
        split = split_of(same.index(session), len(same))
        for gender in ("female", "male"):
            yield from _speaker_lines(corpus, session, gender, language, split)


def _speaker_lines(corpus, session, gender, language, split):
    speaker = f"ses{session + 1:02d}{gender[0].upper()}"
    draw = random.Random(f"{corpus.seed}/{language}/{speaker}")
    variant = VARIANTS[gender][session % len(VARIANTS[gender])]
    voice = f"{ACCENTS[language][session % len(ACCENTS[language])]}+{variant}"
    habit = {"pitch": 50 + draw.uniform(-6, 6), "range": 50 + draw.uniform(-10, 10),
             "rate": 168 + draw.uniform(-14, 14), "volume": 55 + draw.uniform(-8, 8)}
    if corpus.sentences == "matrix":
        words = dict.fromkeys(SENTENCES[language], Matrix(language, _part(range(WORDS), split), draw))
    else:
        words = {feeling: _Deck(_part(sentences, split), draw) for feeling, sentences in SENTENCES[language].items()}
    stories = -(-corpus.utterances // corpus.story)
    emotions = _Deck(CENTRES, draw)
    plan = [emotions.next() for _ in range(stories)]
    for i in range(corpus.utterances):
        emotion = plan[i // corpus.story]
        if i % corpus.story == 0:
            ratings = [round(min(5.0, max(1.0, draw.gauss(centre, RATING_SPREAD))), 2) for centre in CENTRES[emotion]]
        yield {
            "id": f"{speaker}_{i:03d}",
            "source": f"espeak-ng:{voice}",
            "text": words[_feeling_of_words(emotion, draw)].next(),
            "speaker_id": speaker,
            "gender": gender,
            "session": speaker[:-1],
            "emotion": emotion,
            **dict(zip(("valence", "arousal", "dominance"), ratings, strict=True)),
            "chunk_of": f"{speaker}_story{i // corpus.story:03d}" if corpus.story > 1 else "",
            "split": split,
            "language": language,
            "extra": {"voice": voice, **_prosody(habit, ratings, draw)},
        }


class _Deck:
    """Deals everything once, in a drawn order, before anything returns."""

    def __init__(self, things, draw):
        self._things, self._draw, self._left = list(things), draw, []

    def next(self):
        if not self._left:
            self._left = self._things.copy()
            self._draw.shuffle(self._left)
        return self._left.pop()


def _feeling_of_words(emotion, draw):
    chance = draw.random()
    if chance < OWN_WORDS:
        return emotion
    if chance < OWN_WORDS + NEUTRAL_WORDS:
        return "neutral"
    return draw.choice([other for other in CENTRES if other not in (emotion, "neutral")])


def _prosody(habit, ratings, draw):
    """eSpeak parameters of one utterance: arousal raises all four, valence widens the pitch range, dominance adds loudness."""
    valence, arousal, dominance = ((rating - 3.0) / 2.0 for rating in ratings)
    wanted = {
        "pitch": (habit["pitch"] + 12 * arousal + 6 * valence + draw.gauss(0, 4), 5, 95),
        "range": (habit["range"] + 22 * arousal + 22 * valence + draw.gauss(0, 8), 5, 100),
        "rate": (habit["rate"] + 28 * arousal + 10 * valence + draw.gauss(0, 10), 110, 250),
        "volume": (habit["volume"] + 14 * arousal + 14 * dominance + draw.gauss(0, 6), 15, 90),
    }
    return {name: round(min(most, max(least, value))) for name, (value, least, most) in wanted.items()}


def _held_out(count):
    return max(1, round(HELD_OUT * count))


def split_of(position, count):
    """Split of the session at `position` among `count` sessions of one language: train first, then dev, then test."""
    held = _held_out(count)
    return "train" if position < count - 2 * held else "dev" if position < count - held else "test"


def _part(sentences, split):
    """The sentences that speakers of `split` may say."""
    return [text for i, text in enumerate(sentences) if split_of(i, len(sentences)) == split]


def to_16k(speech, phones, rate):
    """Resamples speech and moves phone boundaries along.

    Args:
      speech: int16[T] at `rate` Hz.
      phones: [(IPA label, first sample at `rate`), ...] in eSpeak's order; "" is a pause, "(en)" a switch of language.

    Returns:
      (int16[T'] at 16 kHz, [(label, start, end), ...] at 16 kHz: from the first sample to the last without gaps or empty
      phones, labels without stress marks, pauses "sil").
    """
    import soxr

    out = soxr.resample(speech.astype(np.float64), rate, SAMPLE_RATE, quality="HQ")
    out = np.clip(np.rint(out), -32768, 32767).astype(np.int16)
    marks = [("sil", 0)]  # eSpeak does not mark the closure before a first consonant
    marks += [(_label(name), min(len(out), start * SAMPLE_RATE // rate)) for name, start in phones if not name.startswith("(")]
    ends = [start for _, start in marks[1:]] + [len(out)]
    pieces = []
    for (label, start), end in zip(marks, ends, strict=True):
        if label == "sil" and end - start < SHORTEST_PAUSE and pieces:
            pieces[-1] = (*pieces[-1][:2], end)
        elif end > start:
            pieces.append((label, start, end))
    return out, pieces


def _label(name):
    return name.strip("ˈˌ").replace(":", "ː") or "sil"
