"""The manifest reader: every column, every spelling, every fault; and the registry of readers."""

import json
import string

import numpy as np
import pandas
import pytest
from corpus_files import voice, write_audio, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.corpora import READERS, manifest, reader
from ser_jax.corpora.schema import EMOTIONS, Reject, Utterance
from ser_jax.errors import UsageError, UserError

SPEECH = voice(120.0, seconds=1.0)


def load(table, **options):
    """(utterances by id, rejects by id) of a whole manifest."""
    source = reader("manifest", table, options)
    taken, refused = {}, {}
    for unit in source.units():
        items = list(source.load(unit))
        assert len(items) == unit.count
        for item in items:
            (refused if isinstance(item, Reject) else taken)[item.id] = item
    return taken, refused


@pytest.fixture
def root(tmp_path):
    for name in ("a", "b", "c"):
        write_audio(tmp_path / "wav" / f"{name}.wav", SPEECH)
    return tmp_path


def test_only_path_is_required_and_nothing_is_invented(root):
    taken, refused = load(write_table(root / "manifest.csv", [{"path": "wav/a.wav"}, {"path": "./wav/b.wav"}]))
    assert set(taken) == {"wav/a", "wav/b"} and not refused
    utterance = taken["wav/a"]
    empty = Utterance("wav/a", root.name, "wav/a.wav", SPEECH)
    np.testing.assert_array_equal(utterance.speech, SPEECH)
    for field in ("corpus", "source", "text", "speaker_id", "gender", "session", "emotion", "split", "chunk_of",
                  "language", "extra", "phones"):
        assert getattr(utterance, field) == getattr(empty, field), field
    assert np.isnan([utterance.valence, utterance.arousal, utterance.dominance]).all()


def test_every_column_arrives(root):
    row = {"path": "wav/a.wav", "id": "u1", "text": 'He said "no", twice', "speaker_id": "0036", "gender": "F",
           "emotion": "Anger", "valence": "1.5", "arousal": "-2", "dominance": "3e-1", "session": "s1", "split": "dev",
           "chunk_of": "story", "language": "de", "age": "21", "note": ""}
    taken, _ = load(write_table(root / "manifest.csv", [row]))
    utterance = taken["u1"]
    assert (utterance.text, utterance.speaker_id, utterance.gender) == ('He said "no", twice', "0036", "female")
    assert (utterance.emotion, utterance.valence, utterance.arousal, utterance.dominance) == ("angry", 1.5, -2.0, 0.3)
    assert (utterance.session, utterance.split, utterance.chunk_of, utterance.language) == ("s1", "dev", "story", "de")
    assert utterance.extra == {"age": "21"}


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.tsv", "manifest.parquet"])
def test_csv_tsv_and_parquet_give_the_same(root, name):
    rows = [{"path": "wav/a.wav", "text": "a, b\tc", "speaker_id": "7", "valence": 2.5, "start": 0.25, "end": 0.75},
            {"path": "wav/b.wav", "text": "ä ß 漢", "speaker_id": "8", "valence": "", "start": "", "end": ""}]
    if name.endswith(".parquet"):
        frame = pandas.DataFrame(rows)
        for column in ("valence", "start", "end"):
            frame[column] = pandas.to_numeric(frame[column])
        frame["speaker_id"] = [7.0, 8.0]  # what pandas makes of codes in a column with holes
        frame.to_parquet(root / name)
    else:
        write_table(root / name, rows)
    taken, refused = load(root)  # the folder finds its table
    assert not refused and set(taken) == {"wav/a-0.25-0.75", "wav/b"}
    np.testing.assert_array_equal(taken["wav/a-0.25-0.75"].speech, SPEECH[4000:12_000])
    assert taken["wav/a-0.25-0.75"].source == "wav/a.wav#0.25-0.75"
    assert [taken[key].text for key in sorted(taken)] == ["a, b\tc", "ä ß 漢"]
    assert [taken[key].speaker_id for key in sorted(taken)] == ["7", "8"]
    assert taken["wav/a-0.25-0.75"].valence == 2.5 and np.isnan(taken["wav/b"].valence)


def test_parquet_keeps_types_in_extra_and_they_are_json(root):
    pandas.DataFrame({"path": ["wav/a.wav"], "age": [21], "tags": [["x", "y"]], "day": [pandas.Timestamp("2020-02-03")]}
                     ).to_parquet(root / "manifest.parquet")
    taken, _ = load(root)
    assert json.loads(json.dumps(taken["wav/a"].extra)) == {"age": 21, "tags": ["x", "y"], "day": "2020-02-03T00:00:00"}


