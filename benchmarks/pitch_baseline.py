"""What does a gender classifier have to beat? Logistic regression on one number, the median pitch, for the same speakers.

Protocol: the utterances and the parts of a pretraining run (`pretrained_on.parquet`): fitted on its train and dev parts,
tested once on its test part, whose speakers the run has not heard. Pitch by pYIN (Mauch & Dixon 2014, librosa: 65–400 Hz,
frames of 128 ms every 20 ms; on training speakers this did a little better than frames of 64 ms) over the whole utterance;
the feature is the median of log2 over the voiced frames, and an utterance without any gets the median of the training
part. Deterministic. Rows of results.jsonl as `ser-jax evaluate`
writes them (per utterance; per speaker too), with an interval over speakers, and the majority class as chance.

    python benchmarks/pitch_baseline.py --workdir runs/sample_cnn_librispeech_251 --out results
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pandas
import timing

from ser_jax import config, intervals, metrics, results
from ser_jax.corpora.schema import GENDERS, SAMPLE_RATE
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UserError
from ser_jax.files import atomic_path, canonical_hash
from ser_jax.progress import Progress

SYSTEM = "median pitch + logistic regression"
PYIN = {"fmin": 65, "fmax": 400, "frame_length": 2048, "hop_length": 320}


def utterances(workdir, corpora):
    """The labelled utterances of a run's parts: id, speaker_id, gender, part, position and row of the corpus.

    Raises:
      UserError: no such run, no test part, or a corpus that is not the one it was trained on.
    """
    path = Path(workdir) / "pretrained_on.parquet"
    if not path.is_file():
        raise UserError(f"{workdir}: not a pretraining workdir (no pretrained_on.parquet)")
    table = pandas.read_parquet(path)
    table = table[table["part"].isin(["train", "dev", "test"]) & table["gender"].isin(GENDERS)]
    if not (table["part"] == "test").any():
        raise UserError(f"{workdir}: its run kept no test part (data.test)")
    index = pandas.concat([corpus.index[["corpus", "id", "audio_sha256"]].assign(position=i, row=np.arange(len(corpus)))
                           for i, corpus in enumerate(corpora)])
    found = table.merge(index, on=["corpus", "id", "audio_sha256"], how="left")
    if found["row"].isna().any():
        raise UserError(f"{int(found['row'].isna().sum())} of {len(found)} utterances of {workdir} are not in "
                        f"{', '.join(str(corpus.path) for corpus in corpora)}; name the corpora with --corpus")
    return found.astype({"position": int, "row": int})


def median_pitch(corpora, table, workers=2):
    """float64[N], log2 of Hz; NaN where no frame is voiced."""
    jobs = [(str(corpora[position].path), row) for position, row in zip(table["position"], table["row"], strict=True)]
    values = []
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool, Progress(len(jobs), "pitch") as progress:
        for value in pool.map(_median_pitch, jobs, chunksize=4):
            values.append(value)
            progress.update()
    return np.array(values)


_open = {}  # of a worker process: its corpora


def _median_pitch(job):
    import librosa

    path, row = job
    corpus = _open.setdefault(path, PreparedCorpus(path))
    speech = corpus.speech(row).astype(np.float32) / 32768
    voiced = librosa.pyin(speech, sr=SAMPLE_RATE, fill_na=np.nan, **PYIN)[0]
    voiced = voiced[np.isfinite(voiced)]
    return float(np.median(np.log2(voiced))) if len(voiced) else np.nan


def fit(pitch, label):
    """Logistic regression (L2, C 1) on standardised log pitch: a function float64[N] -> f64[N, K]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(pitch[:, None], label)
    return lambda values: model.predict_proba(values[:, None])


