"""IEMOCAP: the reader against a miniature of the official release, and its parsers against any text."""

import collections
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from corpus_files import prepare_tree
from hypothesis import given
from hypothesis import strategies as st

from ser_jax.corpora import reader
from ser_jax.corpora.iemocap import EMOTIONS, Iemocap, parse_evaluation, parse_transcript
from ser_jax.corpora.schema import Reject, check_labels
from ser_jax.errors import UsageError, UserError


def load_all(corpus):
    """({id: utterance}, [rejects]); the reader is pickled on the way, as for a worker process."""
    units = corpus.units()
    loaded = [one for unit in units for one in pickle.loads(pickle.dumps(corpus)).load(unit)]
    assert len(loaded) == len(units)
    rejects = [one for one in loaded if isinstance(one, Reject)]
    return {one.id: one for one in loaded if not isinstance(one, Reject)}, rejects


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """(folder, {name: SpokenTurn}); read only."""
    pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")
    from iemocap_tree import write_iemocap

    folder = tmp_path_factory.mktemp("iemocap")
    return folder, write_iemocap(folder)


@pytest.fixture
def release(spoken, tmp_path):
    """A copy of Session1, to change."""
    shutil.copytree(spoken[0] / "IEMOCAP_full_release/Session1", tmp_path / "IEMOCAP_full_release/Session1")
    return tmp_path / "IEMOCAP_full_release"


def test_every_turn_is_read_as_it_was_written(spoken, capsys):
    folder, turns = spoken
    taken, rejects = load_all(Iemocap(folder))
    assert not rejects and taken.keys() == turns.keys() and len(taken) == 80
    for name, turn in turns.items():
        one = taken[name]
        np.testing.assert_array_equal(one.speech, turn.speech)
        assert (one.valence, one.arousal, one.dominance) == turn.means
        assert (one.text, one.extra["code"], one.emotion) == (turn.text, turn.code, EMOTIONS[turn.code])
        assert check_labels(one) is None
        # the gender of the turn, not of the speaker that the dialogue is named for
        assert one.gender == {"F": "female", "M": "male"}[name[-4]]
        assert one.speaker_id == name[:5] + name[-4] and one.session == name[:5]
        assert one.source == f"Session{name[4]}/sentences/wav/{name[:-5]}/{name}.wav"
        assert (one.corpus, one.language, one.split, one.chunk_of) == ("iemocap", "en", "", "")
    assert len({one.speaker_id for one in taken.values()}) == 10
    assert set(collections.Counter(one.emotion for one in taken.values())) == set(EMOTIONS.values())
    told = capsys.readouterr().err
    assert "80 turns in 5 sessions; the whole release has 10,039" in told and "no transcription" not in told
    assert Iemocap(folder / "IEMOCAP_full_release").units() == Iemocap(folder).units()


def test_what_only_iemocap_has(spoken):
    taken, _ = load_all(Iemocap(spoken[0]))
    one = taken["Ses05M_script01_1b_F001"]
    assert (one.speaker_id, one.gender, one.extra["dialog"], one.extra["scenario"]) == (
        "Ses05F", "female", "Ses05M_script01_1b", "scripted")
    one = taken["Ses01F_impro01_M000"]
    assert one.extra["scenario"] == "improvised" and one.extra["start"] > 4
    assert one.extra["end"] - one.extra["start"] == pytest.approx(len(one.speech) / 16_000, abs=1e-3)
    assert list(one.extra["categories"]) == ["E2", "E3", "E4", "M1"]
    assert list(one.extra["ratings"]) == ["E3", "E4", "M1"]
    assert len(one.extra["categories"]["E4"]) == 2 and one.extra["categories"]["E4"][0] == "Neutral"
    assert one.extra["ratings"]["M1"] == {"valence": 3.0, "arousal": None, "dominance": 1.0}
    observers = [one.extra["ratings"][evaluator]["arousal"] for evaluator in ("E3", "E4")]
    assert one.arousal == np.mean(observers)
    undecided = [one for one in taken.values() if one.extra["code"] == "xxx"]
    assert len(undecided) == 10 and {one.emotion for one in undecided} == {""}