def test_segments_of_a_file_are_one_unit(root):
    rows = [{"path": "wav/a.wav", "start": start, "end": start + 0.2} for start in (0.6, 0.0, 0.3)]
    source = reader("manifest", write_table(root / "manifest.csv", [*rows, {"path": "wav/b.wav"}]))
    assert sorted((unit.key, unit.count) for unit in source.units()) == [("wav/a.wav", 3), ("wav/b.wav", 1)]
    taken, _ = load(root)
    np.testing.assert_array_equal(taken["wav/a-0.3-0.5"].speech, SPEECH[4800:8000])


def test_rows_may_come_in_any_order(root):
    rows = [{"path": f"wav/{name}.wav", "start": start, "end": 0.9} for name in "abc" for start in (0, 0.5)]
    units = [[(unit.key, unit.count) for unit in reader("manifest", write_table(root / "manifest.csv", order)).units()]
             for order in (rows, rows[::-1])]
    assert sorted(units[0]) == sorted(units[1])


def test_a_changed_label_changes_the_stamp(root):
    stamps = []
    for emotion in ("sad", "happy", "sad"):
        table = write_table(root / "m.csv", [{"path": "wav/a.wav", "emotion": emotion}])
        stamps.append(reader("manifest", table).units()[0].stamp)
    assert stamps[0] == stamps[2] != stamps[1]


@pytest.mark.parametrize("byte_order_mark", ["utf-8", "utf-8-sig"])
def test_byte_order_mark_and_blank_lines(root, byte_order_mark):
    (root / "manifest.csv").write_text("path,text\r\n\r\nwav/a.wav,hé\r\n\r\n", encoding=byte_order_mark)
    taken, _ = load(root)
    assert taken["wav/a"].text == "hé"


@pytest.mark.parametrize(("spelled", "gender"), [
    ("f", "female"), ("F", "female"), ("Female", "female"), ("m", "male"), ("MALE", "male"), (" m ", "male"),
    ("", ""), ("unknown", ""), ("NaN", "")])
def test_gender_spellings(root, spelled, gender):
    taken, _ = load(write_table(root / "manifest.csv", [{"path": "wav/a.wav", "gender": spelled}]))
    assert taken["wav/a"].gender == gender


def test_gender_that_the_schema_does_not_hold_is_kept_in_extra(root):
    taken, _ = load(write_table(root / "manifest.csv", [{"path": "wav/a.wav", "gender": "Diverse"}]))
    assert taken["wav/a"].gender == "" and taken["wav/a"].extra == {"gender": "Diverse"}


def test_emotion_table_is_explicit_and_complete():
    words = manifest.EMOTION_WORDS
    assert set(words.values()) == set(EMOTIONS) and all(words[emotion] == emotion for emotion in EMOTIONS)
    assert (words["happiness"], words["anger"], words["fru"]) == ("happy", "angry", "frustrated")


@pytest.mark.parametrize(("row", "reason"), [
    ({"emotion": "furious"}, "unknown emotion 'furious'"),
    ({"gender": "x"}, "unknown gender 'x'"),
    ({"valence": "high"}, "valence 'high' is not a number"),
    ({"arousal": "inf"}, "arousal 'inf' is not a number"),
    ({"valence": "1_0"}, "valence '1_0' is not a number"),
    ({"start": "1:05"}, "start '1:05' is not a number"),
    ({"start": "0.2", "end": "3"}, "segment outside the file: 0.2 s to 3 s of 1.00 s"),
    ({"start": "0.5", "end": "0.5"}, "segment outside the file: 0.5 s to 0.5 s of 1.00 s"),
    ({"path": "wav/none.wav"}, "no such file"),
    ({"path": ""}, "no path"),
    ({"emotion": "x", "gender": "y"}, "unknown gender 'y'; unknown emotion 'x'"),
])
def test_a_bad_row_is_refused_and_the_others_stay(root, row, reason):
    good = {"path": "wav/b.wav", "id": "good"}
    taken, refused = load(write_table(root / "manifest.csv", [{"path": "wav/a.wav", "id": "bad", **row}, good]))
    assert set(taken) == {"good"} and [reject.reason for reject in refused.values()] == [reason]


def test_a_row_of_another_length_is_refused(root):
    (root / "manifest.csv").write_text("path,text\nwav/a.wav,one,two\nwav/b.wav\nwav/c.wav,fine\n")
    taken, refused = load(root)
    assert set(taken) == {"wav/c"}
    assert sorted(reject.reason for reject in refused.values()) == [
        "1 fields where the header has 2", "3 fields where the header has 2"]


