"""IEMOCAP: improvised and scripted dialogues of ten actors (Busso et al., LREV 42, 2008): release tree or archive.

Labels are read from `SessionK/dialog/EmoEvaluation/<dialog>.txt`, words from
`SessionK/dialog/transcriptions/<dialog>.txt` and sound from `SessionK/sentences/wav/<dialog>/<turn>.wav`. The formats
are described in the release's own readme files.
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

EMOTIONS = {"ang": "angry", "hap": "happy", "exc": "excited", "neu": "neutral", "sad": "sad", "fru": "frustrated",
            "fea": "fearful", "sur": "surprised", "dis": "disgusted", "oth": "other",
            "xxx": ""}  # the evaluators do not agree
SCENARIOS = {"impro": "improvised", "script": "scripted"}
GENDERS = {"F": "female", "M": "male"}
RATINGS = {"val": "valence", "act": "arousal", "dom": "dominance"}  # in the order of a turn's means
LOWEST, HIGHEST = 1.0, 5.0  # of the rating scale
TURNS = 10_039
ARCHIVES = ("IEMOCAP_full_release", "IEMOCAP_full_release_withoutVideos")

NAME = re.compile(r"Ses(\d\d)[FM]_(impro|script)\w*_([FM])\d{3}")
HEAD = re.compile(r"\[\s*(\S+)\s*-\s*(\S+)\s*\]\s+(\S+)\s+(\S+)\s+\[([^,\]]+),([^,\]]+),([^,\]]+)\]")
EVALUATOR = re.compile(r"([CA])-(\w+):\s*(.*)")
WORDS = re.compile(r"(Ses\w+)\s*\[[^\]]*\]:?(.*)")


class Iemocap:
    """Reads IEMOCAP, whole or some of its sessions. One record for each turn that EmoEvaluation lists, 10,039 in all.

    Records: id = turn, e.g. "Ses01F_impro01_M000"; speaker_id = session and the gender letter of the *turn* ("Ses01M";
    the letter after the session tells who wore the markers); valence, arousal ("activation" there) and dominance =
    means over the evaluators, 1..5, as written: the few outside of that scale are kept and named on stderr; emotion =
    majority label, "" for `xxx` (no majority); text as transcribed, with its [LAUGHTER] marks, "" where there is none.
    extra: dialog, scenario ("improvised" or "scripted"), code (raw label), start and end in the dialogue (s),
    categories and ratings of every evaluator (E1...: observers, F1 and M1: the actors themselves, who are not in the
    means), outliers (dimensions outside of 1..5).

    Subsets of the literature are choices of `ser-jax probe`: the 7,532 turns with a majority label are
    `--where emotion!=`, the 5,531 turns of four classes `--classes angry,happy+excited,neutral,sad`.

    Args:
      source: the folder that has `Session1` to `Session5` (`IEMOCAP_full_release`), its parent, or the archive.
      scratch: where the archive is unpacked; None: `unpacked/` beside it (the verb prepare says: beside the output).
    """

    name = "iemocap"
    language = "en"
    licence = "IEMOCAP data release agreement of USC SAIL (on request)"
    synthetic = False

    def __init__(self, source, scratch=None):
        if source is None:
            raise UsageError("iemocap needs --source: the folder with Session1, ..., Session5 (IEMOCAP_full_release)")
        self.source, self.scratch = Path(source), scratch
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; give IEMOCAP_full_release as --source")

    def options(self):
        return {}

    def units(self):
        """One unit per turn; tells on stderr what is missing or odd.

        Raises:
          UserError: the source holds no IEMOCAP.
        """
        units = []
        for key, turn in self._turns.items():
            stamp = f"{archives.size_and_time(self._root / turn.path)}/{canonical_hash(dataclasses.asdict(turn))}"
            units.append(Unit(key=key, path=turn.path, stamp=stamp))
        self._tell()
        return units

    def load(self, unit):
        turn = self._turns[unit.key]
        if turn.problem:
            yield Reject(unit.key, unit.path, turn.problem)
            return
        path = self._root / turn.path
        if not path.exists():
            yield Reject(unit.key, unit.path, "missing file (its labels are there)")
            return
        session, scenario, gender = NAME.fullmatch(turn.name).groups()
        dialog = turn.name.rpartition("_")[0]
        yield Utterance(
            id=turn.name, corpus=self.name, source=turn.path, speech=audio.read(path), text=turn.text,
            speaker_id=f"Ses{session}{gender}", gender=GENDERS[gender], session=f"Ses{session}",
            emotion=EMOTIONS[turn.code], **turn.means, language=self.language,
            extra={"dialog": dialog, "scenario": SCENARIOS[scenario], "code": turn.code, "start": turn.start,
                   "end": turn.end, "categories": turn.categories, "ratings": turn.ratings, "outliers": turn.outliers})

    @functools.cached_property
    def _root(self):
        source = self.source
        if source.is_dir() and _release(source) is None:
            source = next(iter(archives.find(source, ARCHIVES).values()), source)
        if source.is_file():
            if archives.stem(source) is None:
                raise UserError(f"{source}: neither a folder nor an archive ({', '.join(archives.SUFFIXES)})")
            source = archives.unpack(source, archives.scratch_for(source, self.scratch))
        root = _release(source)
        if root is None:
            raise UserError(f"{self.source}: no IEMOCAP found (expected Session1/dialog/EmoEvaluation/ and "
                            "Session1/sentences/wav/, or the archive IEMOCAP_full_release.tar.gz)")
        return root

    @functools.cached_property
    def _turns(self):
        """{unit key: Turn} of all dialogues, in their order."""
        turns = {}
        for path in _files(self._root, "Session[1-9]/dialog/EmoEvaluation"):
            session = path.parts[-4]
            transcript = self._root / session / "dialog" / "transcriptions" / path.name
            words = parse_transcript(_text(transcript)) if transcript.exists() else {}
            for number, turn in parse_evaluation(_text(path)):
                turn.path = f"{session}/sentences/wav/{turn.name.rpartition('_')[0]}/{turn.name}.wav"
                turn.text = words.get(turn.name, "")
                if not turn.problem and f"Session{int(turn.name[3:5])}" != session:
                    turn.problem = f"the name says session {int(turn.name[3:5])}, the folder {session}"
                elif not turn.problem and turn.name in turns:
                    turn.problem = "turn listed twice"
                key = f"{path.stem}:{number}" if turn.problem else turn.name
                if turn.problem:
                    turn.path = path.relative_to(self._root).as_posix()
                turns[key] = turn
        if not turns:
            raise UserError(f"{self._root}: no turn in Session*/dialog/EmoEvaluation/*.txt")
        return turns

    def _tell(self):
        turns = self._turns.values()
        if len(turns) != TURNS:
            sessions = len({turn.path.split("/")[0] for turn in turns})
            print(f"iemocap: {len(turns)} turns in {sessions} sessions; the whole release has {TURNS:,} in 5",
                  file=sys.stderr)
        silent = sum(not turn.text and not turn.problem for turn in turns)
        if silent:
            print(f"iemocap: {silent} turns have no transcription; their text is empty", file=sys.stderr)
        odd = [f"{turn.name} {name} {turn.means[name]:g}" for turn in turns for name in turn.outliers]
        if odd:
            more = f" and {len(odd) - 10} more" if len(odd) > 10 else ""
            print(f"iemocap: mean ratings outside of {LOWEST:g} to {HIGHEST:g} ({len(odd)}) are kept as they are: "
                  f"{', '.join(odd[:10])}{more}", file=sys.stderr)


@dataclasses.dataclass
class Turn:
    """What EmoEvaluation and the transcription tell about one turn.

    Attributes:
      name: e.g. "Ses01F_impro01_F000".
      code: raw label, a key of EMOTIONS.
      start, end: seconds in the dialogue.
      means: {"valence", "arousal", "dominance"}: the means as written.
      categories: {evaluator: labels}.
      ratings: {evaluator: {"valence", "arousal", "dominance"}}, None where the evaluator gave none.
      problem: why the turn is refused, or "".
      path: of its sound, relative to the release.
    """

    name: str
    code: str = ""
    start: float = 0.0
    end: float = 0.0
    means: dict = dataclasses.field(default_factory=dict)
    categories: dict = dataclasses.field(default_factory=dict)
    ratings: dict = dataclasses.field(default_factory=dict)
    problem: str = ""
    path: str = ""
    text: str = ""

    @property
    def outliers(self):
        """Dimensions whose mean is outside of the scale."""
        return [name for name, mean in self.means.items() if not LOWEST <= mean <= HIGHEST]


def parse_evaluation(text):
    """Turns of one file of EmoEvaluation, as (line number, Turn).

    A turn is a line `[start - end] <tab> name <tab> code <tab> [valence, activation, dominance]` and, up to the next,
    a line for each evaluator: `C-E2: Neutral; Anger; (comment)` or `A-E3: val 3; act 2; dom  2; (comment)`.
    """
    turns = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line.startswith("["):
            turns.append((number, _turn(line)))
        elif turns and (match := EVALUATOR.fullmatch(line)):
            kind, evaluator, judgement = match.groups()
            fields = [field.strip() for field in judgement.partition("(")[0].split(";")]
            if kind == "C":
                turns[-1][1].categories[evaluator] = [field for field in fields if field]
            else:
                turns[-1][1].ratings[evaluator] = _ratings(fields)
    return turns


def parse_transcript(text):
    """{turn: words} from the lines `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.`; the first counts.

    Lines of other forms (`M: Yeah.`) belong to no turn.
    """
    words = {}
    for line in text.split("\n"):
        if match := WORDS.fullmatch(line.strip()):
            words.setdefault(match[1], match[2].strip())
    return words


def _turn(line):
    match = HEAD.fullmatch(line)
    if match is None:
        return Turn("", problem=f"not a line of a turn: {line[:60]!r}")
    start, end, name, code, *means = match.groups()
    if not NAME.fullmatch(name):
        return Turn(name, problem="the name is not SesNNX_<dialog>_XNNN")
    if code not in EMOTIONS:
        return Turn(name, code, problem=f"unknown emotion {code!r} (known: {', '.join(EMOTIONS)})")
    try:
        numbers = [float(text) for text in (start, end, *means)]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        return Turn(name, code, problem=f"not a line of a turn: {line[:60]!r}")
    return Turn(name, code, *numbers[:2], dict(zip(RATINGS.values(), numbers[2:], strict=True)))


def _ratings(fields):
    given = dict(field.split(None, 1) for field in fields if len(field.split()) == 2)
    ratings = {}
    for short, name in RATINGS.items():
        try:
            ratings[name] = float(given[short])
        except (KeyError, ValueError):
            ratings[name] = None
        else:
            if not math.isfinite(ratings[name]):
                ratings[name] = None
    return ratings


def _release(folder):
    """The folder that holds the sessions, `folder` itself or one in it; None where there is none."""
    places = [place for depth in ("", "IEMOCAP*/", "IEMOCAP*/IEMOCAP*/")
              for place in sorted(folder.glob(f"{depth}Session[1-9]/dialog/EmoEvaluation"))]
    return places[0].parents[2] if places else None


def _files(root, folders):
    """Text files of the folders, hidden ones (`._Ses01F_impro01.txt`, left by macOS) aside, in order."""
    found = [path for folder in root.glob(folders) for path in folder.glob("*.txt")]
    return sorted(path for path in found if not path.name.startswith("."))


def _text(path):
    return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
