"""MSP-IMPROV: the reader against a miniature of the release, and its parser against any text."""

import collections
import math
import pickle
import tarfile

import numpy as np
import pytest
import soundfile
from corpus_files import prepare_tree
from hypothesis import given
from hypothesis import strategies as st
from msp_improv_tree import ACTIVATION, CODES, VALENCE, turns, write_msp_improv

from ser_jax.corpora import reader
from ser_jax.corpora.msp_improv import EMOTIONS, MspImprov, parse_evaluation
from ser_jax.corpora.schema import Reject, check_labels
from ser_jax.errors import UsageError, UserError


def load_all(corpus):
    """({id: utterance}, {id: reason of the reject}); the reader is pickled on the way, as for a worker process."""
    units = corpus.units()
    loaded = [one for unit in units for one in pickle.loads(pickle.dumps(corpus)).load(unit)]
    assert [one.id for one in loaded] == [unit.key for unit in units]
    rejects = {one.id: one.reason for one in loaded if isinstance(one, Reject)}
    return {one.id: one for one in loaded if one.id not in rejects}, rejects


@pytest.fixture
def release(tmp_path):
    return write_msp_improv(tmp_path)


def test_every_turn_is_read_as_it_was_written(release, capsys):
    taken, rejects = load_all(MspImprov(release))
    expected = {f"MSP-IMPROV-{name}": code for name, code in turns((1, 2))}
    assert not rejects and taken.keys() == expected.keys() and len(taken) == 24
    for identity, one in taken.items():
        sentence, speaker, scenario, turn = identity.split("-")[2:]
        code = expected[identity]
        assert one.source == f"session{int(speaker[1:])}/{sentence}/{scenario}/{identity}.wav"
        np.testing.assert_array_equal(one.speech, soundfile.read(release / one.source, dtype="int16")[0])
        assert (one.emotion, one.extra["code"], one.valence) == (CODES[code], code, VALENCE[code])
        # lively is high in this project, whatever the corpus counts
        assert one.extra["activation"] == ACTIVATION[code] and one.arousal == pytest.approx(6 - ACTIVATION[code])
        assert (one.speaker_id, one.gender, one.session) == (
            speaker, {"F": "female", "M": "male"}[speaker[0]], str(int(speaker[1:])))
        assert (one.extra["scenario"], one.extra["sentence"], one.extra["pair"]) == (scenario, int(sentence[1:3]), turn[:2])
        assert one.extra["target"] == CODES[sentence[3]]
        assert (one.corpus, one.language, one.split, one.chunk_of, one.dominance) == ("msp_improv", "en", "", "", 3.0)
        assert check_labels(one) is None
    angry = taken["MSP-IMPROV-S02A-M02-R-MM02"]
    assert angry.arousal > taken["MSP-IMPROV-S01N-M02-P-FM01"].arousal
    assert (angry.text, angry.extra["scenario_name"], angry.extra["naturalness"]) == ("How can I not?", "target read", 3.2)
    assert taken["MSP-IMPROV-S03H-F01-S-FM03"].text == "I'm quite sure that we will find some way."
    assert angry.extra["evaluations"] == [
        {"evaluator": "WORKER00000153-p16", "label": "Angry", "more": ["Angry", "Frustrated"], "activation": 2.0,
         "valence": 2.0, "dominance": 4.0, "naturalness": 3.0},
        {"evaluator": "WORKER00000209-p02", "label": "Neutral", "more": ["Neutral", "Other (curious)"],
         "activation": 3.0, "valence": None, "dominance": 2.0, "naturalness": 4.0}]
    told = capsys.readouterr().err
    assert "24 turns in 2 sessions; the whole corpus has 8,438 in 6" in told
    assert "4 turns have no transcription" in told and "4 turns lack a mean rating" in told
    assert MspImprov(release.parent).units() == MspImprov(release).units()


def test_prepared_index_holds_the_four_classes_of_the_literature(release, tmp_path):
    index = prepare_tree("msp_improv", release, tmp_path / "out").index
    assert collections.Counter(index["emotion"]) == dict.fromkeys(["angry", "happy", "neutral", "sad", "other", ""], 4)
    assert set(index["speaker_id"]) == {"F01", "M01", "F02", "M02"} and index["arousal"].between(1, 5).all()


def test_other_packagings(tmp_path):
    """Sound in `Audio`, the label file spelled right, no transcriptions; and an archive of it."""
    plain, _ = load_all(MspImprov(write_msp_improv(tmp_path / "plain", (1,), words=False)))
    other = write_msp_improv(tmp_path / "other", (1,), words=False, audio="Audio")
    (other / "Evalution.txt").rename(other / "Evaluation.txt")
    taken, _ = load_all(MspImprov(other))
    archive = tmp_path / "MSP-IMPROV.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(other, "MSP-IMPROV")
    unpacked, _ = load_all(reader("msp_improv", archive, {"scratch": str(tmp_path / "scratch")}))
    assert plain.keys() == taken.keys() == unpacked.keys() and {one.text for one in taken.values()} == {""}
    assert all(taken[key].source == unpacked[key].source == f"Audio/{plain[key].source}" for key in plain)