def rows_of(table, score, corpora, experiment, part, majority):
    """Result rows and predictions of a scored test part: per utterance, and per speaker (scores averaged)."""
    speakers = table["corpus"] + "/" + table["speaker_id"]
    truth = table["gender"].map(GENDERS.index).to_numpy()
    mean = pandas.DataFrame(score).groupby(speakers.to_numpy()).mean()
    speaker_truth = pandas.Series(truth).groupby(speakers.to_numpy()).first().to_numpy()
    made = []
    for unit, y, scores, cluster, ids in (
            ("utterance", truth, score, speakers.to_numpy(), table["id"].to_numpy()),
            ("speaker", speaker_truth, mean.to_numpy(), mean.index.to_numpy(), mean.index.to_numpy())):
        prediction = scores.argmax(1)
        row = results.result_row(
            "evaluate", "WAR", metrics.war(y, prediction), len(y), n_speakers=len(mean),
            definition=f"accuracy per {unit}", ci=list(intervals.speaker_bootstrap(y, prediction, cluster, "WAR")),
            ci_method="bootstrap over speakers, 95 %", chance=float(np.bincount(y).max() / len(y)),
            classes=list(GENDERS), confusion=metrics.confusion(y, prediction, range(len(GENDERS))).tolist(),
            secondary={"UAR": metrics.uar(y, prediction), "majority_class_of_training": float(np.mean(y == majority))},
            system=SYSTEM, experiment=experiment.name, target="gender", head="logistic regression, L2, C 1",
            split=f"{part}, per {unit}", corpus={"name": corpora[0].name, "fingerprint": corpora[0].fingerprint},
            features={"kind": "median of log2 pitch", "pyin": PYIN}, seeds=[],
            stamps=["SYNTHETIC"] if any(corpus.info["synthetic"] for corpus in corpora) else [])
        names = np.array(GENDERS)
        predictions = pandas.DataFrame({"id": ids, "speaker_id": cluster, "fold": "test", "truth": names[y],
                                        "prediction": names[prediction]})
        made.append((row, predictions))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, help="folder of a pretraining run; its checkpoints are not read")
    parser.add_argument("--corpus", type=Path, action="append", help="prepared corpus (default: those of the run's config)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of results.jsonl (default: results)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a made-up run on sixteen short tones, in a temporary folder")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    if not args.quick and not args.workdir:
        parser.error("--workdir is needed (or --quick)")
    facts = timing.machine_facts(args.workers, ["librosa", "scikit-learn"])
    with timing.scratch() as folder:
        if args.quick:
            args.corpus = [timing.synthetic_corpus(folder, 16, 0.6, speakers=8).path]
            args.workdir, args.out = quick_run(folder, args.corpus[0]), folder / "results"
        made, missing, edge = run(args)
    rows = [row for row, _ in made]
    results.print_rows(rows)
    table = [[row["split"], f"{row['value']:.4f}", f"{row['ci'][0]:.4f}–{row['ci'][1]:.4f}", f"{row['chance']:.4f}",
              f"{row['secondary']['majority_class_of_training']:.4f}", row["n"], row["n_speakers"]] for row in rows]
    print(f"decision at {edge:.1f} Hz; {missing} utterances without a voiced frame")
    timing.report(facts, ["part", "accuracy", "95 % CI", "majority class", "that of training", "n", "speakers"], table,
                  {"accuracy per utterance / majority class": rows[0]["value"] / rows[0]["chance"]}, args.json,
                  decision_hz=edge, without_voice=missing)


def run(args):
    """Fits, tests, appends the rows: ([(row, predictions)], utterances without a voiced frame, decision edge in Hz)."""
    experiment = config.load(args.workdir / "config.json")
    corpora = [PreparedCorpus(path) for path in args.corpus or experiment.data.corpora]
    table = utterances(args.workdir, corpora)
    pitch = median_pitch(corpora, table, args.workers)
    test = (table["part"] == "test").to_numpy()
    missing = int(np.isnan(pitch).sum())
    pitch = np.where(np.isnan(pitch), np.nanmedian(pitch[~test]), pitch)
    label = table["gender"].map(GENDERS.index).to_numpy()
    score_of = fit(pitch[~test], label[~test])
    grid = np.linspace(np.log2(PYIN["fmin"]), np.log2(PYIN["fmax"]), 10_001)
    edge = float(2 ** grid[np.abs(score_of(grid)[:, 0] - 0.5).argmin()])
    majority = np.bincount(label[~test]).argmax()
    made = rows_of(table[test], score_of(pitch[test]), corpora, experiment, "held-out test speakers", majority)
    for row, predictions in made:
        row["predictions"] = f"predictions/pitch-{canonical_hash([row['corpus'], row['split'], row['experiment']], 12)}.parquet"
        with atomic_path(args.out / row["predictions"]) as temporary:
            predictions.to_parquet(temporary, index=False)
        results.append_row(args.out / "results.jsonl", row)
    return made, missing, edge


def quick_run(folder, corpus):
    """A workdir with what this script reads: config.json and pretrained_on.parquet, half of the speakers for the test."""
    from ser_jax.models.sample_cnn import SampleCNNConfig
    from ser_jax.tasks.gender import GenderConfig

    experiment = config.Experiment("quick", SampleCNNConfig(), GenderConfig(), config.Data(corpora=(str(corpus),)))
    workdir = folder / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config.to_dict(experiment)), encoding="utf-8")
    index = PreparedCorpus(corpus).index
    held = sorted(set(index["speaker_id"]))[4:]
    table = index[["corpus", "id", "speaker_id", "gender", "audio_sha256"]].copy()
    table["part"] = np.where(index["speaker_id"].isin(held), "test", "train")
    table.to_parquet(workdir / "pretrained_on.parquet", index=False)
    return workdir


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
