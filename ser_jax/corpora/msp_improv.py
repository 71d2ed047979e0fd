"""MSP-IMPROV: improvised dialogues of twelve actors (Busso et al., IEEE TAC 8, 2017): release tree.

Labels are read from `Evalution.txt` (spelled so), sound from `sessionK/S01A/P/<turn>.wav`, words from the human
transcriptions where they are there. A turn is named `MSP-IMPROV-S01A-F01-P-FM01`: target sentence and the emotion that
it is to be said in, speaker, scenario, and which of the two actors has the target sentence (`FM`: the woman) with a
number.

No file says what the scenarios P, R, S and T and the pairs are, nor that 1 is the lively end of the activation scale.
It is inferred: F03 says "Hey Alan" to her partner in FM and MF, and argues for the target sentence in FM; the
transcripts, without the target sentences (bagustris/two-stage-ser, data_mspin_train.csv), hold P and S alone, and more
of S, as the paper counts 2,785 natural and 4,381 other improvised turns beside 652 target and 620 read sentences; R
turns are named FF or MM, for they are read alone. In an excerpt, the mean activation of 20 angry turns is 3.05, of
neutral ones about 3.9.
"""

import dataclasses
import functools
import math
import re
import sys
from pathlib import Path

from ser_jax.corpora import archives, audio
from ser_jax.corpora.schema import Reject, Unit, Utterance
from ser_jax.errors import UsageError, UserError
from ser_jax.files import canonical_hash

EMOTIONS = {"A": "angry", "H": "happy", "S": "sad", "N": "neutral", "O": "other",
            "X": ""}  # the evaluators do not agree
SCENARIOS = {"P": "natural", "R": "target read", "S": "other improvised", "T": "target improvised"}
GENDERS = {"F": "female", "M": "male"}
RATINGS = {"A": "activation", "V": "valence", "D": "dominance", "N": "naturalness"}
LOWEST, HIGHEST = 1.0, 5.0  # of the rating scale
TURNS = 8_438
LABELS = ("Evalution.txt", "Evaluation.txt")
WORDS = ("Human_transcriptions/All_human_transcriptions", "All_human_transcriptions")

NAME = re.compile(r"S(\d\d)([AHSN])-([FM])0([1-6])-([A-Z])-([FM]{2})(\d+)")
HEAD = re.compile(r"(?:UTD|MSP)-IMPROV-(\S+?)\.(?:avi|wav)\s*;(.*)")
RATING = re.compile(r"([AVDN])\s*:\s*([^;\s]+)\s*(?:;|$)")


