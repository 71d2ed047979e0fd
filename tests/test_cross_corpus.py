"""Trained on one corpus, tested on another: one fold, one extractor, shared classes, and stamps as ever."""

import argparse

import numpy as np
import pandas as pd
import pytest

from ser_jax import probe
from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, write_features
from ser_jax.heads import make_head
from ser_jax.heads.cross_corpus import join, shared_classes
from ser_jax.heads.cross_validation import cross_validate
from ser_jax.protocols.folds import CROSS
from ser_jax.protocols.protocol import read_protocol
from ser_jax.results import read_rows

PLACE = {"angry": [1, 0, 0, 0], "happy": [0, 1, 0, 0], "sad": [0, 0, 1, 0], "fear": [0, 0, 0, 1]}


def _corpus(name, emotions=("angry", "happy", "sad"), speakers=5, each=12, seed=0, shift=0.0, **columns):
    rng = np.random.default_rng(seed)
    n = speakers * each
    labels = rng.permutation(np.resize(emotions, n))
    table = pd.DataFrame(
        {
            "id": [f"u{i:03d}" for i in range(n)],
            "corpus": name,
            "speaker_id": [f"s{i // each}" for i in range(n)],
            "emotion": labels,
            "arousal": rng.normal(size=n),
            "audio_sha256": [f"{name}{i}" for i in range(n)],
            **columns,
        }
    )
    x = np.array([PLACE[label] for label in labels]) + 0.5 * rng.normal(size=(n, 4)) + shift
    metadata = {
        "kind": "autoencoder",
        "layer": "representation",
        "pooling": "mean",
        "checkpoint": {"hash": "c0", "step": 5},
        "columns": [{"layer": "representation", "start": 0, "stop": 4}],
        "corpus": {"name": name, "fingerprint": f"fp-{name}", "synthetic": False},
        "features_hash": f"hash-{name}",
    }
    return Features(table, x.astype(np.float32), metadata)


def _run(*options):
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args([str(option) for option in options]))


def test_all_of_one_corpus_is_trained_and_all_of_the_other_tested():
    train, test = _corpus("iemocap"), _corpus("msp", each=9, seed=1)
    outcome = cross_validate(join(train, test), protocol="cross", head="linear")
    [fold] = outcome.protocol.folds
    assert sorted(fold.train + fold.dev) == sorted("iemocap/" + train.table["id"])
    assert sorted(fold.test) == sorted("msp/" + test.table["id"])
    speakers = [{name[8:].split("u")[1] for name in part} for part in (fold.train, fold.dev)]
    assert len(fold.dev) == 12 and not speakers[0] & speakers[1]  # a fifth of five speakers, one of them
    alone = make_head("linear").fit(
        train.embedding, train.table["emotion"].to_numpy(dtype=object), train.table["speaker_id"].to_numpy(), None
    )
    found = outcome.predictions.set_index("id")["prediction"]
    assert found["msp/" + test.table["id"]].tolist() == alone.predict(test.embedding).tolist()
    row = outcome.row
    assert row["protocol"]["name"] == "cross" and "trained on iemocap, tested on msp" in outcome.protocol.description
    assert row["corpus"] == {"name": "iemocap > msp", "fingerprint": "fp-msp",
                             "trained_on": {"name": "iemocap", "fingerprint": "fp-iemocap"}}  # fmt: skip
    assert (row["features"]["hash"], row["features"]["test_hash"]) == ("hash-iemocap", "hash-msp")
    # Speakers of both are called s0…s4, and are other people.
    assert row["stamps"] == [] and (row["n"], row["n_speakers"]) == (45, 5) and row["value"] > 0.5
    random = cross_validate(join(train, test), protocol="cross", head="compare", dev="utterances")
    assert len(random.protocol.folds[0].dev) == 6
    assert any("dev = a random tenth of the training utterances" in note for note in random.row["notes"])
    assert random.protocol.folds[0].test == fold.test
    numbers = cross_validate(join(train, test), "arousal", "cross", "ols")
    assert numbers.row["n"] == 45 and numbers.row["metric"] == "CCC"


def test_ids_keep_their_name_unless_both_have_it():
    train, test = _corpus("a"), _corpus("b")
    test.table["id"] = "t" + test.table["id"]
    assert set(join(train, test).table["id"]) == set(train.table["id"]) | set(test.table["id"])
    twice = join(train, _corpus("a", seed=1))  # two of one name, e.g. synthesised twice
    assert set(twice.table["id"]) == {f"{side}/{name}" for side in ("train", "test") for name in train.table["id"]}
    assert twice.table[CROSS].value_counts().to_dict() == {"train": 60, "test": 60}
    pieces = join(_corpus("a", chunk_of="talk"), _corpus("b", chunk_of="talk"))
    assert set(pieces.table["chunk_of"]) == {"a/talk", "b/talk"}


