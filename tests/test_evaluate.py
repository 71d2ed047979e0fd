"""Evaluation of a checkpoint on its own task: which utterances are scored, and the arithmetic of the rows."""

import shutil

import numpy as np
import pandas
import pytest
from corpus_files import prepare_tree, speaker_voice, write_audio, write_table

from ser_jax import cli, evaluate
from ser_jax.checkpoint import Trained
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.results import read_rows


@pytest.fixture(scope="module")
def trained(trained_workdir):
    return Trained(trained_workdir)


@pytest.fixture(scope="module")
def other_corpus(tiny_corpus, trained_workdir, tmp_path_factory):
    """Audio of a trained-on utterance under two new names, of a dev one, unknown speakers and genders, a too short one."""
    root, tiny = tmp_path_factory.mktemp("other"), tiny_corpus.parent
    used = pandas.read_parquet(trained_workdir / "pretrained_on.parquet").groupby("part")["id"].min()
    rows = []
    for name, source in (("again", used["train"]), ("once_more", used["train"]), ("watched", used["dev"])):
        shutil.copy(tiny / f"{source}.wav", root / f"{name}.wav")
        rows.append({"id": name, "path": f"{name}.wav", "speaker_id": "new", "gender": "male"})
    for name, speaker, gender, seconds in (("a1", "a", "female", 0.4), ("a2", "a", "female", 0.7), ("b1", "b", "male", 0.3),
                                           ("short", "b", "male", 0.11), ("no_gender", "c", "", 0.4),
                                           ("nobody1", "", "male", 0.3), ("nobody2", "", "female", 0.3)):
        write_audio(root / f"{name}.wav", speaker_voice(len(rows), seconds, 77))
        rows.append({"id": name, "path": f"{name}.wav", "speaker_id": speaker, "gender": gender})
    write_table(root / "manifest.csv", rows)
    return prepare_tree("manifest", root, root / "prepared", {"name": "other"}, shards=1).path


@pytest.fixture
def scored(monkeypatch):
    """Ids of the utterances that are scored; the scores are 0.9 for "female" wherever nothing else is said."""
    class Scored(list):
        scores = {}

    scored = Scored()

    def predict(network, params, stats, corpora, table, mesh, batch_size):
        scored.append(table["id"].tolist())
        female = np.array([scored.scores.get(name, 0.9) for name in table["id"]], np.float32)
        return np.stack([female, 1 - female], axis=1)

    monkeypatch.setattr(evaluate, "predict", predict)
    return scored


def _run(workdir, *options, out):
    code = cli.main(["evaluate", str(workdir), "--out", str(out), *map(str, options)])
    return code, read_rows(out) if (out / "results.jsonl").exists() else []


def test_without_a_corpus_the_held_out_speakers_are_scored(trained_workdir, scored, tmp_path, capsys):
    code, rows = _run(trained_workdir, out=tmp_path)
    used = pandas.read_parquet(trained_workdir / "pretrained_on.parquet")
    dev = used[used["part"] == "dev"]
    assert code == 0 and [sorted(ids) for ids in scored] == [sorted(dev["id"])]
    assert [row["split"] for row in rows] == [f"held-out dev speakers, per {unit}" for unit in ("utterance", "speaker")]
    assert [row["n"] for row in rows] == [8, 2] and {row["n_speakers"] for row in rows} == {2}
    assert all("has seen 8 of the utterances" in row["notes"][0] for row in rows)
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and "held-out dev speakers, per speaker" in table[2]


def test_a_test_part_comes_before_the_dev_part(trained_workdir, scored, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_workdir, workdir)
    used = pandas.read_parquet(workdir / "pretrained_on.parquet")
    used.loc[used["speaker_id"] == "s8", "part"] = "test"
    used.to_parquet(workdir / "pretrained_on.parquet")
    _, rows = _run(workdir, out=tmp_path)
    assert [row["split"] for row in rows] == [f"held-out test speakers, per {unit}" for unit in ("utterance", "speaker")]
    assert [sorted(ids) for ids in scored] == [["s8_0", "s8_1", "s8_2", "s8_3"]]
    assert rows[0]["notes"] == [] and rows[0]["stamps"] == []
    # What was in training under any name is not a test, whatever the table says of the copy.
    hashes = used.set_index("id")["audio_sha256"]
    used.loc[len(used)] = {"corpus": "copy", "id": "x", "audio_sha256": hashes["s8_2"], "part": "train", "speaker_id": "x"}
    used.sample(frac=1, random_state=0).to_parquet(workdir / "pretrained_on.parquet")
    scored.clear()
    _run(workdir, out=tmp_path)
    assert [sorted(ids) for ids in scored] == [["s8_0", "s8_1", "s8_3"]]


