"""The tables of a report as plain values for the template."""

import json
import re

from ser_jax.report.rows import lower_is_better, name_of, number
from ser_jax.results import IN_PERCENT, format_value

STAMPS = {
    "SYNTHETIC": "Speech made by a synthesiser (the embedded corpus), tested or pretrained on. It shows that the "
    "machinery runs; it says nothing about human emotion and must not be quoted as a result.",
    "LEAKY": "A speaker or an audio file is on both sides of a train/test split (or a text, where a linguistic feature "
    "is in the row), or the features were selected with the labels of the tested rows. The figure is too optimistic.",
    "TEXT-SHARED": "The same sentences are on both sides of the split. Usual for acted corpora with few sentences, and "
    "harmless for speakers, but the text is not held out.",
    "TRANSDUCTIVE": "The checkpoint was pretrained, without emotion labels, on utterances that are now tested. Found "
    "by comparing audio hashes, not declared.",
    "UNAUDITED": "Some speakers are unknown, so whether they are on both sides of a split cannot be told.",
}
KINDS = {"probe": "Probes: heads on frozen embeddings", "evaluate": "Checkpoints on their own pretraining task"}
SECTIONS = ("checkpoint", "features", "corpus", "protocol")
DARK_SHARE, DIM_SHARE = 0.72, 0.45  # cells beyond this share need the other text colour, on white and on black pages
LARGEST_TABLE = 16  # classes; a larger confusion matrix is shown as a picture
SHOWN_ELSEWHERE = (
    "kind",
    "system",
    "target",
    "metric",
    "definition",
    "value",
    "ci",
    "n",
    "n_speakers",
    "chance",
    "classes",
    "confusion",
    "secondary",
    "folds",
    "stamps",
    "head",
    "notes",
    "versus",
    "examples",
)
LABELS = {"ci_method": "CI method", "n_speakers": "speakers", "fold_pooling": "pooling of folds"}
NOTHING = "—"


def unit(metric):
    """ " (%)" for the metrics that are shown in percent, as the command line prints them."""
    return " (%)" if metric in IN_PERCENT else ""


def format_metric(metric, value):
    """0.61349 -> '61.3' for a share such as UAR, '0.613' for CCC, '−0.100', None -> '—'."""
    value = number(value)
    if value is None:
        return NOTHING
    if metric not in IN_PERCENT and (abs(value) >= 100 or 0 < abs(value) < 0.001):
        return f"{value:.3g}".replace("-", "−")
    return format_value(metric, value).replace("-", "−")


def format_count(value):
    """12345 -> '12 345' (narrow no-break space)."""
    value = number(value)
    return NOTHING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def format_mean_count(value):
    """A count, or the mean of counts over seeds: 12345 -> '12 345', 83.4333 -> '83.4'."""
    value = number(value)
    return format_count(value) if value is None or value == round(value) else f"{value:,.1f}".replace(",", "\u202f")


def format_interval(metric, ci):
    """The confidence interval as '[57.1, 65.5]', or "" where there is none."""
    if not ci or number(ci[0]) is None or number(ci[1]) is None:
        return ""
    return f"[{format_metric(metric, ci[0])}, {format_metric(metric, ci[1])}]"


def slug(stamp):
    """The CSS class of a stamp: only letters, digits and hyphens, whatever the row says."""
    return "stamp-" + re.sub(r"[^a-z0-9]+", "-", stamp.lower()).strip("-") if stamp in STAMPS else "stamp-other"


def badges(row):
    """[(text, CSS class)], or None if the row was never audited."""
    if row["stamps"] is None:
        return None
    return [(stamp, slug(stamp)) for stamp in row.stamps]


def headline(rows):
    """[{title, rows}]: one group per kind, one dict of display texts per result row."""
    groups = []
    previous = None
    for row in rows:
        kind = str(row["kind"] or "")
        title = KINDS.get(kind, kind or "Results of no stated kind")
        if not groups or groups[-1]["title"] != title:
            groups.append({"title": title, "rows": []})
        group = (kind, name_of(row["corpus"]), row["target"], row["metric"])
        groups[-1]["rows"].append({**summary(row), "row": row, "first": group != previous})
        previous = group
    return groups


