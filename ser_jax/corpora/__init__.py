"""Corpora: official layouts brought to one record schema. `READERS` names the readers; each is imported when used."""

import importlib
import inspect

from ser_jax.errors import UsageError, suggestion
from ser_jax.options import convert

READERS = {
    "librispeech": "ser_jax.corpora.librispeech:LibriSpeech",
    "tedlium": "ser_jax.corpora.tedlium:Tedlium",
    "vctk": "ser_jax.corpora.vctk:Vctk",
    "timit": "ser_jax.corpora.timit:Timit",
    "ravdess": "ser_jax.corpora.ravdess:Ravdess",
    "iemocap": "ser_jax.corpora.iemocap:Iemocap",
    "msp_improv": "ser_jax.corpora.msp_improv:MspImprov",
    "emodb": "ser_jax.corpora.emodb:Emodb",
    "crema_d": "ser_jax.corpora.crema_d:CremaD",
    "savee": "ser_jax.corpora.savee:Savee",
    "manifest": "ser_jax.corpora.manifest:Manifest",
    "espeak": "ser_jax.corpora.espeak:Espeak",
}


def reader(name, source=None, options=None):
    """Builds the reader of corpus `name`.

    Args:
      name: a key of READERS.
      source: Path of the corpus, or None for a corpus that needs none.
      options: keyword arguments of the reader; text is converted to the type of the option's default.

    Raises:
      UsageError: unknown corpus, unknown option or a value that does not convert, with the nearest known name.
    """
    if name not in READERS:
        raise UsageError(f"unknown corpus {name!r}{suggestion(name, READERS)}; known: {', '.join(READERS)}")
    module, _, cls = READERS[name].partition(":")
    cls = getattr(importlib.import_module(module), cls)
    parameters = {key: parameter for key, parameter in inspect.signature(cls).parameters.items() if key != "source"}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    values = {}
    for key, value in (options or {}).items():
        if key in parameters:
            values[key] = _convert(name, key, value, parameters[key].default)
        elif takes_any:
            values[key] = value
        else:
            known = ", ".join(parameters) or "none"
            raise UsageError(f"{name}: unknown option {key!r}{suggestion(key, parameters)}; known: {known}")
    return cls(source, **values)


def takes_option(name, option):
    """Whether the reader of corpus `name` has the option; False for an unknown corpus."""
    if name not in READERS:
        return False
    module, _, cls = READERS[name].partition(":")
    return option in inspect.signature(getattr(importlib.import_module(module), cls)).parameters


def _convert(name, key, value, default):
    if not isinstance(value, str) or isinstance(default, str) or default is None or default is inspect.Parameter.empty:
        return value
    try:
        return convert(value, type(default))
    except ValueError:
        raise UsageError(f"{name}: option {key}={value} is not of type {type(default).__name__}") from None
