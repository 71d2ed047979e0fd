"""Who is held out of a run that is trained and tested on one corpus: its official parts, or speakers that take turns."""

import dataclasses
import re

from ser_jax.errors import UsageError

ALTERNATIVES = "|"


@dataclasses.dataclass(frozen=True)
class Fold:
    """One run of several.

    Attributes:
      name: of its folder.
      settings: overrides of its config.
      test: options of `ser-jax evaluate` that name its test part; "{corpus}" stands for the folder of the corpus.
    """

    name: str
    settings: tuple[str, ...]
    test: str


@dataclasses.dataclass(frozen=True)
class Official:
    """The partitions of the corpus, one run. Of several names with "|" between them, the first that the corpus has.

    Attributes:
      train, test: must be there.
      dev: where the corpus has none, a share of the training speakers takes its place.
      holdout: that share.
    """

    train: str = "train"
    dev: str = "dev"
    test: str = "test"
    holdout: float = 0.2

    def folds(self, index, sizes):
        """The one `Fold` of a corpus with this index."""
        known = set(index["split"])

        def of(names, needed):
            found = next((name for name in names.split(ALTERNATIVES) if name in known), None)
            if needed and found is None:
                raise UsageError(f"no utterance of the corpus is in {names.replace(ALTERNATIVES, ' or ')}; its splits: "
                                 f"{', '.join(sorted(known)) or 'none'}")
            return found

        dev = of(self.dev, False)
        held = ("data.holdout=0",) if dev else (f"data.holdout={self.holdout:g}",)
        return (Fold("", (f"data.splits={of(self.train, True)}", f"data.eval_splits={dev or ''}", *held),
                     f"--corpus {{corpus}} --split {of(self.test, True)}"),)


@dataclasses.dataclass(frozen=True)
class Rotation:
    """Speakers of the whole corpus take turns as the test part; the dev part is the same speakers every time.

    Dev are the speakers of the last session or, in a corpus without sessions, the last woman and the last man.

    Attributes:
      count: number of folds, or "{name}" of one of the paper's sizes; never more than there are speakers to test.
    """

    count: str = "{folds}"

    def folds(self, index, sizes):
        """The `Fold`s of a corpus with this index; each speaker who is not dev is tested in exactly one."""
        dev, rest = self._parts(index)
        wanted = self.count.format(**sizes)
        if not wanted.isdigit() or int(wanted) < 1:
            raise UsageError(f"--size folds={wanted}: give a number, at least 1")
        count = min(int(wanted), len(rest))
        if len(rest) < 2 or count < 2:
            raise UsageError(f"{len(rest)} speakers in {count} folds besides the {len(dev)} of dev: two at least are needed")
        return tuple(Fold(f"fold_{number + 1}", ("data.splits=", "data.eval_splits=", "data.holdout=0",
                                                 f"data.dev_speakers={','.join(dev)}",
                                                 f"data.test_speakers={','.join(rest[number::count])}"), "--part test")
                     for number in range(count))

    def _parts(self, index):
        """(dev, the others), speaker ids; of the others women come first, so that every fold gets of both genders."""
        speakers = index[["session", "gender", "speaker_id"]].drop_duplicates("speaker_id").sort_values(["gender", "speaker_id"])
        if (speakers["speaker_id"] == "").any():
            raise UsageError("the corpus does not tell the speaker of every utterance, so none can be held out")
        sessions = speakers["session"]
        dev = sessions == max(sessions, key=_by_number) if (sessions != "").all() else ~speakers.duplicated("gender", keep="last")
        return sorted(speakers["speaker_id"][dev]), speakers["speaker_id"][~dev].tolist()


def _by_number(name):
    """Sorts "9" before "10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