def summary(row):
    """The display texts of one row."""
    ci, chance = row["ci"], number(row["chance"])
    interval = format_interval(row["metric"], ci)
    features = row["features"] if isinstance(row["features"], dict) else {}
    return {
        "name": row.name,
        "anchor": row.name.lower(),
        "system": str(row["system"] or "unnamed"),
        "layer": str(features.get("layer") or "") if features.get("layers") else "",
        "head": str(row["head"] or ""),
        "corpus": name_of(row["corpus"]) or NOTHING,
        "split": str(row["split"] or ""),
        "target": str(row["target"] or NOTHING),
        "protocol": "; ".join([name_of(row["protocol"]), *((row["features"] or {}).get("where") or ())]),
        "metric": row["metric"],
        "unit": unit(row["metric"]),
        "definition": str(row["definition"] or ""),
        "value": format_metric(row["metric"], row["value"]),
        "interval": interval,
        "verdict": _verdict(row["metric"], ci, chance) if interval and chance is not None else "",
        "spread": _spread(row, row["metric"]),
        "chance": format_metric(row["metric"], chance),
        "n": format_count(row["n"]),
        "speakers": format_count(row["n_speakers"]),
        "badges": badges(row),
        "synthetic": row.synthetic,
    }


def _verdict(metric, ci, chance):
    if ci[0] <= chance <= ci[1]:
        return "CI includes chance"
    return "worse than chance" if (ci[0] > chance) == lower_is_better(metric) else ""


def _spread(row, metric):
    """'folds 0.325 ± 0.069' where the row gives mean and standard deviation over the folds, else ""."""
    mean, spread = (number((row["secondary"] or {}).get(f"{metric}_fold_{key}")) for key in ("mean", "std"))
    return "" if spread is None else f"folds {format_metric(metric, mean)} ± {format_metric(metric, spread)}"


def stamp_legend(rows):
    """[(stamp, CSS class, meaning, names of the rows that carry it)]: the four known stamps, then any other."""
    carried = {}
    for row in rows:
        for stamp in row.stamps:
            carried.setdefault(stamp, []).append(row.name)
    others = sorted(set(carried) - set(STAMPS))
    return [
        (stamp, slug(stamp), STAMPS.get(stamp, "Not a stamp this version knows."), carried.get(stamp, []))
        for stamp in [*STAMPS, *others]
    ]


def distinct(rows, key, beside=None):
    """[(beside, text, names of rows)] of the distinct texts of `key`, in order of appearance; absent = ""."""
    found = {}
    for row in rows:
        pair = (str(row[beside] or "") if beside else "", str(row[key] or ""))
        found.setdefault(pair, []).append(row.name)
    return [(pair[0], pair[1], names) for pair, names in found.items()]


def spans(names):
    """['R1', 'R2', 'R3', 'R7'] -> 'R1–R3, R7'."""
    runs = []
    for place in sorted(int(name[1:]) for name in names):
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return ", ".join(f"R{a}" if a == b else f"R{a}, R{b}" if b == a + 1 else f"R{a}–R{b}" for a, b in runs)


def classes_of(row):
    """Names of the classes of a row's confusion matrix."""
    return [str(name) for name in row["classes"] or range(len(row["confusion"]))]


def shares(matrix):
    """Row-normalised confusion matrix, same shape; a truth class without utterances gives None."""
    return [[count / sum(line) if sum(line) else None for count in line] for line in matrix]


def confusion(row):
    """The confusion matrix as cells for the template, or None where the row has none.

    Returns:
      {lines: [(class, [{percent, share, count, class}], total)], classes, large, text}. `text` is the alternative text.
    """
    matrix = row["confusion"]
    if not matrix:
        return None
    classes, lines = classes_of(row), []
    for i, (line, parts) in enumerate(zip(matrix, shares(matrix), strict=True)):
        cells = [
            {
                "percent": NOTHING if part is None else f"{100 * part:.0f}",
                "share": round(part or 0.0, 3),
                "count": format_mean_count(count),
                "class": _cell_class(part or 0.0, i == j),
            }
            for j, (count, part) in enumerate(zip(line, parts, strict=True))
        ]
        lines.append((classes[i], cells, format_count(sum(line))))
    recalls = "; ".join(f"{name} {cells[i]['percent']} %" for i, (name, cells, _) in enumerate(lines))
    return {"lines": lines, "classes": classes, "large": len(classes) > LARGEST_TABLE, "text": f"Recall: {recalls}."}


