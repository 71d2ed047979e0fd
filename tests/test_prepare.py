"""Preparing a corpus: what is written, what is refused, and what survives kills, full disks and other worker counts."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_files import prepare_tree, voice, write_audio, write_manifest, write_ravdess, write_table

from ser_jax.corpora import catalogue, prepare, ravdess, reader
from ser_jax.corpora.schema import NUMBER_FIELDS, Reject, Unit, Utterance
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError, UserError

SPEECH = voice(120.0, seconds=0.5)
VERB = """
import argparse, sys
from ser_jax.corpora import prepare
from ser_jax.errors import UserError
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    try:
        sys.exit(prepare.run(parser.parse_args()))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
"""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(prepare.__file__).parents[2])}


def python(*arguments, check=False):
    """Runs another Python with the project on its path."""
    arguments = [sys.executable, *map(str, arguments)]
    return subprocess.run(arguments, check=check, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


@pytest.fixture(scope="session")
def verb(tmp_path_factory):
    """Script that runs the prepare verb."""
    path = tmp_path_factory.mktemp("verb") / "verb.py"
    path.write_text(VERB)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_ravdess(tmp_path_factory.mktemp("ravdess"), actors=(1, 2, 3))


def ledger(out):
    with open(out / "rejects.csv", newline="", encoding="utf-8") as file:
        return {row["id"]: row["reason"] for row in csv.DictReader(file)}


class Fake:
    """Reader of made-up utterances: {unit key: items, or an exception to raise}."""

    name, language, licence, synthetic = "fake", "en", "none", False

    def __init__(self, content, counts=None):
        self.content, self.counts = content, counts or {}

    def options(self):
        return {}

    def units(self):
        return [Unit(key, f"{key}.wav", self.counts.get(key, 1)) for key in self.content]

    def load(self, unit):
        if isinstance(self.content[unit.key], Exception):
            raise self.content[unit.key]
        yield from self.content[unit.key]


class Killer(Fake):
    """Kills its own process, as the kernel does when memory runs out."""

    def load(self, unit):
        if unit.key == "u3":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from self.content[unit.key]


def utterance(id, speech=SPEECH, **fields):
    return Utterance(id, "fake", f"{id}.wav", speech, **fields)


# what is written


def test_ravdess_records_say_what_the_names_say(tree, tmp_path):
    corpus = prepare_tree("ravdess", tree, tmp_path / "out")
    assert len(corpus) == 24 and corpus.info["counts"] == {"in": 24, "out": 24, "rejects": 0}
    position = list(corpus.index["id"]).index("03-01-05-01-02-01-02")
    record = corpus.record(position)
    assert (record.text, record.speaker_id, record.gender, record.emotion, record.corpus, record.language) == (
        "Dogs are sitting by the door", "02", "female", "angry", "ravdess", "en")
    assert record.extra == {"vocal_channel": "speech", "intensity": "normal", "repetition": 1, "statement": 2}
    assert record.source == "Actor_02/03-01-05-01-02-01-02.flac"
    np.testing.assert_array_equal(record.speech, soundfile.read(tree / record.source, dtype="int16")[0])


def test_ravdess_emotions_follow_the_official_numbers(tmp_path):
    write_ravdess(tmp_path, actors=(1,), emotions=tuple(ravdess.EMOTIONS), statements=("01",))
    corpus = prepare_tree("ravdess", tmp_path, tmp_path / "out")
    found = {int(row.id[6:8]): row.emotion for row in corpus.index.itertuples()}
    assert found == dict(enumerate(
        ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"], start=1))


def test_ravdess_takes_the_original_archives_layout_song_and_48_khz(tmp_path):
    write_ravdess(tmp_path / "Audio_Speech_Actors_01-24", actors=(1, 2), rate=48_000, suffix=".wav")
    write_ravdess(tmp_path / "Audio_Song_Actors_01-24", actors=(1,), channel="02", suffix=".wav")
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / "Actor_01" / "01-01-03-01-01-01-01.mp4").write_bytes(b"video")
    (tmp_path / "Actor_01" / "._03-01-03-01-01-01-01.wav").write_bytes(b"finder")
    everything = prepare_tree("ravdess", tmp_path, tmp_path / "all")
    assert len(everything) == 24 and set(everything.index["num_samples"]) == {8000}
    for channel, count in (("speech", 16), ("song", 8)):
        part = prepare_tree("ravdess", tmp_path, tmp_path / channel, {"channel": channel})
        assert {json.loads(extra)["vocal_channel"] for extra in part.index["extra"]} == {channel} and len(part) == count


def test_ravdess_files_that_do_not_follow_go_to_the_ledger(tmp_path):
    write_ravdess(tmp_path, actors=(1,))
    names = {"Actor_01/noise.wav": "the name is not MM-VC-EE-II-SS-RR-AA",
             "Actor_01/03-01-09-01-01-01-01.wav": "unknown emotion '09' in the name",
             "Actor_01/03-01-01-01-01-01-25.wav": "unknown actor '25' in the name",
             "Actor_01/01-01-01-01-01-01-01.wav": "modality 01: only 03 (audio only) is taken",
             "Actor_01/03-01-01-01-01-01-02.wav": "the name says actor 02, the folder Actor_01",
             "copy/Actor_01/03-01-01-01-01-01-01.flac":
                 "same name twice in the source (first: Actor_01/03-01-01-01-01-01-01.flac)"}
    for name in names:
        write_audio(tmp_path / name, SPEECH)
    corpus = prepare_tree("ravdess", tmp_path, tmp_path / "out", max_rejects=0.5)
    assert len(corpus) == 8 and corpus.info["counts"] == {"in": 14, "out": 8, "rejects": 6}
    assert sorted(ledger(tmp_path / "out").values()) == sorted(names.values())


def test_a_folder_that_is_not_ravdess(tmp_path):
    write_audio(tmp_path / "a.wav", SPEECH)
    with pytest.raises(UserError, match="no RAVDESS audio"):
        prepare_tree("ravdess", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_field_survives_the_disk(tmp_path):
    full = utterance("ü/1", text='"x", y\nz', speaker_id="s", gender="male", session="1", emotion="bored",
                     valence=1.25, arousal=-3.0, chunk_of="story", split="dev", language="de",
                     phones=[("aː", 0, 80), ("t", 80, 160)], extra={"b": [1, None], "a": "é"})
    corpus_of = prepare.prepare(Fake({"1": [full], "2": [utterance("bare")]}), tmp_path / "out", workers=1)
    corpus = PreparedCorpus(tmp_path / "out")
    back = corpus.record(list(corpus.index["id"]).index("ü/1"))
    for field in full.__dataclass_fields__:
        if field in ("speech", *NUMBER_FIELDS):
            np.testing.assert_array_equal(getattr(back, field), getattr(full, field))
        else:
            assert getattr(back, field) == getattr(full, field), field
    assert back.speech.dtype == np.int16 and corpus_of["fingerprint"] == corpus.fingerprint


def test_index_rows_describe_the_records(tree, tmp_path):
    corpus = prepare_tree("ravdess", tree, tmp_path / "out", shards=5)
    assert list(corpus.index["shard"]) == sorted(corpus.index["shard"]) and corpus.index["shard"].max() == 4
    for i, row in enumerate(corpus.index.itertuples()):
        record = corpus.record(i)
        assert (record.id, record.emotion, len(record.speech)) == (row.id, row.emotion, row.num_samples)
        np.testing.assert_array_equal(corpus.speech(i), record.speech)
    for outside in (-1, len(corpus)):
        with pytest.raises(IndexError):
            corpus.speech(outside)
    copy = pickle.loads(pickle.dumps(corpus))
    np.testing.assert_array_equal(copy.speech(7), corpus.speech(7))


def test_a_forked_process_reads_too(tree, tmp_path):
    corpus = prepare_tree("ravdess", tree, tmp_path / "out")
    expected = corpus.speech(3).sum()
    child = os.fork()
    if child == 0:
        os._exit(0 if corpus.speech(3).sum() == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_tfds_reads_the_folder_without_tensorflow(tmp_path):
    write_manifest(tmp_path / "my corpus-1", speakers=2, per_speaker=3)  # not a name that TFDS allows
    prepare_tree("manifest", tmp_path / "my corpus-1", tmp_path / "out", shards=2)
    code = """if True:
        import sys
        import tensorflow_datasets as tfds
        source = tfds.builder_from_directory(sys.argv[1]).as_data_source("all")
        records = [source[i] for i in range(len(source))]
        print(len(records), *sorted(record["speaker_id"].decode() for record in records))
        print(records[0]["speech"].dtype, records[0]["speech"].shape)
        print([m for m in ("jax", "torch", "tensorflow") if m in sys.modules])
    """
    done = python("-c", code, tmp_path / "out", check=True)
    assert done.stdout.splitlines() == ["6 s1 s1 s1 s2 s2 s2", "int16 (8000,)", "[]"]


def test_reading_imports_neither_jax_nor_tensorflow(tree, tmp_path):
    prepare_tree("ravdess", tree, tmp_path / "out")
    code = ("import sys; from ser_jax.data.prepared import PreparedCorpus; PreparedCorpus(sys.argv[1]).record(0); "
            "print([m for m in ('jax', 'tensorflow', 'torch', 'pandas') if m in sys.modules])")
    done = python("-c", code, tmp_path / "out", check=True)
    assert done.stdout.strip() == "[]"


# the same result whatever happens


def test_workers_shards_and_listing_do_not_change_the_result(tree, tmp_path, monkeypatch):
    one = prepare_tree("ravdess", tree, tmp_path / "one")
    two = prepare_tree("ravdess", tree, tmp_path / "two", workers=2, shards=4)
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *args, **kwargs: (
        (top, folders, names[::-1]) for top, folders, names in reversed(list(walk(*args, **kwargs)))))
    seven = prepare_tree("ravdess", tree, tmp_path / "seven", shards=7)
    assert one.fingerprint == two.fingerprint == seven.fingerprint
    assert list(one.index["id"]) == list(two.index["id"]) == list(seven.index["id"])
    assert [len(corpus.info["shard_lengths"]) for corpus in (one, two, seven)] == [1, 4, 7]


def test_the_fingerprint_sees_labels_and_samples(tmp_path):
    def fingerprint(name, **changes):
        fields = {"speech": SPEECH, "emotion": "sad", "phones": [("a", 0, 5)], "valence": 1.0, **changes}
        return prepare.prepare(Fake({"u": [utterance("u", **fields)]}), tmp_path / name, workers=1)["fingerprint"]

    louder = SPEECH.copy()
    louder[17] += 1
    changes = ({"emotion": "happy"}, {"speech": louder}, {"phones": [("a", 0, 6)]}, {"valence": 2.0}, {"text": "x"})
    prints = [fingerprint(f"c{number}", **change) for number, change in enumerate(changes)]
    assert len({fingerprint("base"), *prints}) == 1 + len(changes)
    assert fingerprint("again") == fingerprint("base")


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def long_tree(tmp_path_factory):
    """Takes long enough to prepare to be killed half way."""
    root, random = tmp_path_factory.mktemp("long"), np.random.default_rng(0)
    for code in range(1, 9):
        noise = random.integers(-9000, 9000, 48_000 * 40, dtype=np.int16)
        for statement in (1, 2):
            write_audio(root / f"03-01-{code:02d}-01-{statement:02d}-01-01.wav", noise[::statement], 48_000)
    return root


@pytest.fixture(scope="module")
def long_fingerprint(long_tree, tmp_path_factory):
    return prepare_tree("ravdess", long_tree, tmp_path_factory.mktemp("plain") / "out").fingerprint


def alive(group):
    """Whether a process group has a process left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("workers", "how"), [("1", signal.SIGKILL), ("2", signal.SIGKILL), ("2", signal.SIGTERM),
                                              ("1", signal.SIGINT)])
