"""Result rows as CSV, every field of them."""

import csv
import io
import json

from ser_jax.report.tables import SECTIONS

LEADING = (
    "result",
    "kind",
    "system",
    "corpus.name",
    "target",
    "protocol.name",
    "head",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "seed_min",
    "seed_max",
    "seed_std",
    "chance",
    "n",
    "n_speakers",
    "stamps",
)


def flat(row):
    """One row as {column: value}: nested objects by dots, lists of texts joined by ";", other lists as JSON.

    seed_min, seed_max, seed_std: of the row's metric over its seeds, also under `secondary`.
    """
    result = {"result": row.name}
    interval = row["ci"] or [None, None]

    def add(prefix, value):
        if isinstance(value, dict):
            for name, part in value.items():
                add(f"{prefix}.{name}", part)
        elif isinstance(value, list):
            plain = all(isinstance(part, str) for part in value)
            result[prefix] = ";".join(value) if plain else json.dumps(value, ensure_ascii=False)
        else:
            result[prefix] = value

    for key in ("min", "max", "std"):
        result[f"seed_{key}"] = (row["secondary"] or {}).get(f"{row['metric']}_seed_{key}")

    for key, value in row.data.items():
        if key == "ci":
            result["ci_low"], result["ci_high"] = interval
        elif isinstance(value, str) and key in SECTIONS:
            add(f"{key}.name", value)
        else:
            add(key, value)
    return result


def csv_text(rows):
    """All rows as CSV text: the columns of the headline table first, then every other field, by name."""
    flattened = [flat(row) for row in rows]
    present = {column for line in flattened for column in line}
    columns = [*LEADING, *sorted(present - set(LEADING))]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(flattened)
    return file.getvalue()
