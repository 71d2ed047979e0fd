"""The paired comparison of two tables of predictions."""

import numpy as np
import pandas as pd

from ser_jax.errors import UserError
from ser_jax.metrics import METRICS, paired_test


def compare(predictions, others, metric, classes=None, seed=0):
    """Paired test over speakers on the units that two tables share; says how many are on one side only.

    Args:
      predictions, others: tables of `cross_validation.Outcome`, of two heads, layer sets or feature files.
      metric: a name of METRICS.
      classes: the label list, for labels.
      seed: of the resampling.

    Returns:
      that of `metrics.paired_test`, "a" being `predictions`, with only_here and only_there.

    Raises:
      UserError: nothing in common, or the truths differ.
    """
    on = ["id"] if not (predictions["id"].duplicated().any() or others["id"].duplicated().any()) else ["id", "fold"]
    both = predictions.merge(others, on=on, suffixes=("", "_b"))
    if both.empty:
        raise UserError("--versus: no tested unit in common; compare results on the same corpus")
    here, there = both["audio_sha256"], both["audio_sha256_b"]
    other = (here != there) & (here != "") & (there != "")
    if other.any():
        raise UserError(
            f"--versus: {int(other.sum())} of {len(both)} units of the same name are other recordings, e.g. "
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
    if differ.any():
        row = both[differ].iloc[0]
        raise UserError(
            f"--versus: the truth differs for {int(differ.sum())} of {len(both)} units, e.g. {row['id']!r}: "
            f"{row['truth']!r} and {row['truth_b']!r}; compare results of one target"
        )
    labels = None if numbers else sorted(set(classes) | set(both["prediction_b"]))
    absent = [] if numbers else sorted(set(labels) - set(both["truth"]))
    if absent and metric == "UAR":
        raise UserError(
            f"--versus: class {absent[0]!r} has no unit among the {len(both)} in common; use --classes on both sides"
        )
    speakers = both["speaker_id"].where(both["speaker_id"] != "", both["id"])
    truth, a, b = (both[column].to_numpy() for column in ("truth", "prediction", "prediction_b"))
    found = paired_test(truth, a, b, speakers, metric, seed=seed, classes=labels)
    return {**found, "only_here": len(predictions) - len(both), "only_there": len(others) - len(both)}