def test_a_killed_run_continues_to_the_same_result(long_tree, long_fingerprint, tmp_path, verb, workers, how):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job hands that on to what it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    out = tmp_path / "out"
    command = [verb, "ravdess", "--source", long_tree, "--out", out, "--workers", workers, "--shards", "8"]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               env=ENVIRONMENT, start_new_session=True)
    wait_for(lambda: list((out / ".prepare").glob("*record*.json")))
    process.send_signal(how)
    _, messages = process.communicate(timeout=60)
    wait_for(lambda: not alive(process.pid))  # a worker may finish its shard after its parent was killed
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 75), messages
    assert not (out / "prepared.json").exists()
    with pytest.raises(UserError, match="not complete"):
        PreparedCorpus(out)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record-*")
            if (out / ".prepare" / f"{path.name}.json").exists()}
    (out / ".half.123.tmp").write_bytes(b"half")
    again = python(*command)
    assert again.returncode == 0 and f"{len(kept)} of 8 shards are there" in again.stderr, again.stderr
    assert PreparedCorpus(out).fingerprint == long_fingerprint
    assert kept and kept == {name: (out / name).stat().st_mtime_ns for name in kept}  # finished shards were not redone
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_dead_worker_is_an_error_not_a_hang(tmp_path):
    source = Killer({f"u{number}": [utterance(f"u{number}")] for number in range(8)})
    with pytest.raises(UserError, match="a worker process died"):
        prepare.prepare(source, tmp_path / "out", workers=2, shards=4)
    assert not (tmp_path / "out" / "prepared.json").exists()
    source.__class__ = Fake
    assert prepare.prepare(source, tmp_path / "out", workers=1)["counts"]["out"] == 8