def test_the_second_of_two_equal_ids_is_refused_naming_the_first(root):
    rows = [{"path": "wav/a.wav", "id": "x"}, {"path": "wav/b.wav", "id": "y"}, {"path": "wav/c.wav", "id": "x"}]
    source = reader("manifest", write_table(root / "manifest.csv", rows))
    items = [item for unit in source.units() for item in source.load(unit)]
    refused = [item for item in items if isinstance(item, Reject)]
    assert len(items) == 3 and [(reject.id, reject.path) for reject in refused] == [("x", "wav/c.wav")]
    assert refused[0].reason == "duplicate id (first: row 2, wav/a.wav)"


def test_same_stem_in_two_formats_is_a_duplicate(root):
    write_audio(root / "wav" / "a.flac", SPEECH)
    rows = [{"path": "wav/a.wav"}, {"path": "wav/a.flac"}]
    _, refused = load(write_table(root / "manifest.csv", rows))
    assert "duplicate id" in refused["wav/a"].reason


@pytest.mark.parametrize(("content", "message"), [
    (b"file,text\na.wav,x\n", "no column `path` in the header (file, text)"),
    (b"path,text,text\na.wav,x,y\n", "column 'text' appears twice"),
    (b"path,text\n", "no rows below the header"),
    (b"", "no column `path`"),
    ("path,text\na.wav,Mädchen\n".encode("latin-1"), "not UTF-8 text (byte 0xe4); save it as UTF-8"),
    (b'path,text\na.wav,"open\n', "not readable as CSV"),
])
def test_a_table_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        reader("manifest", tmp_path).units()
    assert message in str(caught.value) and str(tmp_path / "manifest.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_parquet_file(tmp_path):
    (tmp_path / "manifest.parquet").write_bytes(b"hello" * 100)
    with pytest.raises(UserError, match="not readable as Parquet"):
        reader("manifest", tmp_path).units()


def test_the_table_is_found_or_the_error_tells(tmp_path):
    with pytest.raises(UserError, match="has none of manifest.csv"):
        reader("manifest", tmp_path)
    with pytest.raises(UserError, match="no such manifest"):
        reader("manifest", tmp_path / "x.csv")
    with pytest.raises(UserError, match="is a .csv, .tsv or .parquet"):
        reader("manifest", tmp_path / "x.json")
    with pytest.raises(UsageError, match="needs --source"):
        reader("manifest")


def test_name_language_and_licence_options(root):
    rows = [{"path": "wav/a.wav", "language": ""}, {"path": "wav/b.wav", "language": "fr"}]
    source = reader("manifest", write_table(root / "m.csv", rows), {"name": "mine", "language": "de", "licence": "CC0"})
    assert (source.name, source.language, source.licence, source.synthetic) == ("mine", "de", "CC0", False)
    taken = [item for unit in source.units() for item in source.load(unit)]
    assert [(item.corpus, item.language) for item in taken] == [("mine", "de"), ("mine", "fr")]
    assert reader("manifest", root / "m.csv").name == root.name


CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30).map(str.strip)


@settings(max_examples=40, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=5))
def test_any_text_survives_csv(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("texts")
    write_audio(folder / "a.wav", SPEECH[:2000])
    rows = [{"path": "a.wav", "id": f"u{number}", "text": text} for number, text in enumerate(texts)]
    taken, refused = load(write_table(folder / "manifest.csv", rows))
    assert not refused and [taken[f"u{number}"].text for number in range(len(texts))] == texts


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(manifest.COLUMNS), st.text(string.printable, max_size=12), min_size=1))
def test_any_row_is_understood_or_refused(cells):
    row = manifest.parse_row(cells)
    assert row.fault or row.path
    assert row.fields.get("emotion", "neutral") in EMOTIONS and row.fields.get("gender", "male") in ("female", "male")


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_default_ids_tell_segments_apart_to_a_millisecond(start, end):
    same = manifest.default_id("d/a.wav", start, end) == manifest.default_id("d/a.wav", start + 0.01, end)
    assert not same and manifest.default_id("d/a.b.wav") == "d/a.b"


def test_registry_names_readers_and_suggests(root):
    table = write_table(root / "manifest.csv", [{"path": "wav/a.wav"}])
    assert set(READERS) == {"librispeech", "tedlium", "vctk", "timit", "ravdess", "iemocap", "msp_improv", "emodb", "crema_d",
                            "savee", "manifest", "espeak"}
    with pytest.raises(UsageError, match="unknown corpus 'librispech'.*did you mean 'librispeech'"):
        reader("librispech", table)
    with pytest.raises(UsageError, match="unknown option 'nmae'.*did you mean 'name'.*name, language, licence"):
        reader("manifest", table, {"nmae": "x"})
    with pytest.raises(UsageError, match="channel=humming: choose all, speech or song"):
        reader("ravdess", root, {"channel": "humming"})