def test_damaged_release(release, capsys):
    before = {unit.key: unit.stamp for unit in MspImprov(release).units()}
    (release / "session1/S01N/P/MSP-IMPROV-S01N-F01-P-FM01.wav").unlink()
    path = release / "Evalution.txt"
    text = path.read_bytes().decode().replace("UTD-IMPROV-S02A-F01-R-FF02.avi; A;", "UTD-IMPROV-S02A-F01-R-FF02.avi; B;")
    text = text.replace("UTD-IMPROV-S05N-M02-P-FM05.avi;", "UTD-IMPROV-S05N-M02-P-FM05 ")
    text += ("UTD-IMPROV-S06N-M01-R-MM06.avi; N; A:3.0; V:3.0; D:3.0 ; N:3.0;\n"
             "UTD-IMPROV-S06N-M07-R-MM06.avi; N; A:3.0; V:3.0; D:3.0 ; N:3.0;\n"
             "UTD-IMPROV-S06N-M06-R-MM06.avi; N; A:3.0; V:3.0; D:3.0 ; N:3.0;\n")
    path.write_bytes(text.encode())
    taken, rejects = load_all(MspImprov(release))
    assert rejects.pop("MSP-IMPROV-S01N-F01-P-FM01") == "missing file (its labels are there)"
    assert all(key.startswith("Evalution.txt:") for key in rejects)
    assert sorted(reason.split(",")[0].split(" (")[0].split(":")[0] for reason in rejects.values()) == [
        "not a line of a turn", "the name is not sentence", "turn listed twice", "unknown emotion 'B'"]
    assert len(taken) == 24 - 3  # session 6 is not there and not missed
    assert "1 recordings have no labels" in capsys.readouterr().err
    after = {unit.key: unit.stamp for unit in MspImprov(release).units()}
    assert all(before[key] == after[key] for key in taken)  # a broken line keeps its evaluators to itself


def test_stamp_follows_sound_labels_and_words(release):
    before = {unit.key: unit.stamp for unit in MspImprov(release).units()}
    (release / "session1/S01N/P/MSP-IMPROV-S01N-F01-P-FM01.wav").write_bytes(b"x")
    (release / "Human_transcriptions/All_human_transcriptions/MSP-IMPROV-S02A-F01-R-FF02.txt").write_text("No.")
    path = release / "Evalution.txt"
    path.write_text(path.read_text().replace("S03H-M01-S-FM03.avi; H; A:2.8", "S03H-M01-S-FM03.avi; H; A:2.7"))
    after = {unit.key: unit.stamp for unit in MspImprov(release).units()}
    assert {key[11:] for key in before if before[key] != after[key]} == {
        "S01N-F01-P-FM01", "S02A-F01-R-FF02", "S03H-M01-S-FM03"}


def test_sources_that_are_not_the_corpus(tmp_path):
    with pytest.raises(UsageError, match="--source"):
        MspImprov(None)
    with pytest.raises(UserError, match="no such file"):
        MspImprov(tmp_path / "absent")
    with pytest.raises(UserError, match="expected Evalution.txt beside"):
        MspImprov(tmp_path).units()
    (tmp_path / "Evalution.txt").write_text("x")
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        MspImprov(tmp_path / "Evalution.txt").units()
    with pytest.raises(UserError, match="no sound"):
        MspImprov(tmp_path).units()
    (tmp_path / "session1/S01A/P").mkdir(parents=True)
    (tmp_path / "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav").write_bytes(b"x")
    with pytest.raises(UserError, match="no line like UTD-IMPROV"):
        MspImprov(tmp_path).units()


MEAN = st.one_of(st.none(), st.integers(1_000_000, 5_000_000).map(lambda value: value / 1e6))
LINE = st.tuples(st.sampled_from(sorted(EMOTIONS)), MEAN, MEAN, MEAN, MEAN, st.integers(0, 3))


def number(value):
    return "NaN" if value is None else f"{value:.6f}"


@given(st.lists(LINE, max_size=5), st.sampled_from(["\n", "\r\n"]), st.sampled_from([" ;", ";"]))
def test_evaluation_file(rows, newline, end):
    lines = []
    for i, (code, a, v, d, n, evaluators) in enumerate(rows):
        ratings = f"A:{number(a)}; V:{number(v)}; D:{number(d)}{end} N:{number(n)};"
        lines += [f"UTD-IMPROV-S20S-M06-T-MF{i:02d}.avi; {code}; {ratings}",
                  *[f"W{k}-p1; Sad; Sad,Depressed; {ratings}" for k in range(evaluators)], ""]
    found = [turn for _, turn in parse_evaluation(newline.join(lines))]
    assert len(found) == len(rows)
    for i, (turn, (code, a, v, d, n, evaluators)) in enumerate(zip(found, rows, strict=True)):
        means = {"activation": a, "valence": v, "dominance": d, "naturalness": n}
        assert (turn.problem, turn.name, turn.code, turn.means) == ("", f"S20S-M06-T-MF{i:02d}", code, means)
        assert turn.evaluations == [
            {"evaluator": f"W{k}-p1", "label": "Sad", "more": ["Sad", "Depressed"], **means} for k in range(evaluators)]


@given(st.text())
def test_evaluation_file_takes_any_text(text):
    for _, turn in parse_evaluation(f"{text}\nUTD-IMPROV-{text}.avi;{text}\nW;{text};A:{text};"):
        assert turn.problem or turn.code in EMOTIONS
        assert all(mean is None or math.isfinite(mean) for mean in turn.means.values())
