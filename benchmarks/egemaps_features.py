"""How well do hand-made features do under the same protocol? eGeMAPSv02 functionals as a features file for `ser-jax probe`.

Protocol: the 88 functionals (Eyben et al. 2016) of each whole utterance of a prepared corpus, by openSMILE on the stored
16 kHz samples. An utterance with a value that is not finite is refused: it goes to `<out>.rejects.csv`, and too many of
them are an error. The file then takes the same way as an exported checkpoint, so heads, folds and intervals are the same.

Needs the extra [opensmile]. openSMILE and its feature sets are licensed for research and other non-commercial use only
(audEERING); nothing of them is part of this project.

    python benchmarks/egemaps_features.py --corpus prepared/ravdess --out features/egemaps_ravdess.parquet
    ser-jax probe --features features/egemaps_ravdess.parquet --protocol loso --target emotion --head linear
"""

import argparse
import concurrent.futures
import csv
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import timing

from ser_jax import results
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UserError
from ser_jax.export.features import TEXT_COLUMNS, Features, write_features
from ser_jax.files import atomic_path
from ser_jax.progress import Progress

FEATURE_SET = "eGeMAPSv02"


def extract(corpus, workers=2):
    """Functionals of every utterance: (float32[N, 88], list of 88 names).

    Args:
      corpus: PreparedCorpus.
      workers: processes.
    """
    rows, values = range(len(corpus)), []
    spawn = multiprocessing.get_context("spawn")
    with (concurrent.futures.ProcessPoolExecutor(workers, spawn, _open, (str(corpus.path),)) as pool,
          Progress(len(corpus), f"{FEATURE_SET} {corpus.name}") as progress):
        for value, names in pool.map(_functionals, rows, chunksize=8):  # noqa: B007
            values.append(value)
            progress.update()
    return np.stack(values), names


_worker = {}  # of a worker process: its corpus and its openSMILE


def _open(path):
    import opensmile

    level = opensmile.FeatureLevel.Functionals
    _worker["corpus"] = PreparedCorpus(path)
    _worker["smile"] = opensmile.Smile(feature_set=opensmile.FeatureSet[FEATURE_SET], feature_level=level)


def _functionals(row):
    speech = _worker["corpus"].speech(row).astype(np.float32) / 32768
    table = _worker["smile"].process_signal(speech, SAMPLE_RATE)
    return table.to_numpy(np.float32)[0], list(table.columns)


def to_features(corpus, values, names, versions):
    """(Features of the utterances whose values are all finite, list of (row, reason) of the others)."""
    finite = np.isfinite(values)
    refused = [(int(row), "not finite: " + ", ".join(np.array(names)[~finite[row]][:3]))
               for row in np.flatnonzero(~finite.all(1))]
    columns = [*TEXT_COLUMNS, "valence", "arousal", "dominance"]
    table = corpus.index[columns].assign(start=0.0, end=corpus.index["num_samples"] / SAMPLE_RATE, chunk=0)
    metadata = {
        "kind": "egemaps", "linguistic": False, "checkpoint": None, "experiment": None, "layer": FEATURE_SET,
        "pooling": "functionals", "chunk_seconds": None, "pretrained_synthetic": False, "names": names,
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint, "synthetic": corpus.info["synthetic"]},
        "versions": results.versions() | versions,
    }
    keep = finite.all(1)
    return Features(table[keep].reset_index(drop=True), values[keep], metadata), refused


def write_ledger(path, index, refused):
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "reason"])
        writer.writerows([index["id"].iloc[row], index["source"].iloc[row], reason] for row, reason in refused)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="prepared corpus")
    parser.add_argument("--out", type=Path, help="features file: .parquet, .npz or .csv")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-rejects", type=float, default=0.01, help="largest share of refused utterances")
    parser.add_argument("--quick", action="store_true", help="twelve short tones in a temporary folder")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    if not args.quick and not (args.corpus and args.out):
        parser.error("--corpus and --out are needed (or --quick)")
    facts = timing.machine_facts(args.workers, ["opensmile"])
    with timing.scratch() as folder:
        corpus = timing.synthetic_corpus(folder / "corpus", 12, 1.0) if args.quick else PreparedCorpus(args.corpus)
        out = args.out or folder / "egemaps.parquet"
        begin = time.perf_counter()
        values, names = extract(corpus, args.workers)
        seconds = time.perf_counter() - begin
        features, refused = to_features(corpus, values, names, {"opensmile": facts["versions"]["opensmile"]})
        if refused:
            write_ledger(f"{out}.rejects.csv", corpus.index, refused)
        if len(refused) > args.max_rejects * len(corpus):
            raise UserError(f"{len(refused)} of {len(corpus)} utterances have values that are not finite, more than "
                            f"--max-rejects {args.max_rejects:g}; see {out}.rejects.csv")
        write_features(features, out)
    speech = corpus.index["num_samples"].sum() / SAMPLE_RATE
    timing.report(
        facts, ["corpus", "utterances in", "out", "refused", "dimension", "speech s", "s", "utterances/s"],
        [[corpus.name, len(corpus), len(features.table), len(refused), values.shape[1], f"{speech:.0f}", f"{seconds:.1f}",
          f"{len(corpus) / seconds:.1f}"]],
        {"seconds of speech per second": speech / seconds}, args.json)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
