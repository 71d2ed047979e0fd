"""LibriSpeech and TED-LIUM: the direct readers, and the official TFDS builders giving the same records."""

import argparse
import dataclasses
import io
import pickle
import shutil
import sys
import tarfile

import numpy as np
import official_archives as originals
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_jax.corpora import audio, prepare, reader, tedlium, tfds_official
from ser_jax.corpora.librispeech import LibriSpeech, parse_speakers, parse_transcripts
from ser_jax.corpora.schema import Reject
from ser_jax.corpora.tedlium import Tedlium, cut, parse_stm_line
from ser_jax.errors import UsageError, UserError


def load_all(source):
    """({id: utterance}, [rejects]); the reader is pickled on the way, as for a worker process."""
    units = source.units()
    source = pickle.loads(pickle.dumps(source))
    taken, rejects = {}, []
    for unit in units:
        loaded = list(source.load(unit))
        assert len(loaded) == unit.count or unit.count == 0
        for one in loaded:
            if isinstance(one, Reject):
                rejects.append(one)
            else:
                assert one.id not in taken
                taken[one.id] = one
    return taken, rejects


def assert_same(some, others, fields):
    assert some.keys() == others.keys()
    for identity, one in some.items():
        other = others[identity]
        assert one.speech.dtype == other.speech.dtype == np.int16
        np.testing.assert_array_equal(one.speech, other.speech)
        assert {field: getattr(one, field) for field in fields} == {field: getattr(other, field) for field in fields}


LABELS = ("id", "corpus", "text", "speaker_id", "gender", "split", "language")


@pytest.fixture
def tree(tmp_path):
    for subset in ("train-clean-100", "dev-clean"):
        originals.write_tree(tmp_path / "tree", originals.librispeech_files(subset))
    return tmp_path / "tree"


@pytest.fixture
def talks(tmp_path):
    originals.write_tree(tmp_path / "talks", originals.tedlium_files())
    return tmp_path / "talks"


# ---------------------------------------------------------------------------------------------- LibriSpeech, direct


def test_librispeech_tree(tree):
    taken, rejects = load_all(LibriSpeech(tree))
    assert not rejects and len(taken) == 8
    one = taken["110-115-0001"]
    assert (one.text, one.speaker_id, one.gender, one.session, one.split, one.language, one.source) == (
        "IT'S SENTENCE B OF READER 110", "110", "male", "115", "train-clean-100", "en",
        "train-clean-100/110/115/110-115-0001.flac")
    np.testing.assert_array_equal(one.speech, originals.signal(1.1, 111))
    inner, _ = load_all(LibriSpeech(tree / "LibriSpeech"))
    assert_same(taken, inner, [*LABELS, "source", "session"])


def test_librispeech_archives_give_the_records_of_the_tree(tree, tmp_path, capsys, monkeypatch):
    for subset in ("train-clean-100", "dev-clean"):
        originals.write_archive(tmp_path / "in" / f"{subset}.tar.gz", originals.librispeech_files(subset))
    (tmp_path / "in" / "original-mp3.tar.gz").write_bytes(b"not read, not a subset")
    expected, _ = load_all(LibriSpeech(tree))
    taken, _ = load_all(LibriSpeech(tmp_path / "in", scratch=tmp_path / "scratch"))
    assert_same(expected, taken, [*LABELS, "source", "session"])
    assert str(tmp_path / "scratch") in capsys.readouterr().err

    # a second run unpacks nothing and lists the same units
    monkeypatch.setattr(tarfile, "open", None)
    again = LibriSpeech(tmp_path / "in", scratch=tmp_path / "scratch")
    assert {unit.key for unit in again.units()} == taken.keys()
    single = LibriSpeech(tmp_path / "in" / "dev-clean.tar.gz", scratch=tmp_path / "scratch")
    assert {unit.key for unit in single.units()} == {key for key, one in taken.items() if one.split == "dev-clean"}