def test_a_changed_file_redoes_only_its_shard(tmp_path, capsys):
    table = write_manifest(tmp_path / "c", speakers=2, per_speaker=4)
    (tmp_path / "c/audio/s1_0.wav").write_bytes(b"")
    with pytest.raises(UserError, match="1 of 8 utterances refused"):
        prepare_tree("manifest", table, tmp_path / "out", shards=4)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.array_record-*")}
    write_audio(tmp_path / "c/audio/s1_0.wav", SPEECH)
    corpus = prepare_tree("manifest", table, tmp_path / "out")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.array_record-*")}
    assert len(corpus) == 8 and len(before) == 4 and sum(before[name] != after[name] for name in before) == 1
    assert "3 of 4 shards are there" in capsys.readouterr().err


def test_other_options_discard_what_an_interrupted_run_left(tree, tmp_path, capsys):
    write_audio(tree / "Actor_01" / "bad.wav", SPEECH)
    try:
        with pytest.raises(UserError, match="1 of 25"):
            prepare_tree("ravdess", tree, tmp_path / "out", {"channel": "speech"}, shards=3)
    finally:
        (tree / "Actor_01" / "bad.wav").unlink()
    corpus = prepare_tree("ravdess", tree, tmp_path / "out", {"channel": "all"})
    assert len(corpus) == 24 and corpus.info["options"] == {"channel": "all"}
    assert "3 earlier shards discarded" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*.array_record-*"))) == 3


