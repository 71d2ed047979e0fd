"""The CTC task: its loss against PyTorch, what it refuses, buckets, augmentation, scores, and a run that is stopped."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from corpus_files import prepare_tree, speaker_voice, write_audio, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from training import assert_same_state, metrics, saved_state

from ser_jax import cli
from ser_jax.audio import mfcc, specaugment
from ser_jax.config import Data, Experiment, Optim, Train
from ser_jax.corpora.schema import Utterance
from ser_jax.errors import UsageError, UserError
from ser_jax.metrics import evaluate
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.results import read_rows
from ser_jax.tasks import alphabet, ctc
from ser_jax.tasks.ctc import CTCConfig
from ser_jax.train import train

TASK = CTCConfig().build()
ROWS, FRAMES, ROOM = 6, 24, 12


# ------------------------------------------------------------------------------------------------ the loss


@jax.jit
@jax.vmap
@jax.value_and_grad
def loss_of(logits, mask, labels, count):
    """Loss and gradient of every row on its own."""
    batch = {"labels": labels[None], "num_labels": count[None]}
    return TASK.loss({"logits": logits[None], "mask": mask[None]}, batch)[0]


@st.composite
def alignments(draw):
    """Rows of (frames, labels): often with repeats, now and then just as many frames as CTC needs."""
    rows = []
    for _ in range(ROWS):
        few = draw(st.booleans())
        labels = draw(st.lists(st.integers(0, 1 if few else 26), min_size=1, max_size=ROOM))
        need = alphabet.frames_needed(labels)
        rows.append((draw(st.one_of(st.just(need), st.integers(need, FRAMES))), labels))
    return rows


@given(alignments(), st.integers(0, 99), st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=40, deadline=None)
def test_loss_and_gradient_are_those_of_pytorch(rows, seed, spread):
    torch = pytest.importorskip("torch", reason="PyTorch is the second opinion")
    logits = np.random.default_rng(seed).normal(0, spread, (ROWS, FRAMES, 28)).astype(np.float32)
    frames, counts = np.array([n for n, _ in rows]), np.array([len(labels) for _, labels in rows])
    labels = np.array([labels + [seed % 27] * (ROOM - len(labels)) for _, labels in rows])  # the padding is not silence
    loss, gradient = loss_of(logits, np.arange(FRAMES) < frames[:, None], labels, counts)

    theirs = torch.tensor(logits, requires_grad=True)
    log_probs = theirs.log_softmax(-1).transpose(0, 1)
    wanted = torch.nn.functional.ctc_loss(log_probs, torch.tensor(labels), torch.tensor(frames), torch.tensor(counts),
                                          blank=27, reduction="none")
    wanted.sum().backward()
    np.testing.assert_allclose(loss, wanted.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=2e-4)
    assert (np.asarray(gradient)[np.arange(FRAMES) >= frames[:, None]] == 0).all()


def test_the_loss_is_the_mean_over_utterances_and_said_per_character_too():
    logits = np.random.default_rng(0).normal(size=(ROWS, FRAMES, 28)).astype(np.float32)
    mask, labels, counts = np.ones((ROWS, FRAMES), bool), np.arange(ROWS * ROOM).reshape(ROWS, ROOM) % 27, np.arange(ROWS) + 1
    loss, extra = jax.jit(TASK.loss)({"logits": logits, "mask": mask}, {"labels": labels, "num_labels": counts})
    each, _ = loss_of(logits, mask, labels, counts)
    assert float(loss) == pytest.approx(float(each.mean()), rel=1e-6)
    assert float(extra["loss_per_character"]) == pytest.approx(float(each.sum()) / 21, rel=1e-6)


# ------------------------------------------------------------------------------------------------ what is trained on


def index_of(*rows):
    return pandas.DataFrame(rows, columns=["text", "num_samples"])


def test_what_the_task_refuses_and_why():
    task = CTCConfig(bucket_seconds=(1, 2), labels_per_second=4).build()
    index = index_of(("ab", 1_025), ("ab", 1_024), ("", 16_000), ("?! 42", 16_000), ("ab", 32_000), ("ab", 32_001),
                     ("aab", 1_535), ("aab", 1_536), ("abcd", 1_535), ("aaab", 2_047), ("aaab", 2_560),
                     ("abcdefgh", 16_000), ("abcdefghi", 32_000))
    assert list(task.refuse(index)) == [
        "", "shorter than 1025 samples", "no text", "no text", "", "longer than 2 s (task.bucket_seconds)",
        # 3 labels and a blank between equal ones need 4 frames: 1,536 samples
        "more labels than frames", "", "more labels than frames", "more labels than frames", "",
        "", "more labels than 2 s have room for (task.labels_per_second)"]
    assert task.sizes(index)[[0, 7, 11]].tolist() == [16_000, 16_000, 32_000]  # 8 labels do not fit into 1 s


words = st.text("abc '", min_size=1, max_size=60)
bucketings = st.lists(st.floats(0.3, 30).map(lambda x: round(x, 2)), min_size=1, max_size=5, unique=True).map(sorted)


@given(st.lists(st.tuples(words, st.integers(1, 300_000)), min_size=1, max_size=8), bucketings, st.floats(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_usable_utterance_fits_its_bucket(rows, seconds, rate):
    task = CTCConfig(bucket_seconds=tuple(seconds), labels_per_second=rate).build()
    index = index_of(*rows)
    sizes = task.sizes(index)
    buckets = [round(s * 16_000) for s in seconds]
    room = {size: math.ceil(size / 16_000 * rate) for size in buckets}
    for (text, length), reason, size in zip(rows, task.refuse(index), sizes, strict=True):
        labels = alphabet.encode(text)
        fitting = [size for size in buckets if length <= size and len(labels) <= room[size]]
        assert size in buckets  # those that are refused, too: the column is one of integers
        usable = fitting and len(labels) and length >= 1_025 and alphabet.frames_needed(labels) <= 1 + length // 512
        assert (reason == "") == bool(usable)
        if usable:
            assert size == fitting[0]
            example = task.example(Utterance("u", "c", "s", np.ones(length, np.int16), text=text), int(size), None)
            assert example["speech"].shape == (size,) and example["speech"].sum() == example["length"] == length
            assert example["labels"].shape == (room[size],) and example["num_labels"] == len(labels)
            assert alphabet.decode(example["labels"][:len(labels)]) == alphabet.normalise(text)


def test_an_example_may_be_padded_to_a_longer_bucket():
    utterance = Utterance("u", "c", "s", np.ones(20_000, np.int16), text="Hello, world")
    for size in (48_000, 64_000):
        example = TASK.example(utterance, size, None)
        assert example["speech"].shape == (size,) and example["labels"].shape == (size // 800,)
        assert (example["length"], example["num_labels"]) == (20_000, 11)


@pytest.mark.parametrize("fields", [{"bucket_seconds": ()}, {"bucket_seconds": (2, 2)}, {"bucket_seconds": (3, 2)},
                                    {"labels_per_second": 0}, {"rolls": ()}], ids=str)
def test_a_config_that_makes_no_task_is_refused(fields):
    with pytest.raises(UsageError, match=f"task.{next(iter(fields))}"):
        CTCConfig(**fields)


# ------------------------------------------------------------------------------------------------ augmentation

cepstra = np.random.default_rng(0).normal(5, 1, (400, 30, 20)).astype(np.float32)  # no value is zero
lengths = np.arange(400) % 26 + 5
valid = np.arange(30) < lengths[:, None]
CEPSTRA = np.where(valid[..., None], cepstra, 0)
KEY = jax.random.key(1)
mask_time = jax.jit(specaugment.mask_time, static_argnums=(3, 4))
mask_coefficients = jax.jit(specaugment.mask_coefficients, static_argnums=(3, 4))


def test_a_roll_moves_the_coefficients_and_leaves_zeros_behind():
    rolled = np.asarray(jax.jit(specaugment.roll_coefficients, static_argnums=2)(KEY, CEPSTRA, (-2, -1, 0, 1)))
    found = []
    for before, after in zip(CEPSTRA, rolled, strict=True):
        shifted = {by: np.pad(before, ((0, 0), (2, 2)))[:, 2 - by:22 - by] for by in (-2, -1, 0, 1)}
        found += [by for by, wanted in shifted.items() if (after == wanted).all()]
    shifts, counts = np.unique(found, return_counts=True)
    assert shifts.tolist() == [-2, -1, 0, 1] and counts.sum() == 400 and counts.min() > 70
    assert (np.asarray(specaugment.roll_coefficients(KEY, CEPSTRA, (0,))) == CEPSTRA).all()


def stretches(hidden):
    """Number of runs of True in each row."""
    return (np.diff(hidden.astype(int), axis=1, prepend=0) == 1).sum(1)


def test_time_masks_hide_stretches_of_valid_frames_behind_the_mean():
    masked = np.asarray(mask_time(KEY, CEPSTRA, valid, 2, 7))
    hidden = (masked != CEPSTRA).any(2)
    assert not hidden[~valid].any() and (masked[~valid] == 0).all()
    mean = CEPSTRA.sum(1) / lengths[:, None]
    np.testing.assert_allclose(masked[hidden], np.repeat(mean, hidden.sum(1), axis=0), rtol=1e-5)
    assert stretches(hidden).max() == 2 and hidden.sum(1).max() <= 14
    assert (masked[..., 0] == CEPSTRA[..., 0])[~hidden].all()
    for first, last in ((5, 10), (25, 30)):  # widths are uniform in 0 … 7, but no wider than the utterance
        rows = (lengths >= first) & (lengths <= last)
        width = np.mean([min(w, n) for w in range(8) for n in lengths[rows]])
        assert hidden[rows].sum(1).mean() <= 2 * width and hidden[rows].sum(1).mean() > 1.2 * width


def test_one_time_mask_has_every_width_and_every_place():
    rows, size = 4_000, 8
    x = np.random.default_rng(0).normal(size=(rows, size, 2)).astype(np.float32)
    hidden = (np.asarray(mask_time(KEY, x, np.ones((rows, size), bool), 1, 3)) != x).any(2)
    widths, counts = np.unique(hidden.sum(1), return_counts=True)
    assert widths.tolist() == [0, 1, 2, 3] and counts.min() > 850
    single = hidden[hidden.sum(1) == 1].sum(0)
    assert single.min() > 80 and single.max() < 180  # a thousand of them over eight places


def test_coefficient_masks_hide_the_same_coefficients_in_all_valid_frames():
    masked = np.asarray(mask_coefficients(KEY, CEPSTRA, valid, 1, 4))
    hidden = masked != CEPSTRA
    assert not hidden[~valid].any()
    rows = hidden.any(1)  # [400, 20]
    assert (hidden == (rows[:, None] & valid[..., None])).all()
    assert stretches(rows).max() == 1 and np.unique(rows.sum(1)).tolist() == [0, 1, 2, 3, 4]
    mean = CEPSTRA.sum(1) / lengths[:, None]
    np.testing.assert_allclose(np.where(rows, masked[:, 0], mean), mean, rtol=1e-5)


@pytest.mark.parametrize("count_and_width", [(0, 5), (2, 0)])
def test_masks_that_are_off_change_nothing(count_and_width):
    for masks in (specaugment.mask_time, specaugment.mask_coefficients):
        assert masks(KEY, CEPSTRA, valid, *count_and_width) is CEPSTRA


def test_augmentation_of_the_task_is_keyed_keeps_to_the_mask_and_can_be_off():
    batch = {"speech": np.stack([speaker_voice(n, 0.5) for n in (1, 2, 3)]), "length": np.array([8_000, 5_000, 7_000]),
             "num_labels": np.array([7, 3, 1])}
    plain, frames = map(np.asarray, jax.jit(TASK.inputs)(batch))
    assert frames.sum(1).tolist() == [16, 10, 14] and plain.shape == (3, 16, mfcc.COEFFICIENTS)
    off = CTCConfig(rolls=(0,)).build()
    np.testing.assert_allclose(jax.jit(lambda: off.inputs(off.augment(batch, KEY))[0])(), plain, atol=1e-4)
    for task in (TASK, CTCConfig(rolls=(0,), speed=0.1, noise=0.01, time_masks=4, coefficient_masks=3).build()):
        inputs = jax.jit(lambda seed, task=task: task.inputs(task.augment(batch, jax.random.key(seed))))
        x = [[np.asarray(value) for value in inputs(seed)] for seed in range(4)]
        assert any((other != x[0][0]).any() for other, _ in x[1:]) and (np.asarray(inputs(0)[0]) == x[0][0]).all()
        for cepstra, mask in x:
            assert np.isfinite(cepstra).all() and (cepstra[~mask] == 0).all()
            assert (mask == frames).all() or task is not TASK  # played at another speed they last longer or shorter
            assert (mask.sum(1) >= [2 * 7, 2 * 3, 2 * 1]).all()  # CTC can still emit the labels


# ------------------------------------------------------------------------------------------------ scores


def heard(text, frames=None):
    """Scores that say `text`, one frame for each symbol and a blank before it; noise behind the valid frames."""
    path = [symbol for label in alphabet.encode(text) for symbol in (alphabet.BLANK, label)] + [alphabet.BLANK]
    logits = np.full((frames or len(path) + 3, 28), -9.0, np.float32)
    logits[np.arange(len(path)), path] = 0
    logits[len(path):, 5] = 0
    return {"log_probs": np.asarray(jax.nn.log_softmax(logits)), "frames": np.int32(len(path))}


INDEX = pandas.DataFrame({
    "id": ["u0", "u1", "u2", "u3"], "speaker_id": ["a", "a", "b", ""],
    "text": ["The cat!", "a dog", "The cat.", "see it"]})
HEARD = ["the cat", "a do", "the hat", "see it"]  # 2 of 23 characters and 2 of 8 words are wrong


def test_scores_of_pieces_follow_each_other_without_their_padding():
    pieces = [heard("ab", 40), heard("c", 40)]
    assert TASK.transcripts([TASK.combine(pieces)], [""], None) == (["abc"], "greedy")
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 28)).astype(np.float32))
    scores = TASK.scores({"logits": logits, "mask": np.arange(9) < np.array([[9], [4]])})
    assert scores["frames"].tolist() == [9, 4]
    np.testing.assert_allclose(np.exp(scores["log_probs"]).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"beam_width": 8}], ids=str)
def test_rows_of_hand_made_scores(options):
    scores = [TASK.combine([heard(text)]) for text in HEARD]
    summary = TASK.summary(scores, INDEX)
    assert summary == {"CER": 2 / 25, "WER": 2 / 8, "character_accuracy": 1 - 2 / 25} and TASK.eval_metric in summary
    cer, wer = TASK.rows(scores, INDEX, None, **options)
    assert (cer["metric"], cer["value"], wer["metric"], wer["value"]) == ("CER", 2 / 25, "WER", 2 / 8)
    references = ["the cat", "a dog", "the cat", "see it"]
    for row in (cer, wer):
        most = evaluate(row["metric"], references, ["the cat"] * 4)
        assert (row["n"], row["n_speakers"], row["unit"], row["target"]) == (4, 2, "utterance", "text")
        assert row["examples"] == [{"id": f"u{i}", "reference": r, "hypothesis": h}
                                   for i, (r, h) in enumerate(zip(references, HEARD, strict=True))]
        assert row["ci"][0] <= row["value"] <= row["ci"][1] and ("beam search, width 8" in row["head"]) == bool(options)
        assert row["secondary"][f"{row['metric']} of the most frequent sentence"] == most == row["chance"] < 1
    assert cer["secondary"]["CER of spaces"] == 21 / 25  # four of the characters are spaces


def test_chance_is_the_best_transcript_that_does_not_listen_and_ten_sentences_are_shown():
    texts = [f"{a * 4} {b * 4}" for a in "abcde" for b in "vwxyz"]
    index = pandas.DataFrame({"id": [f"u{i:02d}" for i in range(25)], "speaker_id": "a", "text": texts})
    cer, wer = TASK.rows([TASK.combine([heard("q")])] * 25, index, None)
    assert cer["chance"] == pytest.approx(8 / 9) == cer["secondary"]["CER of spaces"] or cer["chance"] < 8 / 9
    assert cer["value"] == 1 and wer["chance"] < 1
    shown = [example["id"] for example in cer["examples"]]
    assert len(shown) == len(set(shown)) == 10 and (shown[0], shown[-1]) == ("u00", "u24")


def test_the_language_model_has_not_read_what_is_being_scored(tmp_path, monkeypatch):
    source, read = tmp_path / "texts.txt", []
    source.write_text("A dog.\nthe   cat\nthe cat sat\n")
    monkeypatch.setattr(ctc, "CharacterModel", lambda texts: read.extend(texts))  # makes None: no model
    scores, options = [TASK.combine([heard("the hat")])], {"beam_width": 4, "language_model": str(source)}
    texts, name = TASK.transcripts(scores, ["the cat", "a dog"], None, **options)
    assert texts == ["the hat"] and "width 4" in name and "gram of 1 sentences" in name and read == ["the cat sat"]
    with pytest.raises(UserError, match="no sentence but those that are being scored"):
        TASK.transcripts(scores, ["the cat", "a dog", "the cat sat"], None, **options)


@pytest.mark.parametrize("options", [{"language_model": "texts.txt"}, {"beam_width": -1}], ids=str)
def test_options_that_decode_nothing_are_refused(options):
    with pytest.raises(UsageError, match=f"--option {next(iter(options))}"):
        TASK.transcripts([TASK.combine([heard("a")])], ["a"], None, **options)
    assert options.keys() <= TASK.options.keys()


# ------------------------------------------------------------------------------------------------ a run


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A small recogniser with roll, SpecAugment and dropout on twelve speakers of five sentences, one without words."""
    root, rows = tmp_path_factory.mktemp("texts"), []
    sentences = [("Yes.", 0.45), ("no, no", 0.46), ("hello there", 0.68), ("all good", 0.44), ("see you all", 0.66)]
    for number in range(1, 13):
        for i, (text, seconds) in enumerate(sentences):
            path = write_audio(root / f"s{number}_{i}.wav", speaker_voice(number, seconds + 0.003 * number, i))
            rows.append({"path": path.name, "id": path.stem, "speaker_id": f"s{number}", "text": text,
                         "gender": "male" if number % 2 else "female"})
    rows[3]["text"] = "..."
    write_table(root / "manifest.csv", rows)
    corpus = prepare_tree("manifest", root, root / "prepared", {"name": "texts"}, shards=1).path
    return Experiment(
        name="small_ctc",
        model=WaveNetConfig(channels=8, dilations=(2,), dropout=0.2),
        task=CTCConfig(bucket_seconds=(0.6, 0.8), time_masks=1, time_mask_frames=5),
        data=Data(corpora=(str(corpus),), holdout=0.2, seed=3),
        optim=Optim(name="maxprop", learning_rate=1e-3),
        train=Train(steps=9, batch_size=4, seed=5, log_every=1, eval_every=0, save_every=0))


