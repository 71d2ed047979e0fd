"""Which layers of a features file a probe uses, as text: first-3, last-3, all, each, or names."""

import re

from ser_jax.errors import UsageError, UserError, suggestion

WAYS = "first-N, last-N, all, each, or NAME,NAME"
_ENDS = re.compile(r"(first|last)-(\d+)")


def layer_sets(features, text):
    """The sets of layers that `text` stands for.

    Args:
      features: a `Features`.
      text: first-N or last-N (in the order of the file), all, each (every layer by itself), or names.

    Returns:
      [(short text, names)]; several only for "each".

    Raises:
      UserError: no such layers in the features.
    """
    known = features.layers
    if not known:
        raise UserError(
            f"--layers {text}: the features do not tell which values belong to which layer; export them again"
        )
    if text == "each":
        return [(name, [name]) for name in known]
    if text == "all":
        return [("all", known)]
    ends = _ENDS.fullmatch(text)
    if ends:
        count = int(ends[2])
        if not 1 <= count <= len(known):
            raise UsageError(f"--layers {text}: the features have {len(known)} layer(s), {', '.join(known)}")
        return [(text, known[:count] if ends[1] == "first" else known[-count:])]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            close = suggestion(name, [*known, "first-3", "last-3", "all", "each"])
            raise UsageError(
                f"--layers {text}: no layer {name!r} in the features{close}; give {WAYS}; there are: {', '.join(known)}"
            )
    # In the order of the file, so that a set of layers is one row however it is spelt.
    return [(text, [name for name in known if name in names])]