class MspImprov:
    """Reads MSP-IMPROV, whole or some of its sessions. One record for each turn that Evalution.txt lists, 8,438 in all.

    Records: id = turn, e.g. "MSP-IMPROV-S01A-F01-P-FM01"; speaker_id "F01" to "M06"; session "1" to "6"; emotion = the
    label that the corpus gives (majority of the evaluators), "" for X (no agreement: 555), "other" for O (85); text as
    transcribed, "" where no transcription is there. valence and dominance = means over the evaluators, 1..5, as
    written. arousal = 6 − activation, for 1 is the lively end of that scale; as written in extra. A mean that is
    missing is NaN.
    extra: code (raw label), target (emotion that the target sentence is meant to have), sentence (its number), scenario
    (P, R, S or T), scenario_name (`SCENARIOS`), pair ("FM": the woman has the target sentence), activation and
    naturalness (means), evaluations (of each evaluator: label, more labels, ratings).

    The 7,798 turns of four classes of the literature are a choice of `ser-jax probe`:
    `--classes angry,happy,neutral,sad`.

    Args:
      source: the folder that has `Evalution.txt` and `session1` to `session6` (or `Audio/session1` ...), one above it,
        or an archive of it.
      scratch: where an archive is unpacked; None: `unpacked/` beside it (the verb prepare says: beside the output).
    """

    name = "msp_improv"
    language = "en"
    licence = "MSP-IMPROV academic licence of UT Dallas (on request)"
    synthetic = False

    def __init__(self, source, scratch=None):
        if source is None:
            raise UsageError("msp_improv needs --source: the folder with Evalution.txt and session1, ..., session6")
        self.source, self.scratch = Path(source), scratch
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; give the MSP-IMPROV folder as --source")

    def options(self):
        return {}

    def units(self):
        """One unit per turn; tells on stderr what is missing or odd.

        Raises:
          UserError: the source holds no MSP-IMPROV.
        """
        units = []
        for key, turn in self._turns.items():
            words = archives.size_and_time(self._words[turn.name]) if turn.name in self._words else "absent"
            facts = canonical_hash(dataclasses.asdict(turn))
            stamp = f"{archives.size_and_time(self._root / turn.path)}/{words}/{facts}"
            units.append(Unit(key=key, path=turn.path, stamp=stamp))
        self._tell()
        return units

    def load(self, unit):
        turn = self._turns[unit.key]
        if turn.problem:
            yield Reject(unit.key, unit.path, turn.problem)
            return
        sentence, target, letter, session, scenario, pair, _ = NAME.fullmatch(turn.name).groups()
        words = self._words.get(turn.name)
        means = {name: math.nan if mean is None else mean for name, mean in turn.means.items()}
        yield Utterance(
            id=unit.key, corpus=self.name, source=turn.path, speech=audio.read(self._root / turn.path),
            text=" ".join(words.read_text(encoding="utf-8", errors="replace").split()) if words else "",
            speaker_id=f"{letter}0{session}", gender=GENDERS[letter], session=session, emotion=EMOTIONS[turn.code],
            valence=means["valence"], arousal=LOWEST + HIGHEST - means["activation"], dominance=means["dominance"],
            language=self.language,
            extra={"code": turn.code, "target": EMOTIONS[target], "sentence": int(sentence), "scenario": scenario,
                   "scenario_name": SCENARIOS[scenario], "pair": pair, "activation": turn.means["activation"],
                   "naturalness": turn.means["naturalness"], "evaluations": turn.evaluations})

    @functools.cached_property
    def _root(self):
        """The folder that has the labels."""
        source = self.source
        if source.is_file():
            if archives.stem(source) is None:
                raise UserError(f"{source}: neither a folder nor an archive ({', '.join(archives.SUFFIXES)})")
            source = archives.unpack(source, archives.scratch_for(source, self.scratch))
        found = [path for depth in ("", "*/", "*/*/") for name in LABELS for path in sorted(source.glob(depth + name))]
        if not found:
            raise UserError(f"{self.source}: no MSP-IMPROV found (expected Evalution.txt beside session1/S01A/P/*.wav)")
        return found[0].parent

    @functools.cached_property
    def _recordings(self):
        """{turn: path of its sound}, beside the labels or, as in another packaging, in `Audio`."""
        found = {}
        for depth in ("", "*/"):
            for path in sorted(self._root.glob(f"{depth}session[1-6]/*/*/MSP-IMPROV-*.wav")):
                found.setdefault(path.stem.removeprefix("MSP-IMPROV-"), path)
        if not found:
            raise UserError(f"{self._root}: no sound (expected session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav, ...)")
        return found

    @functools.cached_property
    def _words(self):
        """{turn: path of its transcription}."""
        paths = (path for folder in WORDS for path in sorted((self._root / folder).rglob("MSP-IMPROV-*.txt")))
        return {path.stem.removeprefix("MSP-IMPROV-"): path for path in paths}

    @functools.cached_property
    def _turns(self):
        """{unit key: Turn} in the order of the labels; those of sessions that are not there at all are left out."""
        labels = next(self._root / name for name in LABELS if (self._root / name).exists())
        text = labels.read_bytes().decode("utf-8", "replace")
        sessions = {path.parts[-4] for path in self._recordings.values()}
        turns = {}
        for number, turn in parse_evaluation(text):
            match = NAME.fullmatch(turn.name)
            if match and f"session{match[4]}" not in sessions:
                continue
            path, key = self._recordings.get(turn.name), f"MSP-IMPROV-{turn.name}"
            if not turn.problem and key in turns:
                turn.problem = "turn listed twice"
            if turn.problem:
                key = f"{labels.name}:{number}"
            elif path is None:
                turn.problem = "missing file (its labels are there)"
            turn.path = (labels if turn.problem else path).relative_to(self._root).as_posix()
            turns[key] = turn
        if not turns:
            raise UserError(f"{labels}: no line like UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:4.0; V:2.8; D:2.8 ; N:3.2;")
        return turns

    def _tell(self):
        turns = [turn for turn in self._turns.values() if not turn.problem]
        if len(self._turns) != TURNS:
            print(f"msp_improv: {len(self._turns)} turns in {len({turn.name[6:8] for turn in turns})} sessions; the whole "
                  f"corpus has {TURNS:,} in 6", file=sys.stderr)
        counts = [(len(self._recordings.keys() - {turn.name for turn in self._turns.values()}),
                   "recordings have no labels and are left out"),
                  (sum(turn.name not in self._words for turn in turns), "turns have no transcription; it is left empty"),
                  (sum(None in turn.means.values() for turn in turns), "turns lack a mean rating; it is left empty")]
        for count, message in counts:
            if count:
                print(f"msp_improv: {count} {message}", file=sys.stderr)


