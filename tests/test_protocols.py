"""Fold schemes, protocol files and the leak audit."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features
from ser_jax.protocols.audit import audit, normalise_text
from ser_jax.protocols.folds import PROTOCOLS, assign_groups, make_protocol
from ser_jax.protocols.protocol import Fold, Protocol, read_protocol, write_protocol


def _table(speakers, labels=None, **columns):
    n = len(speakers)
    data = {
        "id": [f"u{i:03d}" for i in range(n)],
        "corpus": "toy",
        "speaker_id": speakers,
        "emotion": ["sad"] * n if labels is None else labels,
        "audio_sha256": [f"hash{i}" for i in range(n)],
        "text": [f"sentence {i}" for i in range(n)],
        **columns,
    }
    return Features(pd.DataFrame(data), np.zeros((n, 1)), {}).table


corpora = st.lists(
    st.tuples(st.sampled_from([f"s{i}" for i in range(9)]), st.sampled_from(["angry", "happy", "sad"])),
    min_size=6,
    max_size=60,
).filter(lambda rows: len({speaker for speaker, _ in rows}) >= 3)


@pytest.mark.parametrize("name", ["loso", "losso", "kfold"])
@given(rows=corpora, seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_speakers_are_disjoint_and_every_id_is_tested_once(name, rows, seed):
    speakers, labels = zip(*rows)
    table = _table(list(speakers), list(labels), session=[f"session {speaker}" for speaker in speakers])
    protocol = make_protocol(name, table, "emotion", folds=3, seed=seed)
    speaker = dict(zip(table["id"], table["speaker_id"]))
    tested = [identity for fold in protocol.folds for identity in fold.test]
    assert sorted(tested) == sorted(table["id"])
    for fold in protocol.folds:
        assert sorted(fold.train + fold.dev + fold.test) == sorted(table["id"])
        sides = [{speaker[identity] for identity in part} for part in (fold.train, fold.dev, fold.test)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sides[0] and sides[1] and sides[2]
        assert len(sides[2]) == 1 or name == "kfold"
    assert audit(protocol, table).stamps == []

    order = np.random.default_rng(seed).permutation(len(table))
    assert make_protocol(name, table.iloc[order], "emotion", 3, seed).hash == protocol.hash


def test_the_first_chunk_speaks_for_an_utterance_in_any_order_of_rows():
    table = _table([f"s{i % 8}" for i in range(48)], [["angry", "happy", "sad"][i * i % 7 % 3] for i in range(48)])
    chunks = pd.concat([table, table.assign(chunk=1, emotion="bored")], ignore_index=True)
    expected = make_protocol("kfold", table, "emotion").hash
    assert make_protocol("kfold", chunks, "emotion").hash == expected
    assert make_protocol("kfold", chunks.iloc[::-1], "emotion").hash == expected


def test_the_hash_is_of_the_folds_alone():
    fold, other = Fold("a", ("1", "2"), (), ("3",)), Fold("b", ("3",), ("1",), ("2",))
    protocol = Protocol("x", "", (fold, other))
    assert protocol.hash == Protocol("y", "else", (other, Fold("a", ("2", "1"), (), ("3",)))).hash
    assert protocol.hash != Protocol("x", "", (fold,)).hash
    assert protocol.hash != Protocol("x", "", (Fold("a", ("1", "2"), (), ("4",)), other)).hash


def test_folds_do_not_change_with_the_version_of_the_package():
    """A changed hash here means that published protocols cannot be made again: do not update it lightly."""
    table = _table([f"s{i % 7}" for i in range(70)], [["angry", "happy", "sad"][i * i % 3] for i in range(70)])
    assert make_protocol("kfold", table, "emotion", folds=4, seed=1).hash == "54ddf3fa5a4bf0f3"
    assert make_protocol("loso", table, "emotion").hash == "85c237415bc0cbfa"


def test_folds_of_a_seed_differ_and_kfold_is_stratified():
    rng = np.random.default_rng(0)
    # Half of the speakers are mostly angry, the others mostly sad; careless folds would be one-sided.
    speakers = [f"s{i:02d}" for i in range(20) for _ in range(12)]
    labels = [("angry" if rng.random() < (0.9 if i % 2 else 0.1) else "sad") for i in range(20) for _ in range(12)]
    table = _table(speakers, labels)
    label = dict(zip(table["id"], table["emotion"]))
    hashes = set()
    for seed in range(4):
        protocol = make_protocol("kfold", table, "emotion", folds=5, seed=seed)
        hashes.add(protocol.hash)
        for fold in protocol.folds:
            assert np.mean([label[i] == "angry" for i in fold.test]) == pytest.approx(
                np.mean(table["emotion"] == "angry"), abs=0.1
            )
            assert 36 <= len(fold.test) <= 60
    assert len(hashes) == 4


def test_assign_groups_leaves_no_part_empty():
    for parts in range(2, 8):
        groups = np.array([f"g{i}" for i in [0] * 50 + list(range(7))])
        assert set(assign_groups(groups, ["x"] * len(groups), parts, 0)) == set(range(parts))


def test_official_split_names():
    splits = ["train-clean-100", "train-other-500", "Dev-clean", "test-clean", "test-other", "extra", ""]
    table = _table([f"s{i}" for i in range(7)], split=splits)
    fold = make_protocol("official", table, "emotion").folds[0]
    assert (fold.train, fold.dev, fold.test) == (("u000", "u001"), ("u002",), ("u003", "u004"))
    for name in ("devel", "development", "validation", "valid"):
        splits[2] = name
        assert make_protocol("official", _table([f"s{i}" for i in range(7)], split=splits), "emotion").folds[0].dev == (
            "u002",
        )


def test_official_without_dev_takes_training_speakers():
    table = _table([f"s{i // 3}" for i in range(30)], split=["train"] * 24 + ["test"] * 6)
    fold = make_protocol("official", table, "emotion").folds[0]
    speaker = dict(zip(table["id"], table["speaker_id"]))
    assert {speaker[i] for i in fold.dev} and not {speaker[i] for i in fold.dev} & {speaker[i] for i in fold.train}
    assert len(fold.train) + len(fold.dev) == 24 and len(fold.test) == 6
    unknown = make_protocol("official", _table([""] * 30, split=["train"] * 24 + ["test"] * 6), "emotion").folds[0]
    assert unknown.dev == () and len(unknown.train) == 24


def test_what_a_scheme_lacks_is_said():
    table = _table(["a", "a", "b", ""])
    with pytest.raises(UserError, match="1 of 4 utterances have no speaker_id, e.g. 'u003'"):
        make_protocol("loso", table, "emotion")
    with pytest.raises(UserError, match="have no session"):
        make_protocol("losso", table, "emotion")
    with pytest.raises(UserError, match="no train split"):
        make_protocol("official", table, "emotion")
    with pytest.raises(UserError, match="at least two"):
        make_protocol("loso", table[:2], "emotion")
    with pytest.raises(UsageError, match="number of speakers, 2"):
        make_protocol("kfold", table[:3], "emotion", folds=3)
    with pytest.raises(UsageError, match="did you mean 'kfold'"):
        make_protocol("k-fold", table, "emotion")


def test_speakers_of_two_corpora_with_one_name_are_two():
    table = _table(["1", "2", "1", "2"], corpus=["emodb", "emodb", "savee", "savee"])
    assert [fold.name for fold in make_protocol("loso", table, "emotion").folds] == [
        "emodb/1",
        "emodb/2",
        "savee/1",
        "savee/2",
    ]


def test_two_speakers_leave_no_dev():
    folds = make_protocol("loso", _table(["a", "a", "b", "b"]), "emotion").folds
    assert [fold.dev for fold in folds] == [(), ()] and [len(fold.train) for fold in folds] == [2, 2]


def test_all_schemes_are_listed_with_a_first_line():
    assert all(scheme.__doc__ for scheme in PROTOCOLS.values())


def test_protocol_file_round_trip(tmp_path):
    table = _table([f"s{i % 5}" for i in range(20)])
    protocol = make_protocol("loso", table, "emotion")
    write_protocol(protocol, tmp_path / "p.json")
    assert make_protocol(str(tmp_path / "p.json"), table, "emotion") == protocol
    data = json.loads((tmp_path / "p.json").read_text())
    assert data["hash"] == protocol.hash and data["unit"] == "id"
    data["folds"][0]["test"] = ["u001"]
    data["folds"][0]["train"] = ["u002"]
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="changed after"):
        read_protocol(tmp_path / "p.json")


def test_protocol_file_by_hand(tmp_path):
    path = tmp_path / "mine.json"

    def write(value):
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    found = read_protocol(write({"folds": [{"train": ["b", "a"], "test": ["c"]}]}))
    assert found == Protocol("mine", "from mine.json", (Fold("fold-1", ("a", "b"), (), ("c",)),))
    for value, message in (
        ("{", "not JSON"),
        ([], "not a protocol"),
        ({"folds": []}, "not a protocol"),
        ({"folds": [{"train": ["a"]}]}, "no test"),
        ({"folds": [{"train": "a", "test": ["b"]}]}, "not a list"),
        ({"folds": [{"train": ["a"], "test": ["a"]}]}, "in train and test"),
        ({"folds": [{"train": ["a"], "dev": ["b"], "test": ["b"]}]}, "in dev and test"),
        ({"folds": [{"name": "x", "train": ["a"], "test": ["b"]}] * 2}, "same name"),
    ):
        with pytest.raises(UserError, match=message):
            read_protocol(write(value))
    with pytest.raises(UserError, match="cannot be read"):
        read_protocol(tmp_path / "absent.json")


TWO = Protocol("two", "", (Fold("f", ("u000",), ("u001",), ("u002", "u003")),))


def _two(**columns):
    return _table(columns.pop("speakers", ["a", "b", "c", "d"]), **columns)


def test_audit_of_a_clean_protocol_is_silent():
    found = audit(TWO, _two())
    assert (found.stamps, found.lines, found.shared) == ([], [], {})


@pytest.mark.parametrize("side", [0, 1])
def test_audit_finds_what_train_or_dev_shares_with_test(side):
    def put(values, value="x"):
        values[side] = values[2] = value
        return values

    found = audit(TWO, _two(speakers=put(list("abcd"))))
    assert found.stamps == ["LEAKY"] and found.shared == {"speaker": ["x"]}
    assert found.lines == ["LEAKY: 1 speaker on both sides in 1 of 1 folds, e.g. 'x'"]
    found = audit(TWO, _two(audio_sha256=put(list("abcd"))))
    assert found.stamps == ["LEAKY"] and found.shared == {"audio": ["x"]}
    found = audit(TWO, _two(chunk_of=put(["", "", "", ""], "talk")))
    assert found.stamps == ["LEAKY"] and found.shared == {"recording": ["talk"]}
    texts = put(["one", "two", "three", "four"], "Dogs are sitting by the door!")
    texts[2] = " dogs are sitting — by the DOOR"
    found = audit(TWO, _two(text=texts))
    assert found.stamps == ["TEXT-SHARED"] and found.shared == {"text": ["dogs are sitting by the door"]}
    found = audit(TWO, _two(text=texts), linguistic=True)
    assert found.stamps == ["LEAKY"]
    found = audit(TWO, _two(session=put(list("abcd"))))
    assert found.stamps == [] and found.lines == ["1 session on both sides in 1 of 1 folds, e.g. 'x'"]


def test_audit_does_not_count_the_unknown_or_one_side_alone():
    assert audit(TWO, _two(text=["", "", "", ""])).stamps == []
    assert audit(TWO, _two(text=["a", "A.", "b", "b!"])).stamps == []  # repeated, but within a side
    assert audit(TWO, _two(speakers=["1"] * 4, corpus=["w", "x", "y", "z"])).stamps == []
    assert audit(TWO, _two(audio_sha256=["", "", "", ""])).lines == [
        "audio hash unknown for 4 of 4 utterances: repeated audio cannot be found among them"
    ]


def test_audit_of_pretraining_synthesis_and_unknown_speakers():
    found = audit(TWO, _two(seen_in_pretraining=[False, False, True, False]))
    assert (
        found.stamps == ["TRANSDUCTIVE"] and "1 of 2 tested utterances" in found.lines[0] and "'u002'" in found.lines[0]
    )
    assert audit(TWO, _two(seen_in_pretraining=[True, True, False, False])).stamps == []
    assert audit(TWO, _two(), synthetic=True).stamps == ["SYNTHETIC"]
    found = audit(TWO, _two(speakers=["", "b", "c", "d"]))
    assert found.stamps == ["UNAUDITED"]
    assert found.lines == ["UNAUDITED: speaker unknown for 1 of 4 utterances: overlap cannot be audited"]
    everything = audit(
        TWO, _two(speakers=["a", "", "a", "d"], text=["x"] * 4, seen_in_pretraining=[True] * 4), synthetic=True
    )
    assert everything.stamps == ["LEAKY", "TEXT-SHARED", "TRANSDUCTIVE", "SYNTHETIC", "UNAUDITED"]


def test_audit_compares_within_a_fold():
    """A speaker trained in one fold and tested in another is what cross-validation is."""
    folds = (Fold("1", ("u000",), (), ("u001",)), Fold("2", ("u001",), (), ("u000",)))
    assert audit(Protocol("x", "", folds), _two()).stamps == []


def test_texts_are_compared_without_case_punctuation_and_spaces():
    assert normalise_text("  Don’t  STOP—now… ") == normalise_text("don't stop, now!") == "dont stop now"
    assert normalise_text("Straße") == normalise_text("STRASSE")
    assert normalise_text("?!") == ""


@given(rows=corpora, seed=st.integers(0, 5), name=st.sampled_from(["loso", "losso", "kfold"]))
@settings(max_examples=12, deadline=None)
def test_dev_of_utterances_is_a_tenth_of_every_label(rows, seed, name):
    speakers, labels = zip(*rows)
    table = _table(list(speakers), list(labels), session=[f"session {speaker}" for speaker in speakers])
    protocol = make_protocol(name, table, "emotion", 3, seed, "utterances")
    usual = make_protocol(name, table, "emotion", 3, seed)
    label = dict(zip(table["id"], table["emotion"]))
    assert [fold.test for fold in protocol.folds] == [fold.test for fold in usual.folds]
    for fold in protocol.folds:
        assert sorted(fold.train + fold.dev + fold.test) == sorted(table["id"])
        for emotion in set(labels):
            dev, known = (sum(label[i] == emotion for i in part) for part in (fold.dev, fold.train + fold.dev))
            assert dev == (max(1, round(known / 10)) if known > 1 else 0)
    assert "a random tenth of the training utterances, of each emotion alike" in protocol.description
    order = np.random.default_rng(seed).permutation(len(table))
    assert make_protocol(name, table.iloc[order], "emotion", 3, seed, "utterances").hash == protocol.hash


def test_dev_of_utterances_differs_with_seed_and_fold_and_stays_from_version_to_version():
    table = _table([f"s{i % 7}" for i in range(140)], [["angry", "happy", "sad"][i * i % 3] for i in range(140)])
    table["valence"] = np.arange(140) / 7
    first, second = (make_protocol("loso", table, "emotion", seed=seed, dev="utterances") for seed in (0, 1))
    assert first.hash == "975b53d7063e66d8"  # as in test_folds_do_not_change_with_the_version_of_the_package
    assert first.folds[0].dev != second.folds[0].dev
    assert set(first.folds[0].dev) - set(first.folds[0].test + first.folds[1].dev + first.folds[1].test)
    speaker = dict(zip(table["id"], table["speaker_id"]))
    assert len({speaker[i] for i in first.folds[0].dev}) > 2  # random, not the first of a list
    numbers = make_protocol("loso", table, "valence", dev="utterances")
    assert "alike" not in numbers.description and {len(fold.dev) for fold in numbers.folds} == {12}


def test_dev_of_utterances_where_the_corpus_or_the_file_has_its_own(tmp_path):
    split = ["train"] * 20 + ["dev"] * 4 + ["test"] * 6
    table = _table([f"s{i // 3}" for i in range(30)], split=split)
    with pytest.raises(UsageError, match="--dev utterances: the corpus has its own dev part"):
        make_protocol("official", table, "emotion", dev="utterances")
    without = _table([""] * 30, split=["train"] * 20 + ["extra"] * 4 + ["test"] * 6)  # needs no speakers
    fold = make_protocol("official", without, "emotion", dev="utterances").folds[0]
    assert len(fold.dev) == 2 and len(fold.train) == 18 and len(fold.test) == 6
    write_protocol(make_protocol("loso", table, "emotion"), tmp_path / "p.json")
    with pytest.raises(UsageError, match="says which utterances are dev"):
        make_protocol(str(tmp_path / "p.json"), table, "emotion", dev="utterances")
    with pytest.raises(UsageError, match="did you mean 'utterances'"):
        make_protocol("loso", table, "emotion", dev="utterance")
