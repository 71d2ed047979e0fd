"""Neumann and Vu 2019: autoencoder representations beside an attentive CNN. Four emotions on IEMOCAP and, from there, MSP-IMPROV.

    ser-jax reproduce configs/papers/neumann2019.py --out neumann2019            # embedded corpora, a few minutes, SYNTHETIC
    ser-jax prepare iemocap --source /data/IEMOCAP_full_release --out prepared/iemocap
    ser-jax prepare msp_improv --source /data/MSP-IMPROV --out prepared/msp_improv
    ser-jax reproduce configs/papers/neumann2019.py --corpus iemocap=prepared/iemocap --corpus msp_improv=prepared/msp_improv \\
        --workdir Li=runs/autoencoder_librispeech --out neumann2019              # pretrains the runs that are not named first
"""

from ser_jax.papers import Cell, Exported, Paper, Run

# Pretraining data of the conditions; "C", the control, is pretrained on the corpus that is tested.
HEARD = {"sT": "tedlium_400", "Li": "librispeech", "fT": "tedlium"}
REDUCED = {"sT": "--option speakers=6 --option utterances=8 --option seed=2",
           "Li": "--option speakers=12 --option utterances=8 --option seed=3",
           "fT": "--option speakers=18 --option utterances=8 --option seed=4"}
TABLE_1 = {  # mean, lowest and highest UAR of ten seeds
    "iemocap": {"BL": (0.5803, 0.5678, 0.5912), "C": (0.5807, 0.5656, 0.5968), "sT": (0.5885, 0.5701, 0.6010),
                "Li": (0.5905, 0.5789, 0.6018), "fT": (0.5954, 0.5816, 0.6015)},
    "msp_improv": {"BL": (0.4299, 0.4219, 0.4414), "C": (0.4237, 0.4120, 0.4337), "sT": (0.4521, 0.4374, 0.4678),
                   "Li": (0.4482, 0.4298, 0.4633), "fT": (0.4576, 0.4502, 0.4669)},
}
PROBE = "--head attentive_cnn --target emotion --classes {classes} --dev utterances {training}"
COLUMNS = {  # protocol of each column, and the drop probability of the paper
    "iemocap": PROBE + " --protocol losso --option dropout=0.8",
    "msp_improv": PROBE + " --protocol cross --option dropout=0.7",
}


def _runs():
    reduced = "configs/pretrain/autoencoder_espeak.py"
    runs = {f"C_{corpus}": Run(f"configs/pretrain/autoencoder_{corpus}.py", reduced, on=corpus) for corpus in TABLE_1}
    return runs | {condition: Run(f"configs/pretrain/autoencoder_{heard}.py", reduced, {condition: REDUCED[condition]})
                   for condition, heard in HEARD.items()}


def _features():
    """The frames of each corpus, the vectors of each condition, and both side by side."""
    features = {}
    for corpus in TABLE_1:
        features[f"frames_{corpus}"] = Exported(corpus, options="--frames logmel26 --chunk-seconds {seconds}")
    for column in TABLE_1:
        for condition in ("C", *HEARD):
            run = f"C_{column}" if condition == "C" else condition
            for corpus in TABLE_1 if column == "msp_improv" else ("iemocap",):  # what is trained on, and what is tested
                if f"{run}_on_{corpus}" not in features:
                    features[f"{run}_on_{corpus}"] = Exported(corpus, run=run)
                    features[f"frames_{run}_on_{corpus}"] = Exported(corpus, fuse=(f"frames_{corpus}", f"{run}_on_{corpus}"))
    return features


def _cells():
    for column, published in TABLE_1.items():
        for condition, (mean, low, high) in published.items():
            run = f"C_{column}" if condition == "C" else condition
            file = "frames_{}" if condition == "BL" else f"frames_{run}_on_{{}}"
            yield Cell("1", condition, column, file.format("iemocap"), COLUMNS[column], mean, (low, high),
                       versus="" if condition == "BL" else "BL",
                       test_features="" if column == "iemocap" else file.format(column))


def paper():
    return Paper(
        name="neumann2019",
        citation="Neumann, Vu: Improving Speech Emotion Recognition with Unsupervised Representation Learning on Unlabeled "
                 "Speech, 2019",
        runs=_runs(),
        corpora={"iemocap": "--option speakers=10 --option utterances=24",
                 "msp_improv": "--option speakers=6 --option utterances=24 --option seed=1 --option language=de"},
        features=_features(),
        sizes={"classes": "angry,happy+excited,neutral,sad", "training": "--seeds 10", "seconds": "7.5"},
        reduced_sizes={"classes": "angry,happy,neutral,sad", "seconds": "4",
                       "training": "--seeds 3 --option epochs=40 --option filters=32 --option learning_rate=3e-3"},
        statistic="value",
        beside=(("min", "UAR_seed_min"), ("max", "UAR_seed_max")),
        cells=tuple(_cells()),
        pictures=(("--tsne", "Li_on_iemocap"), ("--reconstructions", "iemocap")),
        remarks=(
            "UAR is the mean over the seeds of the pooled predictions of all folds; the interval is over speakers, the paper's "
            "range is over seeds.",
            "BL: attentive CNN alone; C, sT, Li, fT: with the vector of an autoencoder that was pretrained on the target corpus, "
            "on 400 talks of TED-LIUM 2, on LibriSpeech 100 h, on all of TED-LIUM 2.",
            "C has heard the tested audio, as in the paper: TRANSDUCTIVE.",
            "At the reduced size both stand-ins are spoken by the same voices, which the audit finds: LEAKY.",
            "The paper's autoencoder has a bidirectional decoder, which has read what it is asked for.",
            "The test figure is that of the best epoch alone, not of the last one too.",
            "Not in the paper, ours: 7.5 s for the autoencoder too, its padding masked, clipping at -60 dB, batches of 64 and 32, which 400 talks, "
            "the dev part (a stratified tenth of the training utterances) and the choice of the best epoch on it.",
        ),
    )