def test_outliers_are_kept_and_named(spoken, capsys):
    from iemocap_tree import OUTLIER

    taken, _ = load_all(Iemocap(spoken[0]))
    told = f"mean ratings outside of 1 to 5 (1) are kept as they are: {OUTLIER} dominance 5.5\n"
    assert told in capsys.readouterr().err
    assert taken[OUTLIER].dominance == 5.5
    outliers = {name: one.extra["outliers"] for name, one in taken.items()}
    assert {name: found for name, found in outliers.items() if found} == {OUTLIER: ["dominance"]}


def test_prepared_index_holds_the_subsets_of_the_literature(spoken, tmp_path):
    folder, turns = spoken
    corpus = prepare_tree("iemocap", folder, tmp_path / "out")
    index = corpus.index
    assert len(corpus) == 80 and set(index["session"]) == {f"Ses0{k}" for k in range(1, 6)}
    codes = collections.Counter(turn.code for turn in turns.values())
    assert (index["emotion"] != "").sum() == 80 - codes["xxx"] == 70  # --where emotion!=
    four = index["emotion"].isin(["angry", "happy", "excited", "neutral", "sad"])
    assert four.sum() == sum(codes[code] for code in ("ang", "hap", "exc", "neu", "sad")) > 40
    assert index["dominance"].max() == 5.5


def test_damaged_release(release, capsys):
    session = release / "Session1"
    (session / "sentences/wav/Ses01F_impro01/Ses01F_impro01_M001.wav").unlink()
    (session / "sentences/wav/Ses01F_impro01/Ses01F_impro01_F002.wav").write_bytes(b"RIFF")
    (session / "dialog/transcriptions/Ses01M_script01_1.txt").unlink()
    path = session / "dialog/EmoEvaluation/Ses01F_impro01.txt"
    text = path.read_text()
    rating = text.split("Ses01F_impro01_F003\t")[1].split("\n")[0]
    text = text.replace(f"Ses01F_impro01_F003\t{rating}", f"Ses01F_impro01_F003\tbor\t{rating.split(chr(9))[1]}")
    added = ("[9.0 - 10.0]\tSes01F_impro01_F000\tneu\t[2.0, 2.0, 2.0]", "[oh",
             "[1.0 - 2.0]\tSes02F_impro01_F000\tneu\t[1.0, 2.0, 3.0]",
             "[1.0 - 2.0]\tSes01_impro01_F000\tneu\t[1.0, 2.0, 3.0]",
             "[1.0 - 2.0]\tSes01F_impro09_F000\tneu\t[1.0, nan, 3.0]")
    path.write_text(text + "\n".join(added) + "\n")
    corpus = Iemocap(release)
    units = {unit.key: unit for unit in corpus.units()}
    assert len(units) == 16 + 5
    told = capsys.readouterr().err
    assert "8 turns have no transcription" in told and "21 turns in 1 sessions" in told
    reasons = {}
    for key in units:
        if key == "Ses01F_impro01_F002":
            continue
        for one in corpus.load(units[key]):
            if isinstance(one, Reject):
                reasons[key] = one.reason
            elif "script" in key:
                assert one.text == ""
    assert reasons.pop("Ses01F_impro01_M001") == "missing file (its labels are there)"
    assert len(reasons) == 6 and all(key.startswith("Ses01F_impro01:") for key in reasons)
    assert sorted(reason.split(" (")[0].split(":")[0] for reason in reasons.values()) == [
        "not a line of a turn", "not a line of a turn", "the name is not SesNNX_<dialog>_XNNN",
        "the name says session 2, the folder Session1", "turn listed twice", "unknown emotion 'bor'"]


def test_stamp_follows_sound_labels_and_words(release):
    before = {unit.key: unit.stamp for unit in Iemocap(release).units()}
    path = release / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("Ses01F_impro01_F000 [004.0000", "Ses01F_impro01_X000 [004.0000"))
    path = release / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    head, _, tail = path.read_text().partition("\tSes01F_impro01_M001\t")
    path.write_text(head + "\tSes01F_impro01_M001\t" + tail.replace("C-E2:\t", "C-E5:\t", 1))
    path = release / "Session1/sentences/wav/Ses01M_script01_1/Ses01M_script01_1_F000.wav"
    path.write_bytes(path.read_bytes() + b"\0\0")
    after = {unit.key: unit.stamp for unit in Iemocap(release).units()}
    assert {key for key in before if before[key] != after[key]} == {
        "Ses01F_impro01_F000", "Ses01F_impro01_M001", "Ses01M_script01_1_F000"}


