"""Phone states and emotions of frames: examples, statistics of the input, loss, scores against cases made by hand."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.audio.logmel import logmel
from ser_jax.audio.waveform import to_float
from ser_jax.corpora.schema import Utterance
from ser_jax.data.frame_labels import FrameLabels, write_frame_labels
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError, UserError
from ser_jax.tasks import hybrid
from ser_jax.tasks.emotion_frames import EmotionFramesConfig
from ser_jax.tasks.frames import SPEC
from ser_jax.tasks.phone_states import PhoneStatesConfig

PHONES = ("a", "b", "sil")
STATES = [f"{phone}_{third}" for phone in PHONES for third in (1, 2, 3)]
FRAME = {"window": SPEC.window, "hop": SPEC.hop, "source": {}, "corpora": []}
PHONE_FILE = {"kind": "phone states", "classes": STATES, "phones": PHONES, "phone_set": "own", **FRAME}
VOICE_FILE = {"kind": "voice activity", "classes": ["silence", "voice"], **FRAME}


def samples(frames):
    return SPEC.window + (frames - 1) * SPEC.hop


@pytest.fixture(scope="module")
def phone_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "phones.parquet"
    rows = [("u2", [6, 7, 8, 3, 4, 5, 5, -1], ("sil", "b")), ("u1", [0, 0, 1, 2, 2, 2], ("a",)), ("long", np.arange(500) % 9, ())]
    write_frame_labels(path, rows, PHONE_FILE)
    return str(path)


@pytest.fixture(scope="module")
def voice_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "voice.parquet"
    write_frame_labels(path, [("u1", [0, 1, 1, 0, 1, 1], ()), ("u2", [1] * 8, ()), ("u3", [0] * 4, ())], VOICE_FILE)
    return str(path)


@pytest.fixture(scope="module")
def phones(phone_file):
    return PhoneStatesConfig(labels=(phone_file,), frames=4, bucket_seconds=(0.2, 0.5)).complete().build()


@pytest.fixture(scope="module")
def emotions(voice_file):
    return EmotionFramesConfig(labels=(voice_file,), classes=("angry", "happy+excited", "sad"), frames=4).build()


def index(**columns):
    return pandas.DataFrame(columns)


# ------------------------------------------------------------------------------------------------------ the file


def test_a_file_of_frame_labels_is_read_as_it_was_written(phone_file, voice_file):
    file = FrameLabels([phone_file])
    assert (file.kind, file.classes, file.phones, file.phone_set) == ("phone states", tuple(STATES), PHONES, "own")
    assert file.labels("u2").tolist() == [6, 7, 8, 3, 4, 5, 5, -1] and file.labels("u2").dtype == np.int16
    assert file.transcript("u2") == ("sil", "b") and file.transcript("long") == () and set(file.ids) == {"u1", "u2", "long"}
    with pytest.raises(UserError, match="utterance long has frame labels in another file too"):
        FrameLabels([phone_file, phone_file])
    with pytest.raises(UserError, match="other kind than in"):
        FrameLabels([phone_file, voice_file])


def test_files_that_are_none_are_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    index(id=["a"]).to_parquet(tmp_path / "y.parquet")
    for name, message in (("none", "no file of frame labels.*ser-jax align"), ("x", "not a file of"), ("y", "not a file of")):
        with pytest.raises(UserError, match=message):
            FrameLabels([tmp_path / f"{name}.parquet"])


# ------------------------------------------------------------------------------------------------------ examples


def test_a_checkpoint_does_not_need_the_labels_it_was_trained_on(phone_file):
    config = PhoneStatesConfig(labels=(phone_file,)).complete()
    assert config.phones == PHONES and config.phone_set == "own"
    assert dataclasses.replace(config, labels=("gone.parquet",)).build().num_outputs == 9
    with pytest.raises(UsageError, match="no phones: name the frame labels, --set task.labels=FILE"):
        PhoneStatesConfig().build().num_outputs  # noqa: B018
    with pytest.raises(UsageError, match="its 3 phones are not the 2 of task.phones"):
        dataclasses.replace(config, phones=("a", "b")).build().file  # noqa: B018


def test_what_cannot_be_used_is_told(phones, emotions, voice_file):
    table = index(id=["u1", "x", "u2", "u1"], num_samples=[samples(6), 9000, 399, samples(7)], emotion=["angry", "sad", "bored", "sad"])
    again = "another number of frames than its labels: run `ser-jax align` again"
    assert phones.refuse(table).tolist() == ["", "no phone states in task.labels", "shorter than 400 samples", again]
    assert emotions.refuse(table).tolist() == ["", "no voice activity in task.labels", "no emotion of task.classes", again]
    with pytest.raises(UserError, match="holds voice activity, this task needs phone states"):
        PhoneStatesConfig(labels=(voice_file,), phones=PHONES).build().refuse(table)
    with pytest.raises(UsageError, match="no frame labels named: --set task.labels=FILE"):
        EmotionFramesConfig().build().refuse(table)


@pytest.mark.parametrize(("fields", "message"), [
    ({"frames": 0}, "task.frames=0"), ({"bucket_seconds": ()}, "give lengths"), ({"bucket_seconds": (2.0, 1.0)}, "each larger"),
    ({"bucket_seconds": (0.01,)}, "at least 0.025 s"), ({"classes": ("angry",)}, "two or more"),
    ({"classes": ("angry", "angry+sad")}, "each emotion once"), ({"classes": ("angry", "happi")}, "did you mean 'happy'")])
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(UsageError, match=message):
        EmotionFramesConfig(**fields)


@settings(max_examples=40)
@given(name=st.sampled_from(["u1", "u2", "long"]), seed=st.integers(0, 2**31))
def test_an_example_has_labelled_frames_of_its_own_utterance(phones, name, seed):
    """The centres carry their labels, -1 never; a stretch of a long utterance begins with a frame."""
    labels = phones.file.labels(name)
    speech = np.arange(samples(len(labels)), dtype=np.int64).astype(np.int16)
    size = int(phones.sizes(index(num_samples=[len(speech)]))[0])
    example = phones.example(Utterance(id=name, corpus="c", source="", speech=speech), size, np.random.default_rng(seed))
    length = int(example["length"])
    assert length == min(len(speech), size)
    first = next(f for f in range(0, len(speech), SPEC.hop) if np.array_equal(speech[f:f + length], example["speech"][:length]))
    assert example["centres"].max() < SPEC.num_frames(length) and len(example["centres"]) == 4
    assert np.array_equal(example["labels"], labels[first // SPEC.hop + example["centres"]]) and example["labels"].min() >= 0
    assert len(set(example["centres"])) == 4  # drawn without replacement


def test_frames_of_the_emotion_inherit_it_and_silence_is_a_class(emotions):
    assert emotions.classes == ("angry", "happy", "sad", "silence")
    assert emotions.frame_labels("u1", "excited").tolist() == [3, 1, 1, 3, 1, 1]


def test_statistics_of_the_input_are_those_of_the_training_part(tiny_corpus, phones):
    corpus = PreparedCorpus(tiny_corpus)
    table = corpus.index.assign(position=0, row=np.arange(len(corpus)), part=np.where(corpus.index["split"] == "train", "train", "dev"))
    energies = jax.jit(lambda speech: logmel(to_float(speech[None]), jnp.ones((1, len(speech)), bool), SPEC)[0][0])
    frames = [np.asarray(energies(corpus.speech(row)), np.float64)
              for row, part in zip(table["row"], table["part"], strict=True) if part == "train"]
    found = phones.calibrate([corpus], table)
    np.testing.assert_allclose(found["input/mean"], np.concatenate(frames).mean(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["input/var"], np.concatenate(frames).var(0), rtol=1e-3)


def test_the_loss_leaves_out_frames_without_a_label(phones):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 9)), jnp.float32)
    labels = np.array([[0, 8, -1], [4, -1, -1]])
    loss, metrics = phones.loss({"logits": logits}, {"labels": jnp.asarray(labels)})
    log_p = np.asarray(logits) - np.log(np.exp(logits).sum(-1, keepdims=True))
    kept = [log_p[0, 0, 0], log_p[0, 1, 8], log_p[1, 0, 4]]
    assert float(loss) == pytest.approx(-np.mean(kept), rel=1e-5)
    right = [log_p[0, 0].argmax() == 0, log_p[0, 1].argmax() == 8, log_p[1, 0].argmax() == 4]
    assert float(metrics["frame_accuracy"]) == pytest.approx(np.mean(right))


# ------------------------------------------------------------------------------------------------------ scores


def sure(states, classes):
    """Log posteriors that are nearly certain of these states."""
    log_p = np.full((len(states), classes), np.log(1e-3), np.float32)
    log_p[np.arange(len(states)), states] = np.log(1 - 1e-3 * (classes - 1))
    return {"log_posteriors": log_p}


def test_rows_of_phones_by_hand(phones, phone_file):
    trained = types.SimpleNamespace(utterances=index(id=["u1", "u2"], part=["train", "train"]))
    table = index(id=["u1", "u2"], speaker_id=["s1", "s2"])
    scores = [sure([0, 0, 1, 2, 2, 5], 9), sure([6, 7, 8, 3, 4, 5, 5, 0], 9)]  # one of 13 labelled frames is wrong
    fer, per, without = phones.rows(scores, table, trained, acoustic_scale=5.0)
    assert (fer["metric"], per["metric"], without["metric"]) == ("FER", "PER", "PER without silence")
    assert fer["value"] == pytest.approx(1 / 13) and fer["n"] == 13 and fer["unit"] == "frame"
    assert fer["chance"] == pytest.approx(1 - 3 / 13)  # always the most frequent state, a_3
    assert fer["by_speaker"] == {"speakers": ["s1", "s2"], "sums": [[1, 6], [0, 7]]}
    assert per["examples"][1] == {"id": "u2", "reference": "sil b", "hypothesis": "sil b"} and per["unit"] == "utterance"
    wrong = hybrid.PER.sums([e["reference"] for e in per["examples"]], [e["hypothesis"] for e in per["examples"]],
                            np.zeros(2, int), 1, None)[0]
    assert per["value"] == pytest.approx(wrong[0] / 3) and "acoustic scale 5" in per["definition"]
    assert phones.summary(scores, table)["frame_accuracy"] == pytest.approx(12 / 13)
    options = phones.tune(scores, table, trained)
    assert options.keys() == set(phones.tuned) == set(phones.options) and options["acoustic_scale"] > 0
    assert phones.tune(scores, table, trained, insertion_penalty=7.0)["insertion_penalty"] == 7
    for door in (phones.rows, phones.tune):
        with pytest.raises(UsageError, match="acoustic_scale=0: give a positive number"):
            door(scores, table, trained, acoustic_scale=0.0)


def test_frames_are_scored_against_another_file(phone_file, tmp_path):
    task = PhoneStatesConfig(labels=(phone_file,)).complete().build()
    write_frame_labels(tmp_path / "other.parquet", [("u1", [3, 3, 4, 5, 5, 5], ("b",))], PHONE_FILE)
    task.score_against(str(tmp_path / "other.parquet"))
    table = index(id=["u1", "u2"], num_samples=[samples(6), samples(8)], speaker_id=["s1", "s2"])
    assert task.refuse(table).tolist() == ["", f"no phone states in {tmp_path / 'other.parquet'}"]
    trained = types.SimpleNamespace(utterances=index(id=["u2"], part=["train"]))
    fer, per, _ = task.rows([sure([3, 3, 4, 5, 5, 2], 9)], table.iloc[:1], trained, acoustic_scale=5.0)
    assert fer["value"] == pytest.approx(1 / 6) and "other.parquet" in fer["definition"]
    assert [example["reference"] for example in per["examples"]] == ["b"]


def test_rows_of_emotions_by_hand(emotions):
    """u1 is angry in the mean of its frames but for silence, of which it is surest; u2 is taken for sad."""
    first = np.log([[0.05, 0.02, 0.03, 0.90], [0.6, 0.3, 0.05, 0.05], [0.3, 0.4, 0.2, 0.1]] * 2)
    scores = [{"log_posteriors": first.astype(np.float32)}, sure([2] * 8, 4), sure([3, 3, 3, 2], 4)]
    table = index(id=["u1", "u2", "u3"], emotion=["angry", "excited", "sad"], speaker_id=["s1", "s2", "s2"])
    rows = {(row["metric"], row["unit"]): row for row in emotions.rows(scores, table, None)}
    assert rows["WAR", "utterance"]["value"] == pytest.approx(2 / 3) and rows["UAR", "utterance"]["value"] == pytest.approx(2 / 3)
    assert rows["UAR", "utterance"]["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    # frames: u1 is silence, voice ×2, twice -> found 3 0 1: the voiced are 0 and 1; u2: 8 wrong; u3: silent, 3 of 4 found
    truth = [3, 0, 0, 3, 0, 0] + [1] * 8 + [3] * 4
    found = [3, 0, 1, 3, 0, 1] + [2] * 8 + [3, 3, 3, 2]
    assert rows["WAR", "frame"]["value"] == pytest.approx(np.mean(np.equal(truth, found)))
    assert rows["UAR", "frame"]["value"] == pytest.approx(np.mean([0.5, 0, 5 / 6]))  # no frame is sad
    assert rows["WAR", "frame"]["n"] == 18 and rows["WAR", "utterance"]["by_speaker"]["speakers"] == ["s1", "s2"]
    summary = emotions.summary(scores, table)
    assert summary["frame_UAR"] == pytest.approx(np.mean([0.5, 0, 5 / 6])) and summary["UAR"] == pytest.approx(2 / 3)


def test_pieces_are_put_together_without_their_padding(phones):
    pieces = [{"log_posteriors": np.full((5, 9), k, np.float32), "frames": n} for k, n in ((0, 2), (1, 3))]
    assert phones.combine(pieces)["log_posteriors"][:, 0].tolist() == [0, 0, 1, 1, 1]
