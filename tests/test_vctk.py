"""VCTK: the direct reader on miniatures of both releases, and the official TFDS builder giving the same records."""

import pickle

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from official_archives import write_archive, write_tree

from ser_jax.corpora import audio, reader
from ser_jax.corpora.vctk import Vctk, parse_speakers
from ser_jax.errors import UsageError, UserError

FIELDS = ("id", "corpus", "text", "speaker_id", "gender", "session", "split", "language", "extra")


def load_all(corpus):
    """{id: utterance}; the reader is pickled on the way, as for a worker process."""
    units = corpus.units()
    corpus = pickle.loads(pickle.dumps(corpus))
    loaded = [one for unit in units for one in corpus.load(unit)]
    assert len(loaded) == sum(unit.count for unit in units) == len({one.id for one in loaded})
    return {one.id: one for one in loaded}


def assert_same(some, others):
    assert some.keys() == others.keys()
    for identity, one in some.items():
        np.testing.assert_array_equal(one.speech, others[identity].speech)
        assert [getattr(one, field) for field in FIELDS] == [getattr(others[identity], field) for field in FIELDS]


@pytest.fixture(scope="module")
def files():
    """{release: {path: bytes}}."""
    pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")
    from vctk_tree import vctk_files

    return {release: vctk_files(release) for release in ("0.92", "0.80")}


@pytest.fixture
def tree(files, tmp_path):
    write_tree(tmp_path / "VCTK-Corpus-0.92", files["0.92"])
    return tmp_path / "VCTK-Corpus-0.92"


def test_release_092(tree, capsys):
    for hidden in ("wav48_silence_trimmed/p225/._p225_009_mic1.flac", "txt/p225/._p225_009.txt"):
        (tree / hidden).write_bytes(b"Mac OS X")
    taken = load_all(Vctk(tree))
    assert len(taken) == 12
    one = taken["p225_002"]
    assert (one.text, one.speaker_id, one.gender, one.session, one.split, one.language, one.source) == (
        "We walk to the river, don't we?", "p225", "female", "", "", "en",
        "wav48_silence_trimmed/p225/p225_002_mic1.flac")
    assert one.extra == {"age": 23, "accent": "English", "region": "Southern England", "microphone": 1}
    path = tree / one.source
    np.testing.assert_array_equal(one.speech, audio.read(path))
    assert soundfile.info(path).samplerate == 48_000
    assert len(one.speech) == pytest.approx(soundfile.info(path).frames / 3, abs=1)
    assert taken["p315_001"].text == "" and taken["p315_001"].gender == "male"
    assert taken["p315_001"].extra["comments"] == "Text and mic2 files unavailable"
    assert taken["p376_001"].extra == {"age": 22, "accent": "Indian", "microphone": 1}
    assert taken["s5_001"].speaker_id == "s5" and taken["s5_001"].gender == "female"
    assert capsys.readouterr().err == "vctk: 2 recordings have no text; it is left empty\n"
    assert Vctk(tree.parent).units() == Vctk(tree).units()


def test_second_microphone(tree, capsys):
    first, second = load_all(Vctk(tree)), load_all(reader("vctk", tree, {"mic": "2"}))
    assert "2 texts have no recording of microphone 2" in capsys.readouterr().err
    assert second.keys() == {key for key in first if not key.startswith(("p280", "p315"))}
    assert {one.extra["microphone"] for one in second.values()} == {2}
    loudness = [np.abs(one["p226_001"].speech.astype(float)).mean() for one in (first, second)]
    assert loudness[0] == pytest.approx(2 * loudness[1], rel=0.01)


def test_release_080(files, tmp_path, capsys):
    write_tree(tmp_path / "tree", files["0.80"])
    taken = load_all(Vctk(tmp_path / "tree"))
    assert len(taken) == 8 and taken["p226_001"].source == "wav48/p226/p226_001.wav"
    assert taken["p226_001"].gender == "male" and taken["p226_001"].extra["region"] == "Surrey"
    assert taken["p280_001"].gender == "" and taken["p280_001"].extra == {"microphone": 1}
    assert "1 speakers are not in speaker-info.txt, their gender is unknown: p280" in capsys.readouterr().err
    with pytest.raises(UserError, match="release 0.80 has one microphone"):
        Vctk(tmp_path / "tree", mic="2").units()


def test_archives_give_the_records_of_the_tree(files, tree, tmp_path):
    from vctk_tree import write_zip

    write_zip(tmp_path / "new" / "VCTK-Corpus-0.92.zip", files["0.92"])
    for source in (tmp_path / "new", tmp_path / "new" / "VCTK-Corpus-0.92.zip"):
        taken = load_all(reader("vctk", source, {"scratch": str(tmp_path / "scratch")}))
        assert_same(load_all(Vctk(tree)), taken)
    old = write_archive(tmp_path / "old" / "VCTK-Corpus.tar.gz", files["0.80"])
    write_tree(tmp_path / "tree", files["0.80"])
    assert_same(load_all(Vctk(tmp_path / "tree")), load_all(Vctk(old)))