def test_librispeech_subsets(tree):
    taken, _ = load_all(reader("librispeech", tree, {"subsets": "dev-clean"}))
    assert {one.split for one in taken.values()} == {"dev-clean"}
    with pytest.raises(UserError, match="no subset 'test-clean'; there is dev-clean, train-clean-100"):
        LibriSpeech(tree, subsets=("test-clean",)).units()
    with pytest.raises(UsageError, match="use tree or tfds"):
        LibriSpeech(tree, via="hub")


def test_librispeech_partial_tree(tree, capsys):
    chapter = tree / "LibriSpeech/train-clean-100/100/105"
    (chapter / "100-105.trans.txt").unlink()  # no transcripts at all: still audio
    (tree / "LibriSpeech/train-clean-100/110/115/110-115-0000.flac").unlink()  # transcript without audio
    trans = tree / "LibriSpeech/dev-clean/160/165/160-165.trans.txt"
    trans.write_text("160-165-0001\n")  # one utterance not listed, one listed without words
    (tree / "LibriSpeech/SPEAKERS.TXT").write_text("; comment | F | x\n110 | M | train-clean-100 | 1.0 | A|B;C\n")
    taken, rejects = load_all(LibriSpeech(tree))
    assert [reject.id for reject in rejects] == ["110-115-0000"] and "missing file" in rejects[0].reason
    assert len(taken) == 7
    assert taken["100-105-0000"].text == taken["160-165-0000"].text == taken["160-165-0001"].text == ""
    assert taken["110-115-0001"].gender == "male" and taken["100-105-0000"].gender == ""
    assert "gender unknown for 3 of 4 readers" in capsys.readouterr().err


def test_librispeech_without_speakers_file(tree, capsys):
    (tree / "LibriSpeech/SPEAKERS.TXT").unlink()
    taken, _ = load_all(LibriSpeech(tree))
    assert {one.gender for one in taken.values()} == {""}
    warning = capsys.readouterr().err
    assert "SPEAKERS.TXT is missing" in warning and warning.count("\n") == 1


@pytest.mark.parametrize("change", ["audio", "transcript", "gender"])
def test_librispeech_stamp_follows_what_the_record_is_made_of(tree, change):
    before = {unit.key: unit.stamp for unit in LibriSpeech(tree).units()}
    if change == "audio":
        path = tree / "LibriSpeech/dev-clean/160/165/160-165-0000.flac"
        path.write_bytes(originals.flac(originals.signal(1.5, 1)))
        changed = {"160-165-0000"}
    elif change == "transcript":
        path = tree / "LibriSpeech/dev-clean/160/165/160-165.trans.txt"
        path.write_text(path.read_text().replace("SENTENCE", "PHRASE"))
        changed = {"160-165-0000", "160-165-0001"}
    else:
        path = tree / "LibriSpeech/SPEAKERS.TXT"
        path.write_text(path.read_text().replace("160  | F", "160  | M"))
        changed = {"160-165-0000", "160-165-0001"}
    after = {unit.key: unit.stamp for unit in LibriSpeech(tree).units()}
    assert {key for key in before if before[key] != after[key]} == changed


def test_sources_that_are_not_the_corpus(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for cls in (LibriSpeech, Tedlium):
        with pytest.raises(UserError, match="expected"):
            cls(tmp_path).units()
        with pytest.raises(UserError, match="no such file"):
            cls(tmp_path / "absent")
        with pytest.raises(UserError, match="neither a folder nor an archive"):
            cls(tmp_path / "notes.txt").units()
        with pytest.raises(UsageError, match="--source"):
            cls(None)


# ---------------------------------------------------------------------------------------------- archives


def hostile_archive(path, kind):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("LibriSpeech/../../escaped.txt" if kind == "dots" else "LibriSpeech/link")
        if kind == "dots":
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        else:
            member.type = tarfile.SYMTYPE if kind == "link" else tarfile.CHRTYPE
            member.linkname = "../../../escaped.txt"
            archive.addfile(member)
    return path


@pytest.mark.parametrize("kind", ["dots", "link", "device"])
def test_archive_that_would_escape_is_refused(tmp_path, kind):
    path = hostile_archive(tmp_path / "train-clean-100.tar.gz", kind)
    with pytest.raises(UserError, match="refused"):
        LibriSpeech(path, scratch=tmp_path / "a" / "scratch").units()
    assert not list(tmp_path.rglob("escaped.txt"))
    with pytest.raises(UserError, match="refused"):  # what the first attempt left does not pass for an unpacked archive
        LibriSpeech(path, scratch=tmp_path / "a" / "scratch").units()


def test_incomplete_archive_is_named_and_mended_by_a_whole_one(tmp_path):
    path = originals.write_archive(tmp_path / "dev-clean.tar.gz", originals.librispeech_files("dev-clean"))
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match="dev-clean.tar.gz: broken or incomplete"):
        LibriSpeech(path).units()
    path.write_bytes(whole)
    assert len(LibriSpeech(path).units()) == 4
    assert not list(tmp_path.rglob("*.partial"))


