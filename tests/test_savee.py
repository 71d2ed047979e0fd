"""SAVEE: names and folders of the audio release, and the official TFDS builder fed with its archive."""

import collections
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
from acted_trees import assert_split_by_speaker, heard, load_all, write_savee

from ser_jax.corpora import audio, reader
from ser_jax.corpora.savee import Savee
from ser_jax.corpora.schema import EMOTIONS
from ser_jax.errors import UsageError, UserError


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_savee(tmp_path_factory.mktemp("savee"))


def write_archive(tree, path):
    with zipfile.ZipFile(path, "w") as members:
        for file in sorted(tree.rglob("*.*")):
            members.write(file, file.relative_to(tree.parent))
    return path


def test_names_and_folders_are_read(tree):
    taken, rejects = load_all(Savee(tree))
    assert not rejects and len(taken) == 4 * 7 * 2
    one = taken["KL_su15"]
    assert (one.speaker_id, one.gender, one.emotion, one.text, one.language, one.split, one.source) == (
        "KL", "male", "surprised", "", "en", "", "KL/su15.wav")
    assert one.extra == {"sentence": 15}
    np.testing.assert_array_equal(one.speech, audio.read(tree / one.source))
    assert len(one.speech) == pytest.approx(soundfile.info(tree / one.source).frames / 44_100 * 16_000, abs=1)
    assert taken["KL_sa15"].emotion == "sad"
    assert collections.Counter(one.emotion for one in taken.values()) == dict.fromkeys(
        ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"], 8)
    assert {one.emotion for one in taken.values()} <= set(EMOTIONS)
    assert {one.speaker_id for one in taken.values()} == {"DC", "JE", "JK", "KL"}
    assert load_all(Savee(tree.parent))[0].keys() == taken.keys()


def test_copies_and_names_that_do_not_fit(tree, tmp_path):
    """A flat copy has the speaker in the name; a sentence that the corpus has not is refused."""
    for path in sorted(tree.glob("*/*01.wav")):
        shutil.copy(path, tmp_path / f"{path.parent.name}_{path.name}")
    (tmp_path / "DC").mkdir()
    sound = (tree / "DC/a01.wav").read_bytes()
    for name in ("n30", "a30", "a00", "x01", "JE_a02"):
        (tmp_path / "DC" / f"{name}.wav").write_bytes(sound)
    (tmp_path / "a02.wav").write_bytes(sound)
    taken, rejects = load_all(Savee(tmp_path))
    assert len(taken) == 28 + 1 and taken["DC_n30"].extra == {"sentence": 30} and taken["JE_a01"].speaker_id == "JE"
    folder = tmp_path.name
    assert rejects == {
        "DC/a30.wav": "sentence 30 of 15", "DC/a00.wav": "sentence 0 of 15",
        "DC/x01.wav": "the name is not emotion and number, as sa03",
        "DC/JE_a02.wav": "the name says speaker JE, the folder DC",
        "a02.wav": f"unknown speaker {folder!r} in the name"}


def test_archive_gives_the_records_of_the_tree(tree, tmp_path):
    archive = write_archive(tree, tmp_path / "AudioData.zip")
    for source in (archive, archive.parent):
        taken, _ = load_all(reader("savee", source, {"scratch": str(tmp_path / "scratch")}))
        assert taken.keys() == load_all(Savee(tree))[0].keys()


def test_sources_and_options_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match="--source"):
        Savee(None, via="tfds")
    with pytest.raises(UsageError, match="use tree or tfds"):
        Savee(tmp_path, via="hub")
    with pytest.raises(UserError, match="expected AudioData/DC/a01.wav"):
        Savee(tmp_path).units()


# ---------------------------------------------------------------------------------------------- official TFDS builder


def test_official_builder_hears_what_the_files_say(tree, tmp_path):
    pytest.importorskip("tensorflow", reason="needs the [tfds] extra")
    archive = write_archive(tree, tmp_path / "AudioData.zip")
    direct, _ = load_all(Savee(tree))
    for source in (archive, tmp_path):
        official, rejects = load_all(Savee(source, via="tfds", scratch=tmp_path / "scratch"))
        assert not rejects and len(official) == 56 and heard(official) == heard(direct)
        assert_split_by_speaker(official, {"train": 2, "validation": 1, "test": 1})
    built = next((tmp_path / "scratch").glob("tfds-*/savee/1.0.0"))
    again, _ = load_all(Savee(built, via="tfds"))
    assert again.keys() == official.keys() and {one.split for one in again.values()} == {"train", "validation", "test"}
    assert not list((tmp_path / "scratch").glob("*/downloads"))
    with pytest.raises(UserError, match="no prepared TFDS dataset savee and no AudioData.zip"):
        Savee(tree, via="tfds").units()
