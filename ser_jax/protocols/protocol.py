"""A protocol: which utterances are in train, dev and test of each fold. A file with a hash, not a line of code."""

import dataclasses
from pathlib import Path

from ser_jax.errors import UserError
from ser_jax.files import canonical_hash, read_json, write_json

PARTS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold; the parts are disjoint tuples of utterance ids. `dev` is for choices (C, early stopping) and may be
    empty."""

    name: str
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Folds with a name and a sentence on how they were made."""

    name: str
    description: str
    folds: tuple[Fold, ...]

    @property
    def hash(self):
        """Depends on the folds alone: not on the name of the protocol, nor on the order of ids or folds."""
        return canonical_hash(_folds_as_json(self))

    def ids(self, part):
        """The set of ids that are in `part` ("train", "dev" or "test") of any fold."""
        return {identity for fold in self.folds for identity in getattr(fold, part)}

    def restricted(self, ids):
        """The protocol without the utterances that are not in `ids`; folds without train or test are left out."""
        ids = set(ids)
        folds = [
            Fold(fold.name, *(tuple(i for i in getattr(fold, part) if i in ids) for part in PARTS))
            for fold in self.folds
        ]
        return dataclasses.replace(self, folds=tuple(fold for fold in folds if fold.train and fold.test))


def write_protocol(protocol, path):
    """Writes the protocol as JSON: {"name", "description", "unit": "id", "hash", "folds": [{"name", "train", "dev",
    "test"}]}."""
    write_json(
        path,
        {
            "name": protocol.name,
            "description": protocol.description,
            "unit": "id",
            "hash": protocol.hash,
            "folds": _folds_as_json(protocol),
        },
    )


def read_protocol(path):
    """Reads a protocol file, written by `write_protocol` or by hand ("dev", "description", fold names are optional).

    Raises:
      UserError: not readable, not a protocol, or an utterance is in two parts of one fold.
    """
    path = Path(path)
    try:
        data = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("folds"), list) or not data["folds"]:
        raise UserError(
            f"{path}: not a protocol; expected "
            '{"name": ..., "folds": [{"train": [ids], "dev": [ids], "test": [ids]}]}'
        )
    if data.get("unit", "id") != "id":
        raise UserError(f'{path}: unit {data["unit"]!r} is not supported; list utterance ids and say "unit": "id"')
    folds = tuple(_read_fold(path, number, fold) for number, fold in enumerate(data["folds"], 1))
    names = [fold.name for fold in folds]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two folds have the same name; give each its own")
    protocol = Protocol(str(data.get("name") or path.stem), str(data.get("description") or f"from {path.name}"), folds)
    if data.get("hash") not in (None, protocol.hash):
        raise UserError(
            f"{path}: the folds were changed after the file was written (hash {data['hash']}, now {protocol.hash}); "
            'remove the "hash" entry if that is meant'
        )
    return protocol


def _read_fold(path, number, fold):
    if not isinstance(fold, dict):
        raise UserError(f"{path}: fold {number} is not an object with train, dev and test")
    name = str(fold.get("name") or f"fold-{number}")
    parts = []
    for part in PARTS:
        ids = fold.get(part, [])
        if not isinstance(ids, list) or not all(isinstance(identity, str) for identity in ids):
            raise UserError(f"{path}: {part} of fold {name!r} is not a list of utterance ids (text)")
        if not ids and part != "dev":
            raise UserError(f"{path}: fold {name!r} has no {part} utterances")
        parts.append(tuple(sorted(set(ids))))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = set(parts[first]) & set(parts[second])
        if both:
            raise UserError(
                f"{path}: {len(both)} utterances are in {PARTS[first]} and {PARTS[second]} of fold {name!r}, "
                f"e.g. {min(both)!r}"
            )
    return Fold(name, *parts)


def _folds_as_json(protocol):
    return [
        {"name": fold.name, **{part: sorted(getattr(fold, part)) for part in PARTS}}
        for fold in sorted(protocol.folds, key=lambda fold: fold.name)
    ]