def test_classes_of_one_corpus_only_are_left_out_and_named():
    both = join(_corpus("a", ("angry", "sad", "fear")), _corpus("b", ("angry", "sad", "happy"), seed=1))
    outcome = cross_validate(both, protocol="cross")
    assert outcome.row["classes"] == ["angry", "sad"] and outcome.row["n"] == 40
    assert "class 'fear' is in the train corpus only: 20 utterances left out" in outcome.notes
    assert "class 'happy' is in the test corpus only: 20 utterances left out" in outcome.notes
    merged = cross_validate(both, protocol="cross", classes=["angry", "sad", "happy+fear"])
    assert merged.row["classes"] == ["angry", "happy", "sad"] and merged.row["n"] == 60
    apart = join(_corpus("a", ("angry", "fear")), _corpus("b", ("angry", "happy")))
    with pytest.raises(UserError, match=r"share 1 class.*train: angry, fear; test: angry, happy"):
        shared_classes(apart, "emotion")


def test_what_both_sides_share_is_stamped():
    def stamps(train, test):
        return cross_validate(join(train, test), protocol="cross").row["stamps"]

    clean, other = _corpus("a"), _corpus("b", seed=1)
    assert stamps(_corpus("a"), _corpus("a", seed=1)) == ["LEAKY"]  # of one name: its speakers are the same
    copied = _corpus("b", seed=1, audio_sha256=["a3", *(f"b{i}" for i in range(59))])
    assert stamps(clean, copied) == ["LEAKY"]
    assert stamps(_corpus("a", text="Dogs!"), _corpus("b", seed=1, text="dogs")) == ["TEXT-SHARED"]
    seen = _corpus("b", seed=1, seen_in_pretraining=True)
    assert stamps(clean, seen) == ["TRANSDUCTIVE"] and stamps(_corpus("a", seen_in_pretraining=True), other) == []
    synthetic = _corpus("b", seed=1)
    synthetic.metadata["corpus"]["synthetic"] = True
    assert stamps(clean, synthetic) == stamps(synthetic, clean) == ["SYNTHETIC"]
    nobody = _corpus("a", speaker_id="")
    outcome = cross_validate(join(nobody, other), protocol="cross", head="linear")
    assert outcome.row["stamps"] == ["UNAUDITED"] and outcome.protocol.folds[0].dev == ()


def test_features_of_another_extractor_are_refused_with_the_difference():
    other = _corpus("b")
    other.metadata |= {"checkpoint": {"hash": "c1"}, "pooling": "max"}
    with pytest.raises(UserError, match="another extractor.*pooling mean and max; checkpoint c0 and c1"):
        join(_corpus("a"), other)
    other = _corpus("b")
    other.metadata["chunk_seconds"] = 3.0
    with pytest.raises(UserError, match=r"another extractor than --features \(front end or options\)"):
        join(_corpus("a"), other)


def test_the_command(tmp_path, capsys):
    files = [tmp_path / f"{name}.parquet" for name in "ab"]
    for path, features in zip(files, (_corpus("a"), _corpus("b", each=9, seed=1))):
        write_features(features, path)
    common = ("--features", files[0], "--out", tmp_path / "out")
    assert _run(*common, "--test-features", files[1], "--protocol", "cross", "--where", "speaker_id!=s4") == 0
    [row] = read_rows(tmp_path / "out")
    assert row["features"]["test_path"] == str(files[1]) and row["n"] == 36
    [saved] = (tmp_path / "out" / "protocols").iterdir()
    assert len(read_protocol(saved).ids("train") | read_protocol(saved).ids("dev")) == 48
    assert _run(*common, "--test-features", files[1], "--protocol", saved, "--versus", tmp_path / "out") == 0
    assert read_rows(tmp_path / "out")[1]["versus"]["difference"] == 0
    with pytest.raises(UsageError, match="name the features of the corpus to test with --test-features"):
        _run(*common, "--protocol", "cross")
    with pytest.raises(UsageError, match="goes with --protocol cross, not loso"):
        _run(*common, "--test-features", files[1], "--protocol", "loso")
    with pytest.raises(UserError, match="no utterance of the test corpus is left"):
        _run(*common, "--test-features", files[1], "--protocol", "cross", "--where", "corpus=a", "--target", "arousal")
    capsys.readouterr()