def test_a_finished_target_is_left_alone_or_replaced_on_demand(tree, tmp_path, capsys):
    out = tmp_path / "out"
    prepare_tree("ravdess", tree, out)
    stamp = (out / "prepared.json").stat().st_mtime_ns
    prepare_tree("ravdess", tree, out, shards=3)
    assert "already prepared" in capsys.readouterr().err and (out / "prepared.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="another prepared corpus .ravdess.*--overwrite"):
        prepare_tree("ravdess", tree, out, {"channel": "speech"})
    write_manifest(tmp_path / "c", speakers=2, per_speaker=2)
    with pytest.raises(UserError, match="another prepared corpus"):
        prepare_tree("manifest", tmp_path / "c", out)
    assert len(prepare_tree("manifest", tmp_path / "c", out, overwrite=True)) == 4
    assert not list(out.glob("ravdess*"))


def test_a_folder_with_other_files_is_not_touched(tree, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a prepared corpus"):
        prepare_tree("ravdess", tree, tmp_path, overwrite=True)
    with pytest.raises(UserError, match="is not a folder"):
        prepare_tree("ravdess", tree, tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_runs_into_one_folder(tree, tmp_path):
    import fcntl

    (tmp_path / "out" / ".prepare").mkdir(parents=True)
    with open(tmp_path / "out" / ".prepare" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another prepare is writing here"):
            prepare_tree("ravdess", tree, tmp_path / "out")


# bad input


def test_every_kind_of_bad_utterance_goes_to_the_ledger(tmp_path):
    long = voice(120.0, seconds=2.0)
    for name in ("good", "label", "dup"):
        write_audio(tmp_path / f"{name}.wav", SPEECH)
    write_audio(tmp_path / "cut.flac", long).write_bytes((write_audio(tmp_path / "x.flac", long)).read_bytes()[:-4000])
    write_audio(tmp_path / "nan.wav", np.where(np.arange(8000) == 9, np.nan, 0.1), subtype="FLOAT")
    write_audio(tmp_path / "short.wav", SPEECH[:160])
    write_audio(tmp_path / "silent.wav", np.zeros(8000, np.int16))
    write_audio(tmp_path / "constant.wav", np.full(8000, 32767, np.int16))
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("I am a text")
    names = ("good", "nan", "short", "silent", "constant", "empty", "text")
    rows = [{"path": f"{name}.wav", "id": name} for name in names]
    rows += [{"path": "cut.flac", "id": "cut"}, {"path": "none.wav", "id": "none"}, {"path": "dup.wav", "id": "good"},
             {"path": "label.wav", "id": "label", "emotion": "cross"}]
    with pytest.raises(UserError, match=r"10 of 11 utterances refused, more than --max-rejects 0.01 .*rejects.csv"):
        prepare_tree("manifest", write_table(tmp_path / "manifest.csv", rows), tmp_path / "out")
    assert not (tmp_path / "out" / "prepared.json").exists()
    found = ledger(tmp_path / "out")
    expected = {"cut": "truncated", "nan": "NaN or infinite", "short": "too short: 0.010 s", "silent": "silent",
                "constant": "clipped to constant", "empty": "empty file", "text": "not an audio file",
                "none": "no such file", "good": "duplicate id (first: row 2, good.wav)",
                "label": "unknown emotion 'cross'"}
    assert set(found) == set(expected) and all(reason in found[id] for id, reason in expected.items())
    corpus = prepare_tree("manifest", tmp_path, tmp_path / "out", max_rejects=0.95)
    assert corpus.info["counts"] == {"in": 11, "out": 1, "rejects": 10} and list(corpus.index["id"]) == ["good"]
    reasons = corpus.info["reject_reasons"]
    assert reasons["too short"] == reasons["duplicate id"] == 1 and sum(reasons.values()) == 10
    assert ledger(tmp_path / "out") == found


def test_max_rejects_is_inclusive(tmp_path):
    content = {f"u{number}": [utterance(f"u{number}")] for number in range(9)}
    content["bad"] = [Reject("bad", "bad.wav", "because")]
    with pytest.raises(UserError, match="1 of 10 utterances refused"):
        prepare.prepare(Fake(content), tmp_path / "out", workers=1, max_rejects=0.09)
    assert prepare.prepare(Fake(content), tmp_path / "out", workers=1, max_rejects=0.1)["counts"]["rejects"] == 1


def test_labels_and_texts_of_any_reader_are_checked(tmp_path):
    content = {"a": [utterance("a", emotion="cross")], "b": [utterance("b", gender="F")],
               "c": [utterance("c", text="\ud800")], "d": [utterance("d", arousal=float("inf"))],
               "e": [utterance("e"), utterance("e")]}
    info = prepare.prepare(Fake(content, {"e": 2}), tmp_path / "out", workers=1, max_rejects=1.0)
    assert info["counts"] == {"in": 6, "out": 1, "rejects": 5}
    reasons = ledger(tmp_path / "out")
    assert "unknown emotion 'cross'" in reasons["a"] and "unknown gender 'F'" in reasons["b"]
    assert reasons["c"] == "text is not valid Unicode" and reasons["d"] == "infinite arousal"
    assert reasons["e"] == "duplicate id (first: e.wav)"


def test_equal_ids_in_two_units_are_named(tmp_path):
    with pytest.raises(UserError, match=r"two utterances with the id 'x': .\.wav and .\.wav"):
        one, other = utterance("x"), utterance("x")
        one.source, other.source = "1.wav", "2.wav"
        prepare.prepare(Fake({"1": [one], "2": [other]}), tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "prepared.json").exists()


@pytest.mark.parametrize(("content", "error"), [
    ({}, UserError), ({"u": [Reject("u", "u.wav", "bad")]}, UserError),
    ({"u": []}, AssertionError), ({"u": [utterance("u", SPEECH.astype(float))]}, AssertionError),
    ({"u": ZeroDivisionError("in the reader")}, ZeroDivisionError),
    ({"u": RuntimeError("in the reader")}, RuntimeError),
])
def test_nothing_to_read_is_an_error_and_faulty_readers_are_not_hidden(tmp_path, content, error):
    with pytest.raises(error):
        prepare.prepare(Fake(content), tmp_path / "out", workers=1, max_rejects=1.0)
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_an_error_in_a_worker_reaches_the_parent(tmp_path):
    content = {f"u{number}": [utterance(f"u{number}")] for number in range(4)}
    content["z"] = ZeroDivisionError("in the reader")
    with pytest.raises(ZeroDivisionError) as caught:
        prepare.prepare(Fake(content), tmp_path / "out", workers=2, shards=5)
    assert "while loading z.wav" in caught.value.__notes__


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(long_tree, tmp_path):
    code = """if True:
        import resource, sys
        from pathlib import Path
        from ser_jax.corpora import prepare, reader
        from ser_jax.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            prepare.prepare(reader("ravdess", Path(sys.argv[1])), Path(sys.argv[2]), workers=1, shards=2)
        except UserError as error:
            print(error)
    """
    out = tmp_path / "out"
    done = python("-c", code, long_tree, out, check=True)
    assert done.stdout == f"{out}: cannot write (File too large); make room and run the same command again\n"
    assert not list(out.glob("*record*")) and not list(out.glob("**/*.tmp")) and not (out / "prepared.json").exists()


@pytest.mark.parametrize("name", ["index.parquet", "prepared.json", "rejects.csv", ".array_record-00000-of-00001.json"])
def test_a_disk_that_fills_up_later(tree, tmp_path, monkeypatch, name):
    replace = os.replace

    def full(source, target):
        if str(target).endswith(name):
            raise OSError(28, "No space left on device")
        replace(source, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device; make room"):
        patch.setattr(os, "replace", full)
        prepare_tree("ravdess", tree, out)
    assert not (out / "prepared.json").exists()
    assert len(prepare_tree("ravdess", tree, out)) == 24


# the verbs


def test_verb_prints_a_summary_and_exit_codes(tmp_path, verb):
    write_manifest(tmp_path / "c", speakers=2, per_speaker=2)
    arguments = ["manifest", "--source", tmp_path / "c", "--out", tmp_path / "out", "--option", "name=mine"]
    done = python(verb, *arguments)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    info = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert lines == {"corpus": "mine", "utterances": "4 of 4", "duration": "2s (0.00 h)", "speakers": "2",
                     "gender": "2 female, 2 male", "rejects": "0", "fingerprint": info["fingerprint"],
                     "path": str(tmp_path / "out")}


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"source": "/no/where"}, UserError, "--source /no/where: no such file or folder"),
    ({"option": ["channel"]}, UsageError, "--option channel: write KEY=VALUE"),
    ({"option": ["chanel=speech"]}, UsageError, "did you mean 'channel'"),
    ({"workers": 0}, UsageError, "--workers and --shards are at least 1"),
    ({"max_rejects": 2.0}, UsageError, "--max-rejects is a share"),
    ({"corpus": "ravdes"}, UsageError, "did you mean 'ravdess'"),
])
def test_wrong_use_is_told_in_one_line(tree, tmp_path, changes, error, message):
    import argparse

    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    args = parser.parse_args(["ravdess", "--source", str(tree), "--out", str(tmp_path / "out")])
    changes = {key: Path(value) if key == "source" else value for key, value in changes.items()}
    with pytest.raises(error, match=message) as caught:
        prepare.run(types.SimpleNamespace(**{**vars(args), **changes}))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_catalogue_lists_every_reader_with_its_licence(capsys):
    assert [entry.name for entry in catalogue.ENTRIES] == list(prepare.READERS)
    for entry in catalogue.ENTRIES:
        assert entry.example.startswith(f"ser-jax prepare {entry.name} ") and entry.licence_source and entry.get
    licences = {entry.name: entry.licence for entry in catalogue.ENTRIES}
    assert licences["ravdess"] == ravdess.Ravdess.licence
    catalogue.run(types.SimpleNamespace(name=None, json=False))
    plain = capsys.readouterr().out
    assert plain.isascii() and "\x1b" not in plain and all(f"\n{name}" in plain for name in licences)
    catalogue.run(types.SimpleNamespace(name=None, json=True))
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == set(licences)
    catalogue.run(types.SimpleNamespace(name="ravdess", json=False))
    assert "https://zenodo.org" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean 'ravdess'"):
        catalogue.run(types.SimpleNamespace(name="ravdes", json=False))
    assert all(len(line) <= 100 for line in catalogue.table(catalogue.ENTRIES, 100).splitlines())


def test_real_corpora(tmp_path):
    root = os.environ.get("SER_JAX_DATA")
    if not root or not Path(root, "ravdess").is_dir():
        pytest.skip("needs SER_JAX_DATA with a folder ravdess")
    source = Path(root, "ravdess")
    units = reader("ravdess", source).units()
    assert len(units) == len([path for path in source.rglob("03-*.*")])
    some = next(iter(reader("ravdess", source).load(units[0])))
    assert some.speech.dtype == np.int16 and some.gender and some.emotion