def test_a_stopped_run_continues_bit_for_bit(experiment, tmp_path, capsys):
    assert train(experiment, tmp_path / "whole") == 0
    said = capsys.readouterr().err
    assert "examples of 0.6 0.8 s, " in said and "% of them padding" in said
    assert train(experiment, tmp_path / "stopped", stop_after=4) == 75
    assert train(experiment, tmp_path / "stopped") == 0
    whole = metrics(tmp_path / "whole")
    assert metrics(tmp_path / "stopped") == whole
    assert_same_state(saved_state(tmp_path / "stopped"), saved_state(tmp_path / "whole"))
    assert [line["step"] for line in whole] == [*range(1, 10), 9] and all(np.isfinite(line.get("loss", 0)) for line in whole)
    used = pandas.read_parquet(tmp_path / "whole" / "pretrained_on.parquet").set_index("id")
    assert used["refused"].to_dict() == {name: "no text" if name == "s1_3" else "" for name in used.index}

    assert cli.main(["evaluate", str(tmp_path / "whole"), "--step", "last", "--out", str(tmp_path)]) == 0
    cer, wer = read_rows(tmp_path)
    dev = used[used["part"] == "dev"]
    assert (cer["metric"], wer["metric"], cer["n"]) == ("CER", "WER", len(dev)) and len(dev) >= 19
    assert {example["id"] for example in cer["examples"]} <= set(dev.index)
    last = next(line for line in whole if line["kind"] == "eval")
    assert last["CER"] == pytest.approx(cer["value"], abs=1e-12) and last["WER"] == pytest.approx(wer["value"], abs=1e-12)


def test_another_bucketing_is_another_run(experiment, tmp_path):
    """It must not go on in the workdir of the first."""
    assert train(experiment, tmp_path / "run", stop_after=0) == 75
    other = dataclasses.replace(experiment, task=dataclasses.replace(experiment.task, bucket_seconds=(0.6, 0.9)))
    with pytest.raises(UsageError, match="task.bucket_seconds differ"):
        train(other, tmp_path / "run")
