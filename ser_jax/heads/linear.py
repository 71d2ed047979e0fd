"""A fitted linear head as plain arrays: scores with numpy alone, saved without pickle, tied to the extractor of its
features."""

import dataclasses
import json
import zipfile

import numpy as np

from ser_jax.errors import UserError
from ser_jax.export.features import extractor_hash
from ser_jax.files import atomic_path


@dataclasses.dataclass
class LinearModel:
    """scores(x) = ((x − shift) · scale) Wᵀ + b.

    Attributes:
      shift, scale: float64[D], of the scaler.
      coef, intercept: float64[K, D], float64[K]; for two classes the rows are each other's negative. Zero for features
        that were not selected.
      classes: K labels, sorted; empty for a regression, where K = 1 and the score is the prediction.
      chosen: JSON-able hyper-parameters that were chosen.
      unconverged: number of fits, those of the search included, that stopped at the limit of iterations.
    """

    shift: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    classes: list
    chosen: dict = dataclasses.field(default_factory=dict)
    unconverged: int = 0

    def scores(self, x):
        """float64[N, K] for features float[N, D]."""
        return ((np.asarray(x, np.float64) - self.shift) * self.scale) @ self.coef.T + self.intercept

    def predict(self, x):
        """Labels, length N, the first in sorted order wins a tie; float64[N] for a regression."""
        if not self.classes:
            return self.scores(x)[:, 0]
        return np.asarray(self.classes, dtype=object)[self.scores(x).argmax(1)]


    def spread(self, columns, size):
        """The model over `size` features that scores alike, when this one was fitted on `columns` of them."""

        def place(values, otherwise=0.0):
            whole = np.full((*values.shape[:-1], size), otherwise)
            whole[..., columns] = values
            return whole

        return dataclasses.replace(
            self, shift=place(self.shift), scale=place(self.scale, 1.0), coef=place(self.coef)
        )


def save_head(model, path, metadata, about=None):
    """Saves a fitted head as .npz together with the metadata of the features it was fitted on.

    Args:
      model: a `LinearModel`.
      path: of the file.
      metadata: of the features.
      about: JSON-able facts to keep with it (target, head, protocol...).
    """
    facts = {
        "format": 1,
        "features": metadata,
        "extractor": extractor_hash(metadata, model.coef.shape[1]),
        "chosen": model.chosen,
        "about": about or {},
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            shift=model.shift,
            scale=model.scale,
            coef=model.coef,
            intercept=model.intercept,
            classes=np.array(model.classes, dtype="U"),
            metadata=np.array(json.dumps(facts, sort_keys=True)),
        )


def load_head(path, features):
    """Loads a head for `features` (a `Features`).

    Raises:
      UserError: not a head, or fitted on features of another extractor (checkpoint, layer, pooling, chunking, size).
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("shift", "scale", "coef", "intercept", "classes", "metadata")}
            facts = json.loads(str(arrays.pop("metadata")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a head saved by --save-head ({' '.join(str(error).split())[:120]})") from None
    found = extractor_hash(features.metadata, features.embedding.shape[1])
    if facts.get("extractor") != found:
        differs = _differences(
            facts["features"], features.metadata, arrays["coef"].shape[1], features.embedding.shape[1]
        )
        raise UserError(
            f"{path}: this head was fitted on features of another extractor ({differs}); export with the same "
            "checkpoint, layer and pooling"
        )
    return LinearModel(
        arrays["shift"],
        arrays["scale"],
        arrays["coef"],
        arrays["intercept"],
        arrays["classes"].tolist(),
        facts["chosen"],
    )


def _differences(fitted, given, size_fitted, size_given):
    from ser_jax.export.features import EXTRACTOR_KEYS

    pairs = {key: (fitted.get(key), given.get(key)) for key in EXTRACTOR_KEYS}
    pairs["checkpoint"] = tuple((metadata.get("checkpoint") or {}).get("hash") for metadata in (fitted, given))
    pairs["dimension"] = size_fitted, size_given
    found = ", ".join(f"{key} {a} but here {b}" for key, (a, b) in pairs.items() if a != b)
    return found or "the checkpoints or front ends of its parts"