@dataclasses.dataclass
class Turn:
    """What Evalution.txt tells about one turn.

    Attributes:
      name: without "MSP-IMPROV-", e.g. "S01A-F01-P-FM01".
      code: raw label, a key of EMOTIONS.
      means: {"activation", "valence", "dominance", "naturalness"}: the means as written; None where there is none.
      evaluations: one dict for each evaluator: evaluator, label, more (labels), and the ratings as in `means`.
      problem: why the turn is refused, or "".
      path: of its sound, relative to the release.
    """

    name: str
    code: str = ""
    means: dict = dataclasses.field(default_factory=dict)
    evaluations: list = dataclasses.field(default_factory=list)
    problem: str = ""
    path: str = ""


def parse_evaluation(text):
    """Turns of Evalution.txt, as (line number, Turn).

    A turn is a line `UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:4.0; V:2.8; D:2.8 ; N:3.2;` and, up to the next, a line for
    each evaluator: `WORKER01-p01; Neutral; Neutral,Concerned; A:4.0; V:3.0; D:3.0; N:3.0;`. Ratings may be `NaN`.
    """
    turns = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if "-IMPROV-" in line:
            match = HEAD.fullmatch(line)
            turn = _turn(*match.groups()) if match else Turn("", problem=f"not a line of a turn: {line[:60]!r}")
            turns.append((number, turn))
        elif turns and line.count(";") >= 2:
            evaluator, label, rest = (field.strip() for field in line.split(";", 2))
            more = RATING.split(rest)[0].strip(" ;")
            turns[-1][1].evaluations.append({
                "evaluator": evaluator, "label": label,
                "more": [word.strip() for word in more.split(",") if word.strip()], **_ratings(rest)})
    return turns


def _turn(name, fields):
    match = NAME.fullmatch(name)
    code = fields.split(";")[0].strip()
    if match is None or match[5] not in SCENARIOS:
        return Turn(name, code, problem="the name is not sentence, speaker, scenario and turn, as S01A-F01-P-FM01")
    if code not in EMOTIONS:
        return Turn(name, code, problem=f"unknown emotion {code!r} (known: {', '.join(EMOTIONS)})")
    return Turn(name, code, _ratings(fields))


def _ratings(fields):
    """{name: number, or None where there is none} of `A:4.0; V:2.8; D:2.8 ; N:3.2;`."""
    ratings = dict.fromkeys(RATINGS.values())
    for letter, value in RATING.findall(fields):
        try:
            number = float(value)
        except ValueError:
            continue
        ratings[RATINGS[letter]] = number if math.isfinite(number) else None
    return ratings
