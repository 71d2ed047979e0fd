"""Fayek, Lech and Cavedon 2016: what speech recognition and emotion recognition share. A ConvNet carried over both ways.

    ser-jax reproduce configs/papers/fayek2016.py --out fayek2016            # embedded corpora, l = 5, 3, 0, a few minutes, SYNTHETIC
    ser-jax prepare timit --source /data/TIMIT --out prepared/timit
    ser-jax prepare iemocap --source /data/IEMOCAP_full_release --out prepared/iemocap
    ser-jax reproduce configs/papers/fayek2016.py --corpus asr=prepared/timit --corpus ser=prepared/iemocap --jobs 8 --out fayek2016

Any corpus with phones serves as asr (or one with --labels asr=FILE), any with emotions as ser. Smaller: --size folds=3
--size rows=Base,l=5,l=0 --set model.dense=128,128,128 --set asr:train.steps=2000 (of one side only).
"""

from ser_jax.held_out import Official, Rotation
from ser_jax.papers import Labelled, Paper, Run, Scored

LAYERS = (5, 4, 3, 2, 1, 0)  # l: layers that are held constant
ASR = ("FER", "PER")
SER = ("E", "UE")
PUBLISHED = {  # dev, test of each of the two metrics
    "SER → ASR": {
        "Base": (30.53, 31.61, 18.71, 20.18), "l=5": (71.09, 71.64, 61.15, 61.82), "l=4": (53.26, 53.92, 42.96, 44.13),
        "l=3": (40.29, 40.97, 28.81, 30.48), "l=2": (31.75, 32.87, 20.08, 21.85), "l=1": (30.83, 32.01, 18.99, 20.94),
        "l=0": (30.62, 31.65, 18.73, 20.57)},
    "ASR → SER": {
        "Base": (44.63, 46.44, 46.34, 48.96), "l=5": (52.55, 59.20, 62.50, 64.03), "l=4": (51.94, 53.34, 56.21, 56.18),
        "l=3": (50.22, 52.01, 54.18, 54.37), "l=2": (47.39, 48.50, 47.72, 49.82), "l=1": (46.37, 48.36, 47.61, 50.57),
        "l=0": (45.26, 46.97, 46.60, 48.95)},
}
BASE = {"SER → ASR": "asr", "ASR → SER": "ser"}  # run of the baseline
WITHOUT_SILENCE = "PER without silence"
METRICS = {"FER": ("FER", "frame", False), "PER": ("PER", "utterance", False),
           "E": ("WAR", "utterance", True), "UE": ("UAR", "utterance", True)}
BESIDE = {  # ours only: the paper's table does not say over which unit E and UE are taken, nor what PER does with silence
    "SER → ASR": {WITHOUT_SILENCE: (WITHOUT_SILENCE, "utterance", False)},
    "ASR → SER": {"E per frame": ("WAR", "frame", True), "UE per frame": ("UAR", "frame", True)},
}


def _runs():
    asr = {"config": "configs/pretrain/convnet_timit.py", "reduced": "configs/pretrain/convnet_espeak_phones.py", "on": "asr",
           "held_out": Official(test="core-test|test"), "labels": "asr"}
    ser = {"config": "configs/pretrain/convnet_iemocap.py", "reduced": "configs/pretrain/convnet_espeak_emotion.py", "on": "ser",
           "held_out": Rotation(), "labels": "ser"}
    runs = {"asr": Run(**asr), "ser": Run(**ser, settings=("task.classes={classes}",))}
    for layers in LAYERS:
        held = f"transfer.freeze_layers={layers}"
        runs[f"ser_to_asr_{layers}"] = Run(**asr, source="ser", settings=(held,))
        runs[f"asr_to_ser_{layers}"] = Run(**ser, source="asr", settings=(held, "task.classes={classes}"))
    return runs


def _run_of(direction, row):
    return BASE[direction] if row == "Base" else f"{direction.lower().replace(' → ', '_to_')}_{row.removeprefix('l=')}"


def _scored():
    for direction, rows in PUBLISHED.items():
        columns = ASR if direction == "SER → ASR" else SER
        for row, values in rows.items():
            published = dict(zip(((column, part) for column in columns for part in ("dev", "test")), values, strict=True))
            for column, (metric, unit, complement) in ({name: METRICS[name] for name in columns} | BESIDE[direction]).items():
                for part in ("dev", "test"):
                    value = published.get((column, part))
                    yield Scored(direction, row, column, _run_of(direction, row), part, metric, unit,
                                 None if value is None else round(value / 100, 4), complement, "" if row == "Base" else "Base")


def paper():
    return Paper(
        name="fayek2016",
        citation="Fayek, Lech, Cavedon: On the Correlation and Transferability of Features Between Automatic Speech Recognition "
                 "and Speech Emotion Recognition, 2016",
        runs=_runs(),
        corpora={"asr": "--option speakers=12 --option utterances=10",
                 "ser": "--option speakers=10 --option utterances=12 --option seed=1"},
        labels={"asr": Labelled("asr", "phones"), "ser": Labelled("ser", "voice")},
        scored=tuple(_scored()),
        sizes={"folds": "8", "rows": "*", "classes": "angry,happy+excited,neutral+calm,sad"},
        reduced_sizes={"folds": "2", "rows": "Base,l=5,l=3,l=0", "classes": "angry,happy,neutral,sad"},
        figures=(("--workdir", "asr"), ("--workdir", "ser"), ("--filters", "asr"), ("--filters", "ser"), ("--transfer", "")),
        remarks=(
            "l = 5 … 0: layers 1 to l come from the source and are held constant, those above start from the source and are "
            "trained; the output layer is new. Base starts from random values.",
            "FER: wrong phone states over frames. PER: 39 phones, silence included. E = 1 − WAR and UE = 1 − UAR over utterances "
            "(an utterance has the highest mean posterior of its frames); beside it, over frames with silence as a class.",
            "asr: official parts; a fifth of the training speakers is dev where the corpus names none. Where labels are thirds of "
            "hand-labelled phones, and not a Kaldi alignment as in the paper, FER is not comparable.",
            "ser: speakers take turns as test, the last session (without sessions: one woman and one man) is always dev. calm "
            "counts as neutral, excited as happy, in corpora that have them.",
            "Dev has chosen the checkpoint, the learning rate, and the scale and penalty of the decoder. Its speakers are the same "
            "in every fold: n counts them once per fold, the interval once.",
            "SER → ASR starts from the first fold of the SER baseline.",
            "Not in the paper, ours: learning rate 1e-3 with halving on a plateau, ρ 0.9, batches of 16 utterances × 16 frames, voice "
            "activity by energy and autocorrelation, orientation of the kernels, one seed.",
        ),
    )