def test_zip_that_is_broken_or_would_escape(files, tmp_path):
    from vctk_tree import write_zip

    path = write_zip(tmp_path / "a" / "b" / "VCTK-Corpus-0.92.zip", {"../../escaped.txt": b"evil", **files["0.92"]})
    assert len(Vctk(path).units()) == 12
    escaped, = tmp_path.rglob("escaped.txt")
    assert tmp_path / "a" / "b" / "unpacked" in escaped.parents
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match="broken or incomplete archive"):
        Vctk(path).units()


@pytest.mark.parametrize("change", ["sound", "text", "speaker"])
def test_stamp_follows_what_the_record_is_made_of(tree, change):
    before = {unit.key: unit.stamp for unit in Vctk(tree).units()}
    if change == "sound":
        (tree / "wav48_silence_trimmed/p225/p225_001_mic1.flac").write_bytes(b"x")
    elif change == "text":
        (tree / "txt/p225/p225_001.txt").write_text("Ask him.")
    else:
        path = tree / "speaker-info.txt"
        path.write_text(path.read_text().replace("Surrey", "Kent"))
    after = {unit.key: unit.stamp for unit in Vctk(tree).units()}
    changed = {"p226_001", "p226_002"} if change == "speaker" else {"p225_001"}
    assert {key for key in before if before[key] != after[key]} == changed


def test_sources_and_options_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match="--source"):
        Vctk(None)
    with pytest.raises(UsageError, match="use 1 or 2"):
        Vctk(tmp_path, mic="3")
    with pytest.raises(UsageError, match="use tree or tfds"):
        Vctk(tmp_path, via="hub")
    with pytest.raises(UserError, match="no such file"):
        Vctk(tmp_path / "absent")
    with pytest.raises(UserError, match="expected wav48_silence_trimmed"):
        Vctk(tmp_path).units()
    for name in ("VCTK-Corpus/wav48", "VCTK-Corpus-0.92/wav48_silence_trimmed"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match="holds VCTK-Corpus-0.92, VCTK-Corpus; name one"):
        Vctk(tmp_path).units()
    with pytest.raises(UserError, match="no recording like p225/p225_001_mic1.flac"):
        Vctk(tmp_path / "VCTK-Corpus-0.92").units()


WORD = st.text(st.characters(categories=["Lu", "Ll"]), min_size=1, max_size=8)


FACTS = st.tuples(st.integers(1, 99), st.sampled_from("FM"), st.lists(WORD, max_size=4), st.lists(WORD, max_size=3))


@given(st.dictionaries(st.integers(1, 999), FACTS), st.sampled_from(["p", ""]))
def test_speakers_file(speakers, prefix):
    lines = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS "]
    for number, (age, gender, place, comments) in speakers.items():
        lines.append(f"{prefix}{number}  {age}  {gender}    {'  '.join(place)}"
                     + (f" ({' '.join(comments)})" if comments else "  "))
    found = parse_speakers("\r\n".join([*lines, ""]))
    assert found.keys() == {f"p{number}" for number in speakers}
    for number, (age, gender, place, comments) in speakers.items():
        told = {"accent": "".join(place[:1]), "region": " ".join(place[1:]), "comments": " ".join(comments)}
        told = {key: text for key, text in told.items() if text}
        assert found[f"p{number}"] == {"age": age, "gender": gender, **told}


# ---------------------------------------------------------------------------------------------- official TFDS builder


@pytest.fixture(scope="module")
def official(files, tmp_path_factory):
    """Folder with the original archive in miniature (`in`) and what the official builder made of it (`scratch`)."""
    pytest.importorskip("tensorflow", reason="needs the [tfds] extra")
    from vctk_tree import write_zip

    folder = tmp_path_factory.mktemp("vctk_official")
    write_zip(folder / "in" / "VCTK-Corpus-0.92.zip", files["0.92"])
    return folder


@pytest.mark.parametrize("mic", ["1", "2"])
def test_official_builder_gives_the_records_of_the_direct_reader(official, mic):
    direct = load_all(Vctk(official / "in", mic=mic, scratch=official / "direct"))
    through_tfds = load_all(Vctk(official / "in", via="tfds", mic=mic, scratch=official / "scratch"))
    assert len(direct) == {"1": 12, "2": 8}[mic]
    assert_same(direct, through_tfds)
    built = next((official / "scratch").glob(f"tfds-*/vctk/mic{mic}/1.0.1"))
    assert_same(direct, load_all(Vctk(built, via="tfds", mic=mic)))
    assert not list((official / "scratch").glob("*/downloads"))


def test_official_builder_names_what_is_missing(official, tmp_path):
    with pytest.raises(UserError, match="no prepared TFDS dataset vctk and no VCTK-Corpus-0.92.zip"):
        Vctk(tmp_path, via="tfds").units()
