"""Fold schemes. To add one, write a function with the arguments of the others and enter it in `PROTOCOLS`.

A scheme is given one row per utterance (a pandas table with the columns of a features file) and returns folds of ids.
It depends on the set of rows, never on their order. Every fold gets a dev part of speakers (or sessions) taken from its
training side, so that two heads, one that needs dev and one that does not, are compared on one protocol. A scheme is told
how by a `Dev` of `DEV_PARTS`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable

import numpy as np

from ser_jax.errors import UsageError, UserError, suggestion
from ser_jax.protocols.protocol import Fold, Protocol, read_protocol

DEV_SHARE = 5  # dev is one of five parts of the training speakers
CROSS = "cross_corpus"  # the column that `heads.cross_corpus.join` adds, with the values of OF_CROSS
OF_CROSS = ("train", "test")
_OFFICIAL = {"train": re.compile(r"train"), "dev": re.compile(r"dev|val"), "test": re.compile(r"test|eval")}


def official(table, target, folds, seed, dev_part):
    """The corpus' own partition: splits called train…, dev… or val…, test… or eval… ("train-clean-100", "devel").

    Without an official dev part, one is taken from the training speakers where they are known.
    """
    split = table["split"].fillna("").str.lower()
    part = {name: split.map(lambda text, p=pattern: bool(p.match(text))) for name, pattern in _OFFICIAL.items()}
    for name in ("train", "test"):
        if not part[name].any():
            known = ", ".join(sorted(set(split) - {""})) or "none"
            raise UserError(
                f"--protocol official: no {name} split in the features (splits: {known}); "
                "use loso, losso, kfold or a file"
            )
    speakers = corpus_keys(table, "speaker_id")
    dev, train, description = part["dev"], part["train"], "official partition"
    if dev.any() and dev_part.name != "groups":
        raise UsageError(f"--dev {dev_part.name}: the corpus has its own dev part; leave it out")
    if not dev.any() and (dev_part.name != "groups" or (speakers[train] != "").all()):
        dev = train.copy()
        dev[train] = dev_part.choose(table[train], speakers[train], target, f"{seed}/dev/official")
        description += f"; dev = {_dev_text(dev_part, 'speakers', table, target)}"
    left_out = sorted(set(split[~(part["train"] | part["dev"] | part["test"])]))
    if left_out:
        description += f"; not in it: {', '.join(repr(name) for name in left_out)}"
    parts = (_ids(table[rows]) for rows in (train & ~dev, dev, part["test"]))
    return Protocol("official", description, (Fold("official", *parts),))


def leave_one_speaker_out(table, target, folds, seed, dev_part):
    """One fold per speaker, who is tested; dev = a fifth of the other speakers."""
    speakers = _known(table, corpus_keys(table, "speaker_id"), "loso", "speaker_id")
    return _leave_one_out("loso", "leave one speaker out", table, speakers, target, seed, dev_part)


def leave_one_session_out(table, target, folds, seed, dev_part):
    """One fold per recording session (IEMOCAP: a pair of speakers); dev = one (a fifth) of the other sessions."""
    sessions = _known(table, corpus_keys(table, "session"), "losso", "session")
    return _leave_one_out("losso", "leave one session out", table, sessions, target, seed, dev_part)


def grouped_kfold(table, target, folds, seed, dev_part):
    """`folds` folds of whole speakers, stratified over the target as far as whole speakers allow."""
    speakers = _known(table, corpus_keys(table, "speaker_id"), "kfold", "speaker_id")
    if not 2 <= folds <= speakers.nunique():
        raise UsageError(f"--folds {folds}: must be between 2 and the number of speakers, {speakers.nunique()}")
    part = assign_groups(speakers, _labels(table, target), folds, f"{seed}/kfold")
    made = tuple(
        _fold(f"fold-{number + 1}", table, speakers, part == number, target, seed, dev_part) for number in range(folds)
    )
    stratified = "" if _numeric(table, target) else f"stratified over {target}, "
    return Protocol(
        f"kfold-{folds}",
        f"{folds} folds of whole speakers, {stratified}seed {seed}; dev = {_dev_text(dev_part, 'speakers', table, target)}",
        made,
    )


def cross_corpus(table, target, folds, seed, dev_part):
    """Trained on one corpus, tested on all of another (one fold); dev = a fifth of the training speakers if known."""
    if CROSS not in table:
        raise UsageError("--protocol cross: name the features of the corpus to test with --test-features FILE")
    train, test = ((table[CROSS] == name).to_numpy() for name in OF_CROSS)
    for name, rows in zip(OF_CROSS, (train, test)):
        if not rows.any():
            raise UserError(f"--protocol cross: no utterance of the {name} corpus is left; relax --where or --classes")
    speakers = corpus_keys(table, "speaker_id")
    names = [", ".join(sorted(set(table["corpus"][rows]) - {""})) or "one corpus" for rows in (train, test)]
    description, dev = f"trained on {names[0]}, tested on {names[1]}", np.zeros(len(table), bool)
    if dev_part.name != "groups" or (speakers[train] != "").all():
        dev[train] = dev_part.choose(table[train], speakers[train], target, f"{seed}/dev/cross")
        description += f"; dev = {_dev_text(dev_part, 'speakers', table, target)}, seed {seed}"
    parts = (_ids(table[rows]) for rows in (train & ~dev, dev, test))
    return Protocol("cross", description, (Fold("cross", *parts),))


PROTOCOLS = {
    "official": official,
    "loso": leave_one_speaker_out,
    "losso": leave_one_session_out,
    "kfold": grouped_kfold,
    "cross": cross_corpus,
}


def make_protocol(name, table, target, folds=5, seed=0, dev="groups"):
    """Builds the protocol `name` of PROTOCOLS for the utterances of `table`, or reads a file called *.json.

    Args:
      name: a key of PROTOCOLS, or the path of a protocol file.
      table: a features table; of several rows with one id the first chunk counts.
      target: the column to stratify over, when it holds labels.
      folds: number of folds, for the schemes that ask.
      seed: of the assignment of speakers to folds and to dev.
      dev: a key of DEV_PARTS. "groups": whole speakers, or whole sessions where these are left out. "utterances": a
        random tenth of the training utterances, as some papers have it; who is in dev then speaks in train too.

    Raises:
      UserError: unknown name, or the table lacks what the scheme needs (speakers, sessions, splits).
    """
    if dev not in DEV_PARTS:
        raise UsageError(f"--dev {dev}: unknown{suggestion(dev, DEV_PARTS)}; known: {', '.join(DEV_PARTS)}")
    if name.endswith(".json"):
        if dev != "groups":
            raise UsageError(f"--dev {dev}: {name} says which utterances are dev; leave it out")
        return read_protocol(name)
    if name not in PROTOCOLS:
        raise UsageError(
            f"--protocol {name}: unknown{suggestion(name, PROTOCOLS)}; known: {', '.join(PROTOCOLS)}, or a .json file"
        )
    table = table.sort_values(["id", "chunk"]).drop_duplicates("id").reset_index(drop=True)
    return PROTOCOLS[name](table, target, folds, seed, DEV_PARTS[dev])


def corpus_keys(table, column):
    """Values of a text column ("speaker_id", "session"…), made unique over corpora.

    That is "corpus/value" where the table has several corpora. Unknown stays "".
    """
    values = table[column].fillna("").astype(str)
    if table["corpus"].nunique() > 1:
        values = (table["corpus"].astype(str) + "/" + values).where(values != "", "")
    return values


def assign_groups(groups, labels, parts, seed):
    """Assigns whole groups to parts, so that each part has about the same share of every label: int64[N].

    Greedy, groups with the most uneven labels first (as scikit-learn's StratifiedGroupKFold), equals in the order of a
    hash of seed and group. Kept here because a protocol must not change with the version of a library or the order of
    rows.

    Args:
      groups: group of each row, length N.
      labels: label of each row, length N.
      parts: number of parts, at most the number of groups; none stays empty.
      seed: text or number.
    """
    groups = np.asarray(groups, dtype=object)
    names = sorted(set(groups))
    place = {name: index for index, name in enumerate(names)}
    member = np.array([place[name] for name in groups])
    label = np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1].reshape(-1)
    counts = np.zeros((len(names), label.max() + 1))
    np.add.at(counts, (member, label), 1)

    order = sorted(range(len(names)), key=lambda g: (-round(float(counts[g].std()), 9), _hash(seed, names[g])))
    share = counts / counts.sum(0)
    filled, rows, chosen = np.zeros((parts, counts.shape[1])), np.zeros(parts), np.zeros(len(names), np.int64)
    for done, group in enumerate(order):
        empty = [p for p in range(parts) if rows[p] == 0]
        candidates = empty if len(order) - done <= len(empty) else range(parts)

        def unevenness(p, added=share[group]):
            trial = filled.copy()
            trial[p] += added
            return round(float(trial.std(0).mean()), 9), rows[p], p

        best = min(candidates, key=unevenness)
        filled[best] += share[group]
        rows[best] += counts[group].sum()
        chosen[group] = best
    return chosen[member]


def hold_out(table, groups, target, seed):
    """bool[N]: the rows of about a fifth of the groups (speakers), for a dev part; none of a single group."""
    parts = min(DEV_SHARE, len(set(groups)))
    if parts < 2:
        return np.zeros(len(table), bool)
    return assign_groups(groups, _labels(table, target), parts, seed) == 0


def hold_out_utterances(table, groups, target, seed):
    """bool[N]: a random tenth of the rows of every label, at least one of two or more; `groups` are not looked at."""
    labels, ids, held = _labels(table, target), table["id"].to_numpy(dtype=object), np.zeros(len(table), bool)
    for label in sorted(set(labels.tolist())):
        rows = sorted(np.flatnonzero(labels == label), key=lambda row: _hash(seed, ids[row]))
        if len(rows) > 1:
            held[rows[: max(1, round(len(rows) / 10))]] = True
    return held


@dataclasses.dataclass(frozen=True)
class Dev:
    """How the dev part is taken from the training side of a fold.

    Attributes:
      name: its key in DEV_PARTS.
      choose: `(table, groups, target, seed) -> bool[N]`.
      text: what it is; {unit} stands for "speakers" or "sessions", {alike} for a word on labels where there are any.
    """

    name: str
    choose: Callable
    text: str


DEV_PARTS = {
    "groups": Dev("groups", hold_out, "a fifth of the training {unit}"),
    "utterances": Dev("utterances", hold_out_utterances, "a random tenth of the training utterances{alike}"),
}


def _dev_text(dev_part, unit, table, target):
    return dev_part.text.format(unit=unit, alike="" if _numeric(table, target) else f", of each {target} alike")


def _leave_one_out(name, description, table, groups, target, seed, dev_part):
    if groups.nunique() < 2:
        raise UserError(f"--protocol {name}: needs at least two, found only {groups.iloc[0]!r}")
    made = tuple(
        _fold(group, table, groups, (groups == group).to_numpy(), target, seed, dev_part)
        for group in sorted(set(groups))
    )
    unit = "speakers" if name == "loso" else "sessions"
    return Protocol(
        name, f"{description}; dev = {_dev_text(dev_part, unit, table, target)} (at least one), seed {seed}", made
    )


def _fold(name, table, groups, test, target, seed, dev_part):
    rest = table[~test]
    dev = dev_part.choose(rest, groups[~test], target, f"{seed}/dev/{name}")
    return Fold(name, _ids(rest[~dev]), _ids(rest[dev]), _ids(table[test]))


def _labels(table, target):
    """Labels to stratify over; one label for all where the target is a number."""
    return np.zeros(len(table), int) if _numeric(table, target) else table[target].astype(str).to_numpy()


def _numeric(table, target):
    return table[target].dtype.kind == "f"


def _known(table, values, protocol, column):
    unknown = table["id"][values == ""]
    if len(unknown):
        raise UserError(
            f"--protocol {protocol}: {len(unknown)} of {len(table)} utterances have no {column}, e.g. "
            f"{unknown.iloc[0]!r}; use another protocol or leave them out with --where"
        )
    return values


def _ids(table):
    return tuple(sorted(table["id"]))


def _hash(seed, group):
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()
