"""EmoDB: every name is read for what it says, and what is no such name is refused."""

import collections
import zipfile

import numpy as np
import pytest
import soundfile
from acted_trees import load_all, write_emodb
from corpus_files import prepare_tree

from ser_jax.corpora import reader
from ser_jax.corpora.emodb import SENTENCES, Emodb
from ser_jax.corpora.schema import EMOTIONS
from ser_jax.errors import UsageError, UserError


@pytest.fixture
def tree(tmp_path):
    return write_emodb(tmp_path / "emodb")


def test_names_are_read(tree):
    taken, rejects = load_all(Emodb(tree))
    assert not rejects and len(taken) == 70
    one = taken["03a01Wa"]
    assert (one.text, one.speaker_id, one.gender, one.emotion, one.language, one.corpus, one.source) == (
        "Der Lappen liegt auf dem Eisschrank.", "03", "male", "angry", "de", "emodb", "wav/03a01Wa.wav")
    assert one.extra == {"sentence": "a01", "version": "a", "age": 31}
    np.testing.assert_array_equal(one.speech, soundfile.read(tree / one.source, dtype="int16")[0])
    assert collections.Counter(one.emotion for one in taken.values()) == dict.fromkeys(
        ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "bored"], 10)
    assert all(one.emotion in EMOTIONS for one in taken.values())
    # the sixth character is the emotion: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral
    told = {identity[5]: one.emotion for identity, one in taken.items()}
    assert told == {"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad",
                    "N": "neutral"}
    men = {one.speaker_id for one in taken.values() if one.gender == "male"}
    assert men == {"03", "10", "11", "12", "15"} and len({one.speaker_id for one in taken.values()}) == 10
    assert {one.text for one in taken.values()} == set(SENTENCES.values()) and len(SENTENCES) == 10
    assert Emodb(tree / "wav").units()[0].key == Emodb(tree).units()[0].key


def test_names_that_do_not_fit_are_rejects(tree, tmp_path):
    sound = (tree / "wav/03a01Wa.wav").read_bytes()
    for name in ("04a01Wa", "03a03Wa", "03a01Za", "03a01W", "noise"):
        (tree / "wav" / f"{name}.wav").write_bytes(sound)
    (tree / "wav/._03a01Wa.wav").write_bytes(b"Mac OS X")
    (tree / "copy").mkdir()
    (tree / "copy/03a01Wa.wav").write_bytes(sound)
    taken, rejects = load_all(Emodb(tree))
    assert len(taken) == 70 and len(rejects) == 6
    assert rejects["wav/04a01Wa.wav"] == "unknown speaker '04' in the name"
    assert rejects["wav/03a03Wa.wav"] == "unknown sentence 'a03' in the name"
    assert rejects["wav/03a01Za.wav"] == "unknown emotion 'Z' in the name"
    assert rejects["wav/noise.wav"] == rejects["wav/03a01W.wav"] and "as 03a01Wa" in rejects["wav/noise.wav"]
    # of two files with one name the first is taken
    assert rejects["wav/03a01Wa.wav"] == "same name twice in the source (first: copy/03a01Wa.wav)"
    with pytest.raises(UserError, match="no emodb in this folder"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other/noise.wav").write_bytes(sound)
        Emodb(tmp_path / "other").units()


def test_archive_gives_the_records_of_the_tree(tree, tmp_path):
    expected, _ = load_all(Emodb(tree))
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "download.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for path in sorted(tree.rglob("*.*")):
            members.write(path, path.relative_to(tree))
    for source in (archive, archive.parent):
        taken, _ = load_all(reader("emodb", source, {"scratch": str(tmp_path / "scratch")}))
        assert {one.id: one.source for one in taken.values()} == {one.id: one.source for one in expected.values()}
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        Emodb(tree / "erkennung.txt").units()


def test_prepared(tree, tmp_path):
    index = prepare_tree("emodb", tree, tmp_path / "out").index
    assert len(index) == 70 and set(index["language"]) == {"de"} and set(index["gender"]) == {"female", "male"}


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="--source"):
        Emodb(None)
    with pytest.raises(UserError, match="no such file"):
        Emodb(tmp_path / "absent")