def test_half_unpacked_archive_is_unpacked_again(tmp_path):
    path = originals.write_archive(tmp_path / "dev-clean.tar.gz", originals.librispeech_files("dev-clean"))
    assert len(LibriSpeech(path).units()) == 4
    unpacked, = (tmp_path / "unpacked").iterdir()
    killed = unpacked.rename(unpacked.with_name(unpacked.name + ".partial"))  # what a killed run leaves
    next(killed.rglob("*-0000.flac")).unlink()
    next(killed.rglob("*-0001.flac")).write_bytes(b"half")
    taken, rejects = load_all(LibriSpeech(path))
    assert len(taken) == 4 and not rejects
    assert list((tmp_path / "unpacked").iterdir()) == [unpacked]


def test_prepare_verb_unpacks_beside_the_output(tmp_path, capsys):
    folder = tmp_path / "in"
    originals.write_archive(folder / "dev-clean.tar.gz", originals.librispeech_files("dev-clean"))
    arguments = argparse.ArgumentParser()
    prepare.add_arguments(arguments)
    line = ["librispeech", "--source", str(folder), "--out", str(tmp_path / "out" / "libri"), "--workers", "1"]
    assert prepare.run(arguments.parse_args(line)) == 0
    assert "4 of 4" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["dev-clean.tar.gz"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"libri", "libri.unpacked"}
    assert prepare.run(arguments.parse_args(line)) == 0
    assert "already prepared" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- TED-LIUM, direct


def test_tedlium_tree_decodes_a_talk_once(talks, monkeypatch):
    calls, read = [], audio.read
    monkeypatch.setattr(audio, "read", lambda path, *bounds: calls.append(path) or read(path, *bounds))
    taken, rejects = load_all(Tedlium(talks))
    assert len(calls) == len(set(calls)) == 6
    assert not rejects and len(taken) == 24
    talk = "AnnDevmale_2010"
    one = taken[f"{talk}-1.1355-2.3339-<F0_M>"]
    assert (one.text, one.speaker_id, one.gender, one.session, one.split, one.source) == (
        "café it is", talk, "male", talk, "dev", f"dev/sph/{talk}.sph#1.1355-2.3339")
    whole = originals.signal(3.4567, 8)
    np.testing.assert_array_equal(one.speech, whole[1135 * 16:2333 * 16])
    assert taken[f"{talk}-0.29-1.1-<o,f0,male>"].gender == "male"
    gap = taken["inter_segment_gap-1.1-1.1311-<o,,unknown>"]
    assert (gap.text, gap.gender) == ("ignore_time_segment_in_scoring", "")
    last = taken[f"{talk}-2.3339-3.46-<NA>"]
    assert (last.text, last.gender) == ("a (laughter) word", "")
    np.testing.assert_array_equal(last.speech, np.pad(whole, (0, 5))[2333 * 16:3457 * 16])


def test_tedlium_gaps_can_be_dropped(talks):
    taken, _ = load_all(reader("tedlium", talks, {"gaps": "drop"}))
    assert len(taken) == 18 and not any("gap" in identity for identity in taken)


