"""CREMA-D: names of the clips of a clone, and the official TFDS builder fed with that clone."""

import collections
import importlib.util
import multiprocessing
from concurrent import futures

import numpy as np
import pytest
import soundfile
from acted_trees import assert_split_by_speaker, heard, load_all, write_crema_d

from ser_jax.corpora import crema_d, reader
from ser_jax.corpora.audio import BadAudio
from ser_jax.corpora.crema_d import CremaD
from ser_jax.corpora.schema import EMOTIONS
from ser_jax.errors import UsageError, UserError


@pytest.fixture
def clone(tmp_path):
    return write_crema_d(tmp_path / "CREMA-D")


def test_names_are_read(clone):
    taken, rejects = load_all(CremaD(clone))
    assert not rejects and len(taken) == 24  # each clip once, though AudioMP3 has it, too
    one = taken["1001_DFA_ANG_LO"]
    assert (one.text, one.speaker_id, one.gender, one.emotion, one.language, one.split, one.source) == (
        "Don't forget a jacket", "1001", "male", "angry", "en", "", "AudioWAV/1001_DFA_ANG_LO.wav")
    assert one.extra == {"sentence": "DFA", "intensity": "low"}
    np.testing.assert_array_equal(one.speech, soundfile.read(clone / one.source, dtype="int16")[0])
    assert collections.Counter(one.emotion for one in taken.values()) == dict.fromkeys(
        ["neutral", "happy", "sad", "angry", "fearful", "disgusted"], 4)
    assert {one.emotion for one in taken.values()} <= set(EMOTIONS)
    assert {one.speaker_id: one.gender for one in taken.values()} == {
        "1001": "male", "1002": "female", "1005": "male", "1091": "female"}
    assert {one.extra["intensity"] for one in taken.values()} == {"low", "medium", "high", "unspecified"}
    assert len(load_all(CremaD(clone / "AudioWAV"))[0]) == 24
    assert collections.Counter(CremaD.SPEAKERS.values()) == {"male": 48, "female": 43}


def test_names_that_do_not_fit_are_rejects(clone):
    sound = (clone / "AudioWAV/1001_DFA_ANG_LO.wav").read_bytes()
    for name in ("1040_ITH_SAD_X", "1092_ITH_SAD_XX", "1001_ABC_SAD_XX", "1001_ITH_JOY_XX", "1001_ITH_SAD_UP", "noise"):
        (clone / "AudioWAV" / f"{name}.wav").write_bytes(sound)
    taken, rejects = load_all(CremaD(clone))
    assert taken["1040_ITH_SAD_X"].extra["intensity"] == "unspecified" and len(taken) == 25
    assert sorted(reason.split("'")[0] for reason in rejects.values()) == [
        "the name is not actor, sentence, emotion and intensity, as 1001_IEO_ANG_HI", "unknown actor ",
        "unknown emotion ", "unknown intensity ", "unknown sentence "]


def test_clone_without_git_lfs_says_so(clone):
    path = clone / "AudioWAV/1001_DFA_ANG_LO.wav"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    corpus = CremaD(clone)
    unit, = (unit for unit in corpus.units() if unit.key == path.stem)
    with pytest.raises(BadAudio, match="git lfs pull"):
        list(corpus.load(unit))
    path.write_bytes(b"RIFF")
    with pytest.raises(BadAudio, match="libsndfile"):
        list(corpus.load(unit))


def test_sources_and_options_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match="use tree or tfds"):
        reader("crema_d", tmp_path, {"via": "hub"})
    with pytest.raises(UserError, match="no crema_d in this folder"):
        CremaD(tmp_path).units()


# ---------------------------------------------------------------------------------------------- official TFDS builder


def test_official_builder_hears_what_the_files_say(tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the [tfds] extra")
    # in a process of its own: openSMILE, which other tests run in this one, and TensorFlow end a process that loads both
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_official_builder, tmp_path).result()


def _official_builder(tmp_path):
    clone = write_crema_d(tmp_path / "CREMA-D")
    direct, _ = load_all(CremaD(clone))
    official, rejects = load_all(CremaD(clone, via="tfds", scratch=tmp_path / "scratch"))
    assert not rejects and len(official) == 24 and heard(official) == heard(direct)
    assert_split_by_speaker(official, {"train": 2, "validation": 1, "test": 1})
    assert {one.text for one in official.values()} == {""} and {len(one.extra) for one in official.values()} == {0}
    built = next((tmp_path / "scratch").glob("tfds-*/crema_d/1.0.0"))
    assert load_all(CremaD(built, via="tfds"))[0].keys() == official.keys()
    assert not list((tmp_path / "scratch").glob("*/downloads"))

    next(path for path in (clone / "AudioWAV").iterdir()).unlink()
    with pytest.raises(UserError, match="1 clips of processedResults/summaryTable.csv are not in AudioWAV"):
        CremaD(clone, via="tfds", scratch=tmp_path / "scratch").units()
    with pytest.raises(UserError, match="no prepared TFDS dataset crema_d and no processedResults"):
        CremaD(clone / "AudioWAV", via="tfds").units()


def test_labels_of_tfds_are_known():
    official = pytest.importorskip("tensorflow_datasets.audio.crema_d")
    assert set(official.LABELS) == set(CremaD.LABELS) == set(crema_d.EMOTIONS)