def test_one_part_per_split_without_what_was_trained_on(trained_workdir, tiny_corpus, scored, tmp_path):
    code, rows = _run(trained_workdir, "--corpus", tiny_corpus, out=tmp_path)
    used = pandas.read_parquet(trained_workdir / "pretrained_on.parquet").set_index("id")["part"]
    assert code == 0 and [row["split"] for row in rows] == [
        f"{split}, per {unit}" for split in ("test", "train") for unit in ("utterance", "speaker")]
    test, train = scored
    assert {name[:2] for name in test} == {"s7", "s8"} and len(test) == 8
    assert set(train) == set(used.index[used == "dev"])
    assert rows[0]["notes"] == []
    assert rows[2]["notes"][0] == "16 of 24 utterances left out: trained on" and "has seen 8" in rows[2]["notes"][1]


def test_splits_are_chosen_and_checked(trained_workdir, tiny_corpus, other_corpus, scored, tmp_path, capsys):
    _, rows = _run(trained_workdir, "--split", "test", out=tmp_path)
    assert [row["split"] for row in rows] == ["test, per utterance", "test, per speaker"]
    # A split that only one of the corpora has is no mistake.
    code, rows = _run(trained_workdir, "--split", "test", "--corpus", other_corpus, "--corpus", tiny_corpus, out=tmp_path / "b")
    assert code == 0 and len(rows) == 2 and rows[0]["corpus"]["name"] == "tiny"
    capsys.readouterr()
    code, rows = _run(trained_workdir, "--split", "test,tets", out=tmp_path / "c")
    error = capsys.readouterr().err
    assert (code, rows) == (2, []) and error.count("\n") == 1
    assert "--split tets" in error and "did you mean 'test'" in error and "['test', 'train']" in error


def test_a_split_of_nothing_but_training_data_is_refused(trained_workdir, tiny_corpus, scored, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained_workdir, workdir)
    used = pandas.read_parquet(workdir / "pretrained_on.parquet").assign(part="train")
    used.to_parquet(workdir / "pretrained_on.parquet")
    code, rows = _run(workdir, "--split", "test", out=tmp_path)
    error = capsys.readouterr().err.splitlines()
    assert (code, rows, scored) == (1, [], [])
    assert "8 of 8 utterances left out: trained on" in error[0] and "no held-out utterance to score" in error[1]


def test_another_corpus(trained_workdir, other_corpus, scored, tmp_path):
    code, rows = _run(trained_workdir, "--corpus", other_corpus, out=tmp_path)
    assert code == 0 and [sorted(ids) for ids in scored] == [["a1", "a2", "b1", "nobody1", "nobody2", "watched"]]
    assert [row["split"] for row in rows] == ["all, per utterance", "all, per speaker"]
    assert sorted(rows[0]["notes"]) == [
        "1 of 10 utterances left out: no gender label", "1 of 10 utterances left out: shorter than 2000 samples",
        "2 of 10 utterances left out: trained on",
        "the periodic evaluation, which chooses the best checkpoint, has seen 1 of the utterances"]
    assert rows[0]["n"] == 6 and rows[1]["n"] == 3 and {row["n_speakers"] for row in rows} == {3}
    assert {row["corpus"]["name"] for row in rows} == {"other"} and rows[0]["stamps"] == []


def test_speakers_on_both_sides_are_stamped(trained_workdir, tiny_corpus, scored, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_workdir, workdir)
    used = pandas.read_parquet(workdir / "pretrained_on.parquet")
    used.loc[used["id"].isin(["s7_1", "s7_2"]), "part"] = "train"
    used.to_parquet(workdir / "pretrained_on.parquet")
    _, rows = _run(workdir, "--corpus", tiny_corpus, "--split", "test", out=tmp_path)
    assert rows[0]["stamps"] == ["LEAKY"] and rows[0]["n"] == 6
    assert rows[0]["notes"][1] == "1 of 2 speakers were trained on, in other utterances"


