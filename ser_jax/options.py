"""Values that come as text: NAME=VALUE of the command line, converted to the type of what they replace."""

import math
import types
import typing

from ser_jax.errors import UsageError, suggestion

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def convert(text, kind):
    """Text as a value of type `kind`: bool, int, float, str, tuple[X, ...] (comma separated) or `X | None`.

    Raises:
      ValueError(text, kind): it, or a part of it, is none; infinities and NaN are no floats, as JSON could not hold them.
    """
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if text.lower() in ("none", "null"):
            return None
        return convert(text, next(part for part in typing.get_args(kind) if part is not type(None)))
    if origin is tuple:
        parts = text.strip("()[]").split(",")
        return tuple(convert(part.strip(), typing.get_args(kind)[0]) for part in parts if part.strip())
    try:
        value = _WORDS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(text, kind) from None
    if kind is float and not math.isfinite(value):
        raise ValueError(text, kind)
    return value


def name_of(kind):
    """A type as the reader is told of it."""
    return getattr(kind, "__name__", kind)


def read_options(assignments, kinds, none="none"):
    """{name: value} of texts "NAME=VALUE", those of --option.

    Args:
      assignments: the texts.
      kinds: {name: type} of the known ones.
      none: what to call known when there are none.

    Raises:
      UsageError: no such name, or no value of its type.
    """
    options = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in kinds:
            known, wrong = ", ".join(kinds) or none, "unknown" if equals else "expected NAME=VALUE"
            raise UsageError(f"--option {assignment}: {wrong}{suggestion(name, kinds)}; known: {known}")
        try:
            options[name] = convert(text, kinds[name])
        except ValueError as error:
            text, kind = error.args
            raise UsageError(f"--option {name}={text}: not a value of type {name_of(kind)}") from None
    return options
