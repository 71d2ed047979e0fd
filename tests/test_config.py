"""Configs: every file in configs/ is whole and runs, overrides are read as the type of their field, errors name the field."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training import metrics, steps_of

from ser_jax import config
from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.data.frame_labels import write_frame_labels
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.models.convnet import ConvNetConfig
from ser_jax.models.finetune import FinetuneConfig
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.tasks.ctc import CTCConfig
from ser_jax.tasks.emotion import EmotionConfig
from ser_jax.tasks.emotion_frames import EmotionFramesConfig
from ser_jax.tasks.frames import SPEC
from ser_jax.tasks.gender import GenderConfig
from ser_jax.tasks.phone_states import PhoneStatesConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig
from ser_jax.train import train

FILES = sorted(Path(__file__).parents[1].joinpath("configs").rglob("*.py"))
PRETRAINING = [path for path in FILES if "papers" not in path.parts and path.name != "__init__.py"]
EXPERIMENT = Experiment("e", SampleCNNConfig(), GenderConfig())

# What makes a config small enough for a test, by the class of its model and of its task.
SHRINK = {
    SampleCNNConfig: {"stem_filters": 4, "filters": (4,), "final_filters": 4},
    GenderConfig: {"crop_seconds": 0.1, "min_samples": 1_000},
    WaveNetConfig: {"channels": 4, "kernel": 3, "dilations": (1,)},
    CTCConfig: {"bucket_seconds": (2.0,)},
    AutoencoderConfig: {"units": 4},
    ConvNetConfig: {"conv_channels": (2, 2), "dense": (4, 4, 4)},
    PhoneStatesConfig: {"bucket_seconds": (0.5,)},
    EmotionFramesConfig: {"bucket_seconds": (0.5,)},
    FinetuneConfig: {"encoder": SampleCNNConfig(stem_filters=4, filters=(4,), final_filters=4)},
    EmotionConfig: {"target": "valence", "crop_seconds": 0.1, "front_end": GenderConfig(crop_seconds=0.1, min_samples=1_000)},
    ReconstructionConfig: {"bucket_seconds": (0.5,)},
}


def name(path):
    return path.stem


def test_there_are_configs():
    assert len(PRETRAINING) >= 3


@pytest.mark.parametrize("path", PRETRAINING, ids=name)
def test_a_config_survives_json(path):
    experiment = config.load(path)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment
    assert experiment.name == path.stem


def sort_of(path):
    """What decides which code a config runs: others of its sort differ in sizes and corpora only."""
    experiment = config.load(path)
    return type(experiment.model), type(experiment.task), experiment.optim.name


@pytest.fixture(scope="module")
def frame_labels(tiny_corpus, tmp_path_factory):
    """{task config class: fields} of frame labels for `tiny_corpus`."""
    index = PreparedCorpus(tiny_corpus).index
    frames = dict(zip(index["id"], SPEC.num_frames(index["num_samples"]), strict=True))
    found = {}
    for kind, task, classes in (("phone states", PhoneStatesConfig, ["a_1", "a_2", "a_3"]),
                                ("voice activity", EmotionFramesConfig, ["silence", "voice"])):
        path = tmp_path_factory.mktemp("labels") / f"{classes[0]}.parquet"
        meta = {"kind": kind, "classes": classes, "phones": ["a"], "phone_set": "own", "window": SPEC.window, "hop": SPEC.hop}
        write_frame_labels(path, [(name, np.arange(n) % len(classes), ["a"]) for name, n in frames.items()], meta)
        found[task] = {"labels": (str(path),)}
    return found


@pytest.mark.parametrize("path", list({sort_of(path): path for path in reversed(PRETRAINING)}.values()), ids=name)
def test_a_config_trains(path, tiny_corpus, frame_labels, tmp_path):
    full = config.load(path)
    data = dataclasses.replace(full.data, corpora=(str(tiny_corpus),), weights=(), splits=(), eval_splits=(), test=0.0)
    small = config.complete(dataclasses.replace(
        full, data=data,
        model=dataclasses.replace(full.model, **SHRINK[type(full.model)]),
        task=dataclasses.replace(full.task, **SHRINK[type(full.task)] | frame_labels.get(type(full.task), {})),
        train=dataclasses.replace(full.train, steps=2, batch_size=4, log_every=1)))
    assert train(small, tmp_path) == 0
    assert [line["step"] for line in metrics(tmp_path, "train")] == [1, 2] and steps_of(tmp_path) == [2]
    assert config.load(tmp_path / "config.json") == small


def test_a_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load(PRETRAINING[-1]).name == PRETRAINING[-1].stem


# -------------------------------------------------------------------- --set a.b=c
letters = st.characters(categories=("L", "N"), include_characters="-_./ ")
texts = st.text(letters, min_size=1).filter(lambda text: text == text.strip())
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(), floats, st.booleans(), texts, st.lists(texts), st.lists(floats))
def test_an_override_is_read_as_the_type_of_its_field(integer, number, flag, text, names, numbers):
    read = config.override(EXPERIMENT, [
        f"train.steps={integer}", f"optim.learning_rate={number}", f"train.profile={flag}", f"name={text}",
        f"data.corpora={','.join(names)}", f"data.weights={numbers}"])
    assert read == Experiment(text, SampleCNNConfig(), GenderConfig(), Data(corpora=tuple(names), weights=tuple(numbers)),
                              Optim(learning_rate=number), Train(steps=integer, profile=flag))
    assert config.from_dict(config.to_dict(read)) == read


def test_overrides_of_model_and_task_and_the_last_one_wins():
    read = config.override(EXPERIMENT, ["model.filters=8,16", "model.dropout=0", "task.noise = 1e-3", "train.steps=1_000",
                                        "train.steps=7", "data.splits="])
    assert read.model == SampleCNNConfig(filters=(8, 16), dropout=0.0) and isinstance(read.model.dropout, float)
    assert (read.task.noise, read.train.steps, read.data.splits) == (1e-3, 7, ())


@pytest.mark.parametrize(("assignment", "words"), [
    ("train.step=5", ["train.step", "did you mean 'steps'?"]),
    ("optim.lr=5", ["optim.lr", "known:", "learning_rate"]),
    ("trian.steps=5", ["trian.steps", "did you mean 'train'?"]),
    ("train.steps.all=5", ["train.steps.all", "steps has no fields"]),
    ("train=5", ["train", "name one of its fields", "batch_size"]),
    ("train.steps", ["train.steps", "name=value"]),
    ("train.steps=many", ["train.steps=many", "type int"]),
    ("train.steps=1.5", ["train.steps=1.5", "type int"]),
    ("train.profile=maybe", ["train.profile=maybe", "type bool"]),
    ("data.weights=1,x", ["data.weights=x", "type float"]),
    ("optim.learning_rate=inf", ["optim.learning_rate=inf", "type float"]),
    ("model.filters=8;16", ["model.filters", "type int"]),
    ("model.stem_stride=2", ["model.stem_stride=2", "choose 3"]),
])
def test_a_wrong_override_is_one_line(assignment, words):
    with pytest.raises(UsageError) as error:
        config.override(EXPERIMENT, [assignment])
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_wrong_files_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(UsageError, match="did you mean 'configs/debug.py'"):
        config.load("configs/debgu.py")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(UsageError, match=r"empty.py has no function config\(\)"):
        config.load(empty)
    value = config.to_dict(EXPERIMENT)
    for part, change, word in (("train", {"stepps": 1}, "stepps"), ("model", {"kind": "wavenett"}, "wavenett")):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(value | {part: value[part] | change}))
        with pytest.raises(UsageError, match=f"config.json: not an experiment.*{word}"):
            config.load(path)