def test_accuracies_of_a_case_computed_by_hand(trained, other_corpus, tiny_corpus, scored):
    corpora = [PreparedCorpus(tiny_corpus)]
    index = corpora[0].index
    chosen = index[index["speaker_id"].isin(["s5", "s6", "s7", "s8"]) & index["id"].str.endswith(("0", "1", "2"))]
    table = pandas.DataFrame({"position": 0, "row": chosen.index, "id": chosen["id"], "speaker_id": chosen["speaker_id"],
                              "num_samples": chosen["num_samples"]})
    scored.scores = {
        "s5_0": 0.4, "s5_1": 0.6, "s5_2": 0.1,  # male: 2 of 3; mean 0.37 for female: right
        "s6_0": 0.9, "s6_1": 0.4, "s6_2": 0.4,  # female: 1 of 3; mean 0.57: right, against the majority
        "s7_0": 0.2, "s7_1": 0.2, "s7_2": 0.9,  # male: 2 of 3; mean 0.43: right
        "s8_0": 0.6, "s8_1": 0.6, "s8_2": 0.2,  # female: 2 of 3; mean 0.47: wrong
    }
    utterance, speaker = evaluate.score_part(trained, corpora, "part", table, 8)
    assert utterance["value"] == pytest.approx(7 / 12) and utterance["n"] == 12
    assert utterance["confusion"] == [[3, 3], [2, 4]]  # female, male
    assert speaker["value"] == 0.75 and speaker["n"] == 4
    assert speaker["confusion"] == [[1, 1], [0, 2]]
    assert utterance["chance"] == speaker["chance"] == 0.5
    assert utterance["classes"] == ["female", "male"] and utterance["metric"] == "WAR"
    assert 1 / 3 <= utterance["ci"][0] < 7 / 12 < utterance["ci"][1] <= 2 / 3  # between the worst and the best speaker
    assert speaker["ci"][1] == 1.0
    assert utterance["checkpoint"] == {"hash": trained.hash, "step": 3}


def test_scores_are_means_over_the_pieces_whatever_the_batches(trained, tiny_corpus):
    import jax

    from ser_jax import sharding

    corpora, mesh = [PreparedCorpus(tiny_corpus)], sharding.mesh(jax.local_devices())
    index = corpora[0].index
    rows = index.index[index["speaker_id"] == "s8"].tolist()

    def scores(rows, batch_size):
        table = pandas.DataFrame({"position": 0, "row": rows, "num_samples": index["num_samples"].iloc[rows]})
        return np.stack(evaluate.predict(trained.network, trained.params, trained.stats, corpora, table, mesh, batch_size))

    found = scores(rows, 4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(scores(rows[::-1], 4)[::-1], found, atol=1e-6)
    task, by_hand = trained.network.task, []
    apply = jax.jit(trained.network.apply)
    for row in rows:
        speech, pieces = corpora[0].speech(row), task.pieces(int(index["num_samples"][row]), 0.3)
        batch = {"speech": np.zeros((4, 4_800), np.int16), "length": np.full(4, 4_800, np.int32)}
        for i, (start, end) in enumerate(pieces):
            batch["speech"][i, : end - start], batch["length"][i] = speech[start:end], end - start
        logits = np.asarray(apply(trained.params, trained.stats, batch)["logits"], np.float64)[: len(pieces)]
        by_hand.append((np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).mean(0))
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


def test_wrong_options(trained_workdir, tmp_path, capsys):
    for options, message in ((["--batch-size", "0"], "--batch-size 0"), (["--step", "4"], "--step 4")):
        assert cli.main(["evaluate", str(trained_workdir), *options]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "is not a pretraining workdir" in error and error.count("\n") == 1


def test_an_option_that_the_task_does_not_have_is_refused(trained_workdir, tmp_path, capsys):
    assert cli.main(["evaluate", str(trained_workdir), "--option", "beam_width=3", "--out", str(tmp_path)]) == 2
    assert "its task has no options" in capsys.readouterr().err


def test_sentences_that_were_trained_on_are_stamped(trained_workdir, tmp_path):
    """Another speaker says what s2 said in training."""
    write_audio(tmp_path / "new.wav", speaker_voice(11, 0.5, 7, emotion=0))
    write_table(tmp_path / "manifest.csv", [{"path": "new.wav", "speaker_id": "n", "gender": "female", "text": "Sentence 2, 0!"}])
    corpus = prepare_tree("manifest", tmp_path, tmp_path / "prepared", {"name": "new"}).path
    assert cli.main(["evaluate", str(trained_workdir), "--corpus", str(corpus), "--out", str(tmp_path)]) == 0
    used = Trained(trained_workdir).utterances
    assert "s2" in set(used.loc[used["part"] == "train", "speaker_id"])
    for row in read_rows(tmp_path):
        assert row["stamps"] == ["TEXT-SHARED"]
        assert any("1 sentences, of 1 utterances, were trained on" in note for note in row["notes"])
