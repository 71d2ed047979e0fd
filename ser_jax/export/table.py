"""The columns of a features file beside its embedding: their names, types and defaults."""

import numpy as np

TEXT_COLUMNS = ("id", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion", "chunk_of", "language",
                "audio_sha256")
NUMBER_COLUMNS = ("start", "end", "valence", "arousal", "dominance")
COLUMNS = ("id", "chunk", "start", "end", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion",
           "valence", "arousal", "dominance", "chunk_of", "language", "audio_sha256", "seen_in_pretraining")


def key_of(table):
    """Names of the columns that tell the rows apart."""
    return ["id", "chunk", "frame"] if "frame" in table else ["id", "chunk"]


def complete(table):
    """The table with all COLUMNS in order and of fixed types, then the others."""
    import pandas as pd

    columns = {}
    for column in COLUMNS:
        given = table.get(column)
        if column in TEXT_COLUMNS:
            columns[column] = [""] * len(table) if given is None else given.fillna("").astype(str).to_numpy()
        elif column in NUMBER_COLUMNS:
            columns[column] = (np.full(len(table), np.nan) if given is None
                               else pd.to_numeric(given).to_numpy(np.float64, na_value=np.nan))
        else:
            kind = np.int64 if column == "chunk" else bool
            columns[column] = np.zeros(len(table), kind) if given is None else given.fillna(0).to_numpy().astype(kind)
    others = {column: table[column].to_numpy() for column in table.columns if column not in COLUMNS}
    if "frame" in others:
        others["frame"] = others["frame"].astype(np.int64)
    return pd.DataFrame(columns | others, index=range(len(table))).astype(dict.fromkeys(TEXT_COLUMNS, "str"))