def test_tedlium_bad_talks_and_lines_are_rejects(talks, capsys):
    root = talks / "TEDLIUM_release2"
    (root / "dev/sph/AnnDevfemale_2010.sph").unlink()
    (root / "dev/sph/AnnDevmale_2010.sph").write_bytes(b"no audio")
    (root / "test/stm/AnnTestmale_2010.stm").unlink()
    path = root / "train/stm/AnnTrainmale_2010.stm"
    path.write_text(";; a comment\n\nshort line\nAnnTrainmale_2010 2 B 0.1 0.5 <o,f0,male> channel\n"
                    "AnnTrainmale_2010 1 B 0.7 0.5 <o,f0,male> back\nAnnTrainmale_2010 1 B nan 0.5 <o,f0,male> nan\n"
                    "AnnTrainmale_2010 1 B 0.5 1.5 <o,f0,male>\n")
    taken, rejects = load_all(Tedlium(talks))
    assert len(taken) == 4 + 1 + 4
    assert taken["B-0.5-1.5-<o,f0,male>"].text == ""
    reasons = {reject.id: reject.reason for reject in rejects}
    assert len(reasons) == len(rejects) == 4 + 4 + 4
    assert "missing file" in reasons["AnnDevfemale_2010-0.29-1.1-<o,f0,female>"]
    assert "libsndfile" in reasons["AnnDevmale_2010-0.29-1.1-<o,f0,male>"]
    assert "not a stm line" in reasons["AnnTrainmale_2010:3"]
    assert "channel 2" in reasons["B-0.1-0.5-<o,f0,male>"]
    assert "1 talks have no stm" in capsys.readouterr().err


def test_tedlium_releases(tmp_path):
    first = originals.tedlium_files("TEDLIUM_release1")
    third = originals.tedlium_files("TEDLIUM_release-3", ("data", "legacy/dev", "legacy/test"))
    originals.write_tree(tmp_path / "both", {**first, **third})
    with pytest.raises(UserError, match="option release"):
        Tedlium(tmp_path / "both").units()
    taken, _ = load_all(Tedlium(tmp_path / "both", release="3"))
    assert {split: sum(one.split == split for one in taken.values()) for split in ("train", "dev", "test")} == {
        "train": 8, "dev": 8, "test": 8}
    archive = originals.write_archive(tmp_path / "in" / "TEDLIUM_release-3.tgz", third)
    expected = taken
    taken, _ = load_all(Tedlium(archive.parent, scratch=tmp_path / "scratch"))
    assert_same(expected, taken, [*LABELS, "source", "session"])
    with pytest.raises(UsageError, match="release='4'"):
        Tedlium(tmp_path / "both", release="4")


# ---------------------------------------------------------------------------------------------- parsers

