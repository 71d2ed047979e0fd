"""What the page shows of a layer study: sentences, a table, the maps as compact text, figures."""

import base64

import numpy as np

from ser_jax.report import feature_file, layer_figures
from ser_jax.report.layer_study import BEYOND, LEVEL, ORDERS, OUTSIDE
from ser_jax.report.tables import NOTHING, format_count, format_metric

RESOLUTION = 8000  # steps of r from 0 to 1 in the page; 14 bits with the sign, and two for the state


def present(study, place, speakers=()):
    """The layer study number `place` of a page, as the template takes it.

    Args:
      study: a `layer_study.Study`.
      place: 1 for the first.
      speakers: whose maps to draw as figures, where they are in this study; by default who has the most utterances.
    """
    drawn = [study.views.index(name, 1) for name in speakers if name in study.views[1:]] or [study.most_heard]
    scales = _scales(study)
    maps = [layer_figures.maps_picture(study, view, scales[view], f"layers_{place}_speaker_{number}")
            for number, view in enumerate(drawn, 1)]
    maps.append(layer_figures.maps_picture(study, 0, scales[0], f"layers_{place}_mean"))
    return {
        "study": study,
        "anchor": f"layers-{place}",
        "data": _data(study, scales),
        "sentences": [(target, sentence(study.maps[target][0])) for target in study.targets],
        "table": [(name, [_cells(study.maps[target][view]) for target in study.targets])
                  for view, name in enumerate(study.views)],
        "maps": maps,
        "curves": layer_figures.layers_picture(study, f"layers_{place}_curves"),
        "facts": _facts(study),
    }


def sentence(each):
    """How many cells of a Map stand out, against chance."""
    if not each.defined:
        return "Undefined: fewer than 3 utterances, or constant ratings."
    cells = each.state.size
    undefined = f"; {format_count(cells - each.defined)} are undefined" if each.defined < cells else ""
    return (
        f"{format_count(each.outside)} of {format_count(each.defined)} cells lie outside their band; chance gives "
        f"{each.expected:.0f} on average and at most {format_count(each.expected_high)} in 95 % of the orders "
        f"(p = {each.p_value:.3g}). {format_count(each.beyond)} lie beyond |r| = {each.limit:.2f}, which chance reaches "
        f"anywhere in the map in {100 * LEVEL:.0f} % of the orders{undefined}."
    )


def packed(each):
    """A Map as base64 of little-endian uint16: state · 2^14 + round(8000 r) + 8192."""
    r = np.rint(np.nan_to_num(each.r) * RESOLUTION).astype(np.int64) + 8192
    return base64.b64encode((each.state.astype(np.int64) * 2**14 + r).astype("<u2").tobytes()).decode("ascii")


def _scales(study):
    """|r| of full colour for each view: one scale for all speakers, one for the mean."""
    mean = layer_figures.scale_of([study.maps[target][0] for target in study.targets])
    speakers = layer_figures.scale_of([each for target in study.targets for each in study.maps[target][1:]])
    return [mean] + [speakers] * (len(study.views) - 1)


def _data(study, scales):
    views = [
        {
            "name": name,
            "scale": scale,
            "maps": [packed(study.maps[target][view]) for target in study.targets],
            "about": [sentence(study.maps[target][view]) for target in study.targets],
        }
        for view, (name, scale) in enumerate(zip(study.views, scales))
    ]
    return {
        "layers": study.layers,
        "features": [study.feature(place) for place in range(study.width)],
        "targets": study.targets,
        "views": views,
        "states": {"outside": OUTSIDE, "beyond": BEYOND, "resolution": RESOLUTION},
        "weakest": layer_figures.WEAKEST,
        "noise": layer_figures.NOISE_STRENGTH,
    }


def _cells(each):
    if not each.defined:
        return [format_count(each.utterances), "undefined", NOTHING, NOTHING, NOTHING]
    return [
        format_count(each.utterances),
        f"{format_count(each.outside)} of {format_count(each.defined)}",
        f"{each.expected:.0f}; {format_count(each.expected_high)}",
        f"{each.p_value:.3f}",
        f"{format_count(each.beyond)} beyond {format_metric('Pearson', each.limit)}",
    ]


def _unheard(study):
    """"Ses05M (valence)": speakers and the rating for which no correlation of theirs is defined."""
    return [f"{name} ({target})" for view, name in enumerate(study.views) for target in study.targets
            if view and not study.maps[target][view].defined]  # fmt: skip


def _facts(study):
    pairs = [
        *feature_file.facts(study.file, study.metadata),
        ("utterances", f"{format_count(study.utterances)} of {len(study.views) - 1} speakers"),
        ("speakers without a map", ", ".join(_unheard(study))),
        ("pretrained on", f"{format_count(study.seen)} of these utterances, without their ratings" if study.seen else ""),
        ("random orders", f"{ORDERS - 1}, within each speaker"),
    ]  # fmt: skip
    return [(label, text) for label, text in pairs if text]