def versus(row):
    """The paired comparison with another result as one sentence, or ""."""
    pair, metric = row["versus"], row["metric"]
    if not isinstance(pair, dict):
        return ""
    here, there, difference = (format_metric(metric, pair.get(key)) for key in ("a", "b", "difference"))
    p = number(pair.get("p_value"))
    method = pair.get("method") or "paired test"
    return (
        f"Against {pair.get('predictions') or 'another result'}: {here} here, {there} there; difference {difference} "
        f"{format_interval(metric, pair.get('ci'))}, p = {NOTHING if p is None else f'{p:.2g}'} ({method}; "
        f"{format_count(pair.get('n'))} units of {format_count(pair.get('n_speakers'))} speakers; "
        f"{format_count(pair.get('only_here'))} units only here, {format_count(pair.get('only_there'))} only there)."
    )


def _cell_class(share, right):
    return " ".join(["cell"] + ["dim"] * (share > DIM_SHARE) + ["dark"] * (share > DARK_SHARE) + ["right"] * right)


def secondary(row):
    """[(metric, value)]; "UAR_fold_mean", "WER of silence" have the unit of their metric, a std stands with its mean."""
    pairs = []
    for name, value in (row["secondary"] or {}).items():
        metric = re.sub("(_fold_mean|_fold_std|_chance| of .*)$", "", name)
        spread = _spread(row, metric)
        if re.search("_seed(_min|_max|_std|s)$", name):
            continue  # in seeds.py
        if spread and name.endswith("_fold_mean"):
            pairs.append((f"{metric}{unit(metric)}", f"{spread} (mean ± std)"))
        elif not (spread and name.endswith("_fold_std")):
            pairs.append((name.replace("_", " ") + unit(metric), format_metric(metric, value)))
    return pairs


def notes(row):
    """What the run wanted the reader to know, as texts."""
    value = row["notes"]
    return [str(note) for note in (value if isinstance(value, list) else [value]) if note]


def folds(row):
    """(names of the metrics, [(name, value, values of these metrics, n)]); no names where folds have one value only."""
    given = row["folds"] or []
    names = [name for name in dict.fromkeys(key for fold in given for key in fold) if name not in ("name", "value", "n")]
    names = [name for name in names if any(number(fold.get(name)) is not None for fold in given)]
    return [name + unit(name) for name in names], [
        (
            str(fold.get("name", place)),
            format_metric(row["metric"], fold.get("value")),
            [format_metric(name, fold.get(name)) for name in names],
            format_count(fold.get("n")),
        )
        for place, fold in enumerate(given, 1)
    ]


def fingerprints(row):
    """[(what, hash)]: which checkpoint, data, split and features a number belongs to; only those given."""
    found = []
    for section, key in (("checkpoint", "hash"), ("corpus", "fingerprint"), ("protocol", "hash"), ("features", "hash")):
        value = row[section]
        if isinstance(value, dict) and value.get(key):
            step = number(value.get("step"))
            found.append((section + ("" if step is None else f" (step {format_count(step)})"), str(value[key])))
    return found


def provenance(row):
    """[(label, text, is a block)]: all that a row says of where it comes from, known keys first, nothing left out."""
    pairs = []
    for key in SECTIONS:
        value = row[key]
        if isinstance(value, dict):
            pairs += [(f"{key} {LABELS.get(name, name)}", part) for name, part in value.items()]
        elif value is not None:
            pairs.append((key, value))
    done = {*SECTIONS, *SHOWN_ELSEWHERE}
    pairs += [(LABELS.get(key, key.replace("_", " ")), value) for key, value in row.data.items() if key not in done]
    pairs.append(("read from", f"{row.file}, line {row.line}"))
    return [(label, *_show(value)) for label, value in pairs if value not in (None, "", [], {})]


def _show(value):
    if isinstance(value, dict) and len(value) < 12 and not any(isinstance(v, dict | list) for v in value.values()):
        return " · ".join(f"{name} {part}" for name, part in value.items()), False
    if isinstance(value, list) and all(not isinstance(part, dict | list) for part in value):
        return ", ".join(map(str, value)), False
    if isinstance(value, dict | list):
        return json.dumps(value, indent=2, ensure_ascii=False), True
    return str(value), False


def as_json(value):
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
