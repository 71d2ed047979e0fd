"""TIMIT: the official tree in SPHERE or RIFF, upper or lower case; splits by the lists of speakers; broken labels."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import sphere, write_tree
from timit_tree import SPEAKERS, segments, speech, timit_files

from ser_jax.corpora import reader
from ser_jax.corpora.phones import TRANSCRIBED as LABELS
from ser_jax.corpora.schema import Reject
from ser_jax.corpora.timit import CORE_TEST_SPEAKERS, DEV_SPEAKERS, Timit, parse_phones
from ser_jax.errors import UserError


def riff(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def load_all(corpus):
    """{id: utterance or reject}; the reader is pickled on the way, as for a worker process."""
    units = corpus.units()
    corpus = pickle.loads(pickle.dumps(corpus))
    loaded = [one for unit in units for one in corpus.load(unit)]
    assert len(loaded) == len(units) == len({one.id for one in loaded})
    return {one.id: one for one in loaded}


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path / "TIMIT", timit_files())
    return tmp_path / "TIMIT"


def test_records(tree, capsys):
    found = load_all(Timit(tree))
    assert found.keys() == {f"{speaker}_{sentence}" for speaker in SPEAKERS for sentence in ("SI648", "SX37")}
    one = found["FAKS0_SX37"]
    assert (one.corpus, one.source, one.text, one.speaker_id, one.gender, one.session, one.split, one.language) == (
        "timit", "TEST/DR1/FAKS0/SX37.WAV", "Sentence SX37 of FAKS0, 2 pm.", "FAKS0", "female", "DR1", "dev", "en")
    assert one.extra == {"sentence": "SX37"}
    np.testing.assert_array_equal(one.speech, speech("SX37", 3 * list(SPEAKERS).index("FAKS0") + 2))
    assert one.phones == segments("SX37") and one.phones[-1][2] == len(one.speech)
    assert {(one.speaker_id, one.gender, one.session, one.split) for one in found.values()} == {
        ("FCJF0", "female", "DR1", "train"), ("MDAC0", "male", "DR1", "train"), ("MARC0", "male", "DR2", "train"),
        ("FAKS0", "female", "DR1", "dev"), ("MMDB1", "male", "DR1", "dev"), ("MDAB0", "male", "DR1", "core-test"),
        ("MSJS1", "male", "DR1", "test")}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lower, audio", [(True, sphere), (False, riff), (True, riff)])
def test_case_of_the_names_and_riff_change_nothing_but_the_source(tree, tmp_path, lower, audio):
    write_tree(tmp_path / "other", timit_files(lower=lower, audio=audio))
    found, expected = load_all(Timit(tmp_path / "other")), load_all(Timit(tree))
    assert found.keys() == expected.keys()
    for identity, one in expected.items():
        other = found[identity]
        assert other.source == (one.source.lower() if lower else one.source)
        np.testing.assert_array_equal(other.speech, one.speech)
        for field in ("text", "speaker_id", "gender", "session", "split", "phones", "extra"):
            assert getattr(other, field) == getattr(one, field)


def test_dialect_sentences_are_kept_on_demand(tree):
    found = load_all(reader("timit", tree, {"sa": "true"}))
    assert len(found) == 3 * len(SPEAKERS) and found["MDAB0_SA1"].split == "core-test"
    assert reader("timit", tree, {"sa": "true"}).options() == {"sa": True}


def test_riff_copies_beside_the_originals_are_left_out(tree):
    for path in tree.glob("*/*/*/*.WAV"):
        path.with_name(f"{path.name}.wav").write_bytes(riff(np.zeros(4000, np.int16)))
    found = load_all(Timit(tree))
    assert len(found) == 2 * len(SPEAKERS) and {Path(one.source).suffix for one in found.values()} == {".WAV"}
    for path in tree.glob("*/*/*/*.WAV"):
        path.unlink()
    copies = load_all(Timit(tree))
    assert copies.keys() == found.keys() and copies["FCJF0_SX37"].source == "TRAIN/DR1/FCJF0/SX37.WAV.wav"
    assert copies["FCJF0_SX37"].text == found["FCJF0_SX37"].text and copies["FCJF0_SX37"].phones


def test_a_sample_without_the_listed_speakers_says_so(tmp_path, capsys):
    write_tree(tmp_path, timit_files({"FCJF0": "TRAIN/DR1", "MSJS1": "TEST/DR1", "FAKS0": "TRAIN/DR1"}))
    assert {one.split for one in load_all(Timit(tmp_path)).values()} == {"train", "test"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "none of the 50 speakers of the dev list" in lines[0]
    assert "none of the 24 speakers of the core-test list" in lines[1]


def test_lists_are_those_of_the_corpus():
    assert len(DEV_SPEAKERS) == 50 and len(CORE_TEST_SPEAKERS) == 24 and not DEV_SPEAKERS & CORE_TEST_SPEAKERS
    assert sum(name[0] == "M" for name in CORE_TEST_SPEAKERS) == 16  # two men and a woman of each of eight regions
    assert len(set(LABELS)) == 61


def test_shortened_sphere_is_refused_with_what_to_do(tree):
    path = tree / "TRAIN/DR1/FCJF0/SX37.WAV"
    head = path.read_bytes().replace(b"sample_coding -s3 pcm", b"sample_coding -s26 pcm,embedded-shorten-v2.00")
    path.write_bytes(head[:1024] + b"ajkg\x02" + bytes(500))
    found = load_all(Timit(tree))["FCJF0_SX37"]
    assert isinstance(found, Reject) and "shorten" in found.reason and "sph2pipe" in found.reason


def test_missing_transcripts_are_counted_and_left_empty(tree, capsys):
    (tree / "TRAIN/DR1/FCJF0/SX37.PHN").unlink()
    (tree / "TRAIN/DR1/FCJF0/SX37.TXT").unlink()
    found = load_all(Timit(tree))["FCJF0_SX37"]
    assert (found.text, found.phones) == ("", [])
    assert capsys.readouterr().err.splitlines() == [f"timit: 1 of 14 recordings have no {suffix}; they get none"
                                                    for suffix in (".PHN", ".TXT")]


def test_phones_are_clipped_to_the_audio(tree):
    (tree / "TRAIN/DR1/FCJF0/SX37.PHN").write_text("0 5000 h#\n5000 90000 s\n90000 90100 h#\n")
    one = load_all(Timit(tree))["FCJF0_SX37"]
    assert one.phones == [("h#", 0, 5000), ("s", 5000, len(one.speech))]


@pytest.mark.parametrize("lines, reason", [
    ("0 100 h#\n100 200 xx", "unknown phone 'xx' in line 2"),
    ("0 100 h#\n100 200", "line 2 of .PHN is not START END LABEL"),
    ("0 100 h#\n-5 200 s", "line 2 of .PHN is not START END LABEL"),
    ("0 100 h#\n100 100 s", "times do not rise in line 2"),
    ("100 200 h#\n50 300 s", "times do not rise in line 2"),
    ("0 300 h#\n50 200 s", "times do not rise in line 2"),
])
def test_broken_phones_are_refused(tree, lines, reason):
    (tree / "TRAIN/DR1/FCJF0/SX37.PHN").write_text(lines)
    found = load_all(Timit(tree))
    assert isinstance(found["FCJF0_SX37"], Reject) and reason in found["FCJF0_SX37"].reason
    assert sum(isinstance(one, Reject) for one in found.values()) == 1


def test_gaps_and_overlaps_are_counted(tree):
    (tree / "TRAIN/DR1/FCJF0/SX37.PHN").write_text("0 100 h#\n150 300 s\n250 400 H#\n\n")
    one = load_all(Timit(tree))["FCJF0_SX37"]
    assert one.phones == [("h#", 0, 100), ("s", 150, 250), ("h#", 250, 400)]
    assert one.extra == {"sentence": "SX37", "phone_gaps": 1, "phone_overlaps": 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 3000)), max_size=30))
def test_abutting_phones_come_back_as_they_were_written(parts):
    ends = np.cumsum([0, *(length for _, length in parts)]).tolist()
    written = [(label, start, end) for (label, _), start, end in zip(parts, ends[:-1], ends[1:], strict=True)]
    text = "".join(f"{start} {end} {label}\n" for label, start, end in written)
    assert parse_phones(text) == (written, {})


def test_strange_files_and_folders(tree, tmp_path):
    (tree / "TRAIN/DR1/FCJF0/noise.wav").write_bytes(riff(np.arange(4000, dtype=np.int16)))
    (tree / "extra").mkdir()
    (tree / "extra/SX37.WAV").write_bytes(riff(np.arange(4000, dtype=np.int16)))
    refused = [one for one in load_all(Timit(tree)).values() if isinstance(one, Reject)]
    assert sorted(one.path for one in refused) == ["TRAIN/DR1/FCJF0/noise.wav", "extra/SX37.WAV"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no timit in this folder.*TRAIN and TEST"):
        Timit(tmp_path / "empty").units()


def test_stamps_change_with_the_transcripts(tree):
    path = tree / "TRAIN/DR1/FCJF0/SX37.PHN"
    before = {unit.key: unit.stamp for unit in Timit(tree).units()}
    path.write_text(path.read_text() + "20000 20100 s\n")
    after = {unit.key: unit.stamp for unit in Timit(tree).units()}
    assert {key for key in before if before[key] != after[key]} == {"FCJF0_SX37"}


@pytest.mark.skipif("SER_JAX_DATA" not in os.environ, reason="needs real corpora ($SER_JAX_DATA)")
def test_real_sample(capsys):
    found = [path for path in Path(os.environ["SER_JAX_DATA"]).glob("timit*/TIMIT")]
    if not found:
        pytest.skip("no TIMIT there")
    loaded = load_all(Timit(found[0])).values()
    assert loaded and not any(isinstance(one, Reject) for one in loaded)
    assert all(one.text and one.phones and one.phones[0][0] == "h#" == one.phones[-1][0] for one in loaded)
