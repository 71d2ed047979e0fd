"""Which utterances of the prepared corpora are trained on, watched during training, and kept for the final test."""

import hashlib
import math

import numpy as np
import pandas

from ser_jax.errors import UsageError, UserError, suggestion
from ser_jax.protocols.audit import normalise_text

PARTS = ("train", "dev", "test")


def assign(corpora, data, task):
    """Assigns every utterance to a part, by speaker where nothing official is asked for.

    Args:
      corpora: PreparedCorpus list, in the order of `data.corpora`.
      data: config.Data.
      task: its `refuse` says which utterances cannot be used.

    Returns:
      pandas.DataFrame, one row per utterance of the union: position (of the corpus in the list), row (in the corpus),
      corpus, id, speaker_id, session, gender, split, num_samples, audio_sha256, text_hash, part ("train", "dev", "test" or ""), refused
      (reason or ""), size (samples that a training example of it is padded or cut to). Utterances outside the asked
      splits have part "" and no reason.

    Raises:
      UsageError: a split that no corpus has, weights that do not fit. UserError: nothing left to train on.
    """
    tables = []
    for position, corpus in enumerate(corpora):
        columns = ["id", "speaker_id", "session", "gender", "split", "num_samples", "audio_sha256"]
        table = corpus.index[columns].copy()
        table["text_hash"] = corpus.index["text"].map(text_hash)
        table.insert(0, "position", position)
        table.insert(1, "row", np.arange(len(table)))
        table.insert(2, "corpus", corpus.name)
        table["refused"] = task.refuse(corpus.index)
        table["size"] = task.sizes(corpus.index)
        tables.append(table)
    table = pandas.concat(tables, ignore_index=True)
    for name in ("holdout", "test"):
        if not 0 <= getattr(data, name) < 1:
            raise UsageError(f"data.{name}={getattr(data, name)}: a share of speakers, at least 0 and less than 1")
    known = set(table["split"])
    for name in (*data.splits, *data.eval_splits):
        if name not in known:
            raise UsageError(f"data.splits: no utterance of {list(data.corpora)} is in {name!r}; there are {sorted(known)}")
    wanted = table["split"].isin(data.splits) if data.splits else ~table["split"].isin(data.eval_splits)
    table["part"] = np.where(wanted, "train", "")
    table.loc[table["split"].isin(data.eval_splits), "part"] = "dev"
    shares = {"test": 0.0 if data.test_speakers else data.test,
              "dev": 0.0 if data.eval_splits or data.dev_speakers else data.holdout}
    usable = table[(table["part"] == "train") & (table["refused"] == "")]
    if usable.empty:
        reasons = table.loc[table["refused"] != "", "refused"].value_counts().to_dict()
        raise UserError(f"{', '.join(data.corpora)}: nothing to train on; refused: {reasons or 'none'}")
    named = _named_speakers(table, data)
    rest = usable[~pandas.MultiIndex.from_frame(usable[["corpus", "speaker_id"]]).isin(named["test"] + named["dev"])]
    held = _hold_out(rest, shares, data.seed) if any(shares.values()) else {}
    held = {part: held.get(part, []) + named[part] for part in ("test", "dev") if held.get(part) or named[part]}
    for part, speakers in held.items():
        chosen = pandas.MultiIndex.from_frame(table[["corpus", "speaker_id"]]).isin(speakers)
        table.loc[chosen & (table["part"] != ""), "part"] = part  # also out of eval_splits, where the speaker may be too
    table.loc[table["refused"] != "", "part"] = ""
    if not (table["part"] == "train").any():
        raise UsageError("data.dev_speakers and data.test_speakers: nothing is left to train on")
    if data.weights:
        _check_weights(data.weights, corpora, table)
    return table


def _named_speakers(table, data):
    """{part: list of (corpus, speaker_id)} that `data.dev_speakers` and `data.test_speakers` name, by speaker or session."""
    found = {}
    for part in ("test", "dev"):
        found[part] = []
        for name in getattr(data, f"{part}_speakers"):
            chosen = table[((table["speaker_id"] == name) | (table["session"] == name)) & (table["speaker_id"] != "")]
            if chosen.empty:
                known = sorted((set(table["speaker_id"]) | set(table["session"])) - {""})
                raise UsageError(f"data.{part}_speakers: no speaker or session {name!r}{suggestion(name, known)}; there are "
                                 f"{', '.join(known[:12])}{' …' if len(known) > 12 else ''}")
            found[part] += sorted(set(zip(chosen["corpus"], chosen["speaker_id"], strict=True)))
    both = set(found["dev"]) & set(found["test"])
    if both:
        raise UsageError(f"data.dev_speakers and data.test_speakers both name {', '.join(name for _, name in sorted(both))}")
    return found


def _check_weights(weights, corpora, table):
    if len(weights) != len(corpora):
        raise UsageError(f"data.weights has {len(weights)} values for {len(corpora)} corpora")
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"data.weights={','.join(map(str, weights))}: each must be greater than 0")
    for position, corpus in enumerate(corpora):
        if not ((table["position"] == position) & (table["part"] == "train")).any():
            raise UsageError(f"data.weights: nothing of {corpus.path} is left to train on; leave it out of data.corpora")


def _hold_out(table, shares, seed):
    """Speakers per held-out part: a share of the speakers of each gender of each corpus, chosen by a hash."""
    held = {part: [] for part in shares}
    speakers = table[table["speaker_id"] != ""].sort_values(["corpus", "speaker_id", "gender"])
    speakers = speakers.drop_duplicates(["corpus", "speaker_id"])  # sorted: the order of the records must not matter
    for _, group in speakers.groupby(["corpus", "gender"], sort=True):
        order = sorted(zip(group["corpus"], group["speaker_id"], strict=True), key=lambda key: _hash(seed, *key))
        first = 0
        for part, share in shares.items():
            count = min(math.ceil(share * len(order) - 1e-9), len(order) - 1 - first)  # one at least stays to train on
            held[part] += order[first:first + count]
            first += count
    for part, share in shares.items():
        if share and not held[part]:
            raise UserError(f"holding out {share:g} for {part} leaves no speaker to train on; lower data.holdout or data.test")
    return {part: speakers for part, speakers in held.items() if speakers}


def text_hash(text):
    """What tells sentences apart, whatever their case and punctuation: 16 hexadecimal digits, "" for no text."""
    return _hash(normalise_text(text))[:16] if text else ""


def _hash(*values):
    return hashlib.sha256("\x1f".join(map(str, values)).encode()).hexdigest()