def test_original_archive(release, tmp_path):
    expected, _ = load_all(Iemocap(release))
    archive = tmp_path / "in" / "IEMOCAP_full_release.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(release, "IEMOCAP_full_release")
    for source in (archive, archive.parent):
        taken, _ = load_all(reader("iemocap", source, {"scratch": str(tmp_path / "scratch")}))
        assert {name: one.text for name, one in taken.items()} == {name: one.text for name, one in expected.items()}


def test_sources_that_are_not_the_corpus(tmp_path):
    with pytest.raises(UsageError, match="--source"):
        Iemocap(None)
    with pytest.raises(UserError, match="no such file"):
        Iemocap(tmp_path / "absent")
    with pytest.raises(UserError, match="expected Session1/dialog/EmoEvaluation"):
        Iemocap(tmp_path).units()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        Iemocap(tmp_path / "notes.txt").units()
    (tmp_path / "Session1/dialog/EmoEvaluation").mkdir(parents=True)
    with pytest.raises(UserError, match="no turn in"):
        Iemocap(tmp_path).units()


# ---------------------------------------------------------------------------------------------- parsers

MEAN = st.integers(0, 60_000).map(lambda value: value / 10_000)
WORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20).map(str.strip)
LABEL = st.sampled_from(["Neutral", "Neutral state", "Anger", "Other", "Happiness"])


@given(st.lists(st.tuples(MEAN, MEAN, MEAN, st.sampled_from(sorted(EMOTIONS)), st.lists(LABEL, min_size=1, max_size=3),
                          st.integers(1, 5), WORDS), max_size=4), st.sampled_from(["\t", "    "]))
def test_evaluation_file(turns, gap):
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for number, (valence, activation, dominance, code, labels, rating, comment) in enumerate(turns):
        head = f"[{number:.4f} - {number + 1:.4f}]", f"Ses03M_impro05b_M{number:03d}", code
        lines += [gap.join([*head, f"[{valence:.4f}, {activation:.4f}, {dominance:.4f}]"]),
                  f"C-E1:{gap}{'; '.join(labels)};{gap}({comment})",
                  f"A-E2:{gap}val {rating}; act 2; dom  ;{gap}({comment})", ""]
    found = [turn for _, turn in parse_evaluation("\n".join(lines))]
    assert [turn.name for turn in found] == [f"Ses03M_impro05b_M{number:03d}" for number in range(len(turns))]
    for turn, (valence, activation, dominance, code, labels, rating, _) in zip(found, turns, strict=True):
        assert not turn.problem and turn.code == code and turn.end == turn.start + 1
        assert turn.means == {"valence": valence, "arousal": activation, "dominance": dominance}
        assert turn.categories == {"E1": labels}
        assert turn.ratings == {"E2": {"valence": rating, "arousal": 2.0, "dominance": None}}
        assert bool(turn.outliers) == any(not 1 <= mean <= 5 for mean in turn.means.values())


@given(st.text())
def test_evaluation_file_takes_any_text(text):
    for _, turn in parse_evaluation(text + "\n[" + text + "\nC-E1:" + text + "\nA-E1:" + text):
        assert turn.problem or turn.code in EMOTIONS


@given(st.lists(WORDS, max_size=5))
def test_transcript_file(sentences):
    names = [f"Ses04F_script02_2_F{number:03d}" for number in range(len(sentences))]
    lines = [f"{name} [{n:08.4f}-{n + 1:08.4f}]: {words}"
             for n, (name, words) in enumerate(zip(names, sentences, strict=True))]
    assert parse_transcript("\n".join(["M: Yeah.", *lines, *lines[::-1]])) == dict(zip(names, sentences, strict=True))
