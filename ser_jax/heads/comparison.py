"""The paired comparison of two tables of predictions."""

from pathlib import Path

import numpy as np
import pandas as pd

from ser_jax.errors import UserError
from ser_jax.intervals import paired_test
from ser_jax.metrics import METRICS
from ser_jax.results import read_rows

COLUMNS = ("id", "audio_sha256", "fold", "truth", "prediction")


def read_predictions(path, target):
    """(path, predictions) of what `--versus` names.

    Args:
      path: a table of predictions (.parquet), or a results.jsonl (the last honest row of this target), its folder, or
        results.jsonl:LINE.
      target: the column that was predicted.

    Raises:
      UserError: there are none.
    """
    name, _, line = str(path).rpartition(":")
    results, line = (Path(name), int(line)) if name and line.isdigit() else (Path(path), None)
    if results.suffix != ".parquet":
        rows = read_rows(results)
        if line is not None and not 1 <= line <= len(rows):
            raise UserError(f"--versus {path}: {results} has {len(rows)} rows")
        same_target = [
            row
            for row in rows
            if row.get("target") == target
            and row.get("predictions")
            and (row.get("features") or {}).get("selection") != "all-data"
        ]
        found = rows[line - 1 : line] if line else same_target
        if not found or not found[-1].get("predictions"):
            raise UserError(f"--versus {path}: no row with predictions of target {target!r}")
        results = (results if results.is_dir() else results.parent) / found[-1]["predictions"]
    try:
        predictions = pd.read_parquet(results)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--versus {results}: predictions cannot be read ({' '.join(str(error).split())[:120]})"
        ) from None
    lacking = [column for column in COLUMNS if column not in predictions]
    if lacking:
        raise UserError(f"--versus {results}: not a table of predictions (no column {lacking[0]!r})")
    columns = [*COLUMNS, *(["seed"] if "seed" in predictions else [])]
    return str(results), predictions[columns].astype(dict.fromkeys(COLUMNS[:3], "str"))


def compare(predictions, others, metric, classes=None, seed=0):
    """Paired test over speakers on the units that two tables share; says how many are on one side only.

    Tables with a column `seed` are paired by unit and seed, and the means over the seeds in common compared; a side
    without seeds stands beside every seed of the other.

    Args:
      predictions, others: tables of `cross_validation.Outcome`, of two heads, layer sets or feature files.
      metric: a name of METRICS.
      classes: the label list, for labels.
      seed: of the resampling.

    Returns:
      that of `intervals.paired_test`, "a" being `predictions`, with only_here and only_there (units), and
      seeds_only_here and seeds_only_there (lists) where seeds were left out.

    Raises:
      UserError: nothing in common, or the truths differ.
    """
    sides = (predictions, others)
    seeds = [sorted(set(side["seed"].tolist())) if "seed" in side else [] for side in sides]
    shared = sorted(set(seeds[0]) & set(seeds[1]))
    if all(seeds) and not shared:
        raise UserError(f"--versus: no seed in common (here {_listed(seeds[0])}, there {_listed(seeds[1])})")
    twice = any(side.duplicated(["id", *(["seed"] if own else [])]).any() for side, own in zip(sides, seeds))
    unit = ["id", "fold"] if twice else ["id"]
    both = predictions.merge(others, on=[*unit, *(["seed"] if shared else [])], suffixes=("", "_b"))
    if both.empty:
        raise UserError("--versus: no tested unit in common; compare results on the same corpus")
    here, there = both["audio_sha256"], both["audio_sha256_b"]
    once = ~both.duplicated(unit)  # what is true of a unit is true of it with every seed
    other = (here != there) & (here != "") & (there != "") & once
    if other.any():
        raise UserError(
            f"--versus: {int(other.sum())} of {int(once.sum())} units of the same name are other recordings, e.g. "
            f"{both[other]['id'].iloc[0]!r}; compare results on the same corpus"
        )
    numbers = not METRICS[metric].classifies
    if numbers:
        for column in ("truth_b", "prediction_b"):
            both[column] = pd.to_numeric(both[column], errors="coerce")
        if both[["truth_b", "prediction_b"]].isna().any(axis=None):
            raise UserError("--versus: the predictions of the other side are no numbers; compare results of one target")
        # The mean over several chunks may round differently from that over others.
        differ = ~np.isclose(both["truth"], both["truth_b"], rtol=1e-6, atol=1e-9)
    else:
        both[["truth_b", "prediction_b"]] = both[["truth_b", "prediction_b"]].astype("str")
        differ = (both["truth"] != both["truth_b"]).to_numpy()
    differ = differ & once.to_numpy()
    if differ.any():
        row = both[differ].iloc[0]
        raise UserError(
            f"--versus: the truth differs for {int(differ.sum())} of {int(once.sum())} units, e.g. {row['id']!r}: "
            f"{row['truth']!r} and {row['truth_b']!r}; compare results of one target"
        )
    labels = None if numbers else sorted(set(classes) | set(both["prediction_b"]))
    absent = [] if numbers else sorted(set(labels) - set(both["truth"]))
    if absent and metric == "UAR":
        raise UserError(
            f"--versus: class {absent[0]!r} has no unit among the {int(once.sum())} in common; use --classes on both "
            "sides"
        )
    speakers = both["speaker_id"].where(both["speaker_id"] != "", both["id"])
    truth, a, b = (both[column].to_numpy() for column in ("truth", "prediction", "prediction_b"))
    runs = both["seed"].to_numpy() if any(seeds) else None
    found = paired_test(truth, a, b, speakers, metric, seed=seed, classes=labels, runs=runs)
    here, there, paired = (len(side[unit].drop_duplicates()) for side in (*sides, both))
    found |= {"only_here": here - paired, "only_there": there - paired}
    for name, own in zip(("seeds_only_here", "seeds_only_there"), seeds):
        if shared and set(own) - set(shared):
            found[name] = sorted(set(own) - set(shared))
    return found


def _listed(seeds):
    """[0, 1, 2] as "0..2", others one by one."""
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}..{seeds[-1]}" if whole else ", ".join(map(str, seeds))