FIELD = st.text(st.characters(blacklist_characters="|\r\n", blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
WORD = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)


@given(st.dictionaries(st.integers(1, 9999), st.tuples(st.sampled_from("FM?"), FIELD, st.lists(FIELD, max_size=3))),
       st.sampled_from(["\n", "\r\n"]))
def test_speakers_file(readers, newline):
    lines = [";ID  |SEX| SUBSET |MINUTES| NAME", ""]
    lines += [f"{number:<5}| {sex} | {subset} | 25.03 | {'|'.join(name)}"
              for number, (sex, subset, name) in readers.items()]
    expected = {"F": "female", "M": "male", "?": ""}
    assert parse_speakers(newline.join(lines)) == {str(key): expected[value[0]] for key, value in readers.items()}


@pytest.mark.parametrize("line", ["no reader | F | x | 1 | y", "12", "-3 | F"])
def test_speakers_file_with_a_strange_line(line):
    with pytest.raises(UserError, match="SPEAKERS.TXT: line 2"):
        parse_speakers(f"; comment\n{line}\n")


@given(st.dictionaries(WORD, st.lists(WORD, max_size=4)))
def test_transcripts_file(utterances):
    text = "\n".join(" ".join([identity, *words]) for identity, words in utterances.items())
    assert parse_transcripts(text) == {identity: " ".join(words) for identity, words in utterances.items()}


def test_transcripts_file_with_an_id_twice():
    with pytest.raises(UserError, match="1-2-3 is there twice"):
        parse_transcripts("1-2-3 A\n1-2-3 B\n")


@given(st.tuples(WORD, WORD), st.floats(0, 900), st.floats(0, 20), st.lists(WORD, min_size=1, max_size=5),
       st.sampled_from([("<o,f0,female>", "female"), ("<o,f0,male>", "male"), ("<F0_F>", "female"), ("<F0_M>", "male"),
                        ("<o,,unknown>", ""), ("<NA>", ""), ("<o,f0,>", "")]), st.booleans())
def test_stm_line(names, start, length, words, label, with_key):
    talk, speaker = names
    bounds = f"{start:.2f}", f"{start + length:.2f}"
    words = ["so", *words, "end"]
    line = " ".join([talk, "1", speaker, *bounds, label[0], *words] + ["(key-of-it)"] * with_key)
    segment = parse_stm_line(line)
    assert dataclasses.astuple(segment) == (talk, speaker, *bounds, label[0], " ".join(words), "")
    assert segment.gender == label[1]
    assert segment.id == f"{speaker}-{bounds[0]}-{bounds[1]}-{label[0]}"


@given(st.text())
def test_stm_line_takes_any_text(line):
    segment = parse_stm_line(line.strip())
    assert segment is None or segment.problem or 0 <= float(segment.start) <= float(segment.end)


@given(st.integers(1, 5000), st.floats(0, 0.4), st.floats(0, 0.2))
def test_cut_is_that_of_the_stand_in_for_pydub(length, start, seconds):
    speech = np.arange(1, length + 1).astype(np.int16)
    end = start + seconds
    stand_in = tfds_official._Segment(speech[:, None], 16_000)[int(start * 1000):int(end * 1000)]
    np.testing.assert_array_equal(cut(speech, start, end), stand_in.get_array_of_samples())


@pytest.mark.parametrize("length, start, end, first, samples, zeros", [
    (16_000, 0.25, 0.5, 4_000, 4_000, 0),
    (16_000, 0.2509, 0.5009, 4_000, 4_000, 0),  # truncated to milliseconds
    (16_009, 0.5, 2, 8_000, 8_009, 7),  # the talk counts as 1.001 s
    (16_007, 0.5, 2, 8_000, 8_000, 0),  # the talk counts as 1.000 s
    (16_000, 3, 4, 16_000, 0, 0),
])
def test_cut(length, start, end, first, samples, zeros):
    """The values are those of pydub 0.25.1, tried by hand."""
    speech = np.arange(1, length + 1).astype(np.int16)
    np.testing.assert_array_equal(cut(speech, start, end), np.pad(speech[first:first + samples], (0, zeros)))


# ---------------------------------------------------------------------------------------------- official TFDS builders


def test_missing_tensorflow_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    tfds_official._tfds.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'ser_jax\[tfds\]'"):
        LibriSpeech(tmp_path, via="tfds").units()


def test_samples_outside_of_16_bits_are_refused():
    exact = np.array([-32768, 0, 32767], dtype=np.int64)
    assert tfds_official.to_int16(exact).tolist() == exact.tolist()
    with pytest.raises(audio.BadAudio):
        tfds_official.to_int16(np.array([32768], dtype=np.int64))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Folders: the original archives in miniature (`in`), and what the official builders made of them (`scratch`)."""
    pytest.importorskip("tensorflow", reason="needs the [tfds] extra")
    pytest.importorskip("apache_beam", reason="needs the [beam] extra")
    folder = tmp_path_factory.mktemp("official")
    for subset in originals.SUBSETS:
        originals.write_archive(folder / "in" / f"{subset}.tar.gz", originals.librispeech_files(subset))
    originals.write_archive(folder / "in" / "TEDLIUM_release2.tar.gz", originals.tedlium_files())
    for cls in (LibriSpeech, Tedlium):
        cls(folder / "in", via="tfds", scratch=folder / "scratch").units()
    assert "pydub" not in sys.modules or hasattr(sys.modules["pydub"], "__version__")
    return folder


@pytest.mark.parametrize("cls, utterances", [(LibriSpeech, 28), (Tedlium, 24)])
def test_official_builder_gives_the_records_of_the_direct_reader(official, cls, utterances, capsys):
    direct, _ = load_all(cls(official / "in", scratch=official / "direct"))
    through_tfds, rejects = load_all(cls(official / "in", via="tfds", scratch=official / "scratch"))
    assert "builder runs" not in capsys.readouterr().err  # built once, by the fixture
    assert len(direct) == utterances and not rejects
    assert {one.gender for one in direct.values()} >= {"female", "male"}
    assert_same(direct, through_tfds, LABELS)
    assert not list((official / "scratch").glob("*/downloads"))


def to_array_record(folder):
    """What `download_and_prepare(file_format="array_record")` writes: the same examples in other files."""
    import tensorflow
    from array_record.python.array_record_module import ArrayRecordWriter

    for path in folder.glob("*.tfrecord-*"):
        writer = ArrayRecordWriter(str(path).replace(".tfrecord-", ".array_record-"), "group_size:1")
        for example in tensorflow.data.TFRecordDataset(str(path)).as_numpy_iterator():
            writer.write(example)
        writer.close()
        path.unlink()
    info = folder / "dataset_info.json"
    text = info.read_text()
    assert text.count("tfrecord") == 1
    info.write_text(text.replace("tfrecord", "array_record"))


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("cls, dataset", [(LibriSpeech, "librispeech/default/2.1.1"),
                                          (Tedlium, "tedlium/release2/1.0.1")])
def test_prepared_tfds_folder(official, tmp_path, cls, dataset, file_format):
    built = next((official / "scratch").glob(f"tfds-*/{dataset}"))
    shutil.copytree(built, tmp_path / dataset)
    if file_format == "array_record":
        to_array_record(tmp_path / dataset)
    assert list((tmp_path / dataset).glob(f"*.{file_format}-*"))
    direct, _ = load_all(cls(official / "in", scratch=official / "direct"))
    for source in (tmp_path, tmp_path / dataset):
        through_tfds, _ = load_all(cls(source, via="tfds"))
        assert_same(direct, through_tfds, LABELS)


def test_official_options(official):
    some, _ = load_all(LibriSpeech(official / "in", via="tfds", subsets="test-other", scratch=official / "scratch"))
    assert {one.split for one in some.values()} == {"test-other"} and len(some) == 4
    some, _ = load_all(Tedlium(official / "in", via="tfds", gaps="drop", scratch=official / "scratch"))
    assert len(some) == 18


def test_official_builder_names_what_is_missing(official, tmp_path, monkeypatch):
    shutil.copy(official / "in" / "dev-clean.tar.gz", tmp_path)
    with pytest.raises(UserError, match="no dev-other.tar.gz.*via=tree"):
        LibriSpeech(tmp_path, via="tfds").units()
    monkeypatch.setattr(tfds_official.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"apache_beam: pip install 'ser_jax\[beam\]'"):
        Tedlium(tmp_path, via="tfds").units()


def test_archives_in_a_tfds_download_folder_are_found(official, tmp_path):
    """TFDS keeps `<sanitised url><checksum>.tar.gz` in its download folder."""
    from tensorflow_datasets.core.download import resource

    tfds = pytest.importorskip("tensorflow_datasets")
    url = tedlium.URLS["2"]
    checksum = tfds.builder("tedlium/release2", data_dir=tmp_path).url_infos[url].checksum
    path = tmp_path / "downloads" / "tedlium" / resource.get_dl_fname(url, checksum)
    path.parent.mkdir(parents=True)
    shutil.copy(official / "in" / "TEDLIUM_release2.tar.gz", path)
    units = Tedlium(tmp_path, via="tfds").units()
    assert sum(unit.count for unit in units) == 24
