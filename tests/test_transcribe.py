"""`ser-jax transcribe` with a small recogniser of tones, one pitch for each letter."""

import numpy as np
import pytest
import soxr
from corpus_files import prepare_tree, write_audio, write_table

import ser_jax.transcribe
from ser_jax import cli
from ser_jax.checkpoint import Checkpoints, Trained
from ser_jax.data.prepared import PreparedCorpus
from ser_jax.tasks import alphabet
from ser_jax.tasks.language_model import read_texts

PITCH = {"a": 400.0, "b": 1200.0, "c": 3600.0}  # Hz; a space is hiss
TONE, PAUSE = 0.16, 0.16  # seconds; a pause before the first letter and after each


def tones(text, seed=0):
    """The text as sound: int16[T] at 16 kHz."""
    random, pause = np.random.default_rng(seed), np.zeros(round(PAUSE * 16_000))
    t = np.arange(round(TONE * 16_000)) / 16_000
    hiss = [0.3 * random.normal(size=len(t)) for _ in text]
    sounds = [hiss[i] if letter == " " else np.sin(2 * np.pi * PITCH[letter] * t) for i, letter in enumerate(text)]
    sound = np.concatenate([pause, *(part for sound in sounds for part in (np.hanning(len(t)) * sound, pause))])
    return np.rint(8000 * (sound + 0.01 * random.normal(size=len(sound)))).astype(np.int16)


def random_text(random):
    words = ["".join(random.choice(list(PITCH), random.integers(1, 4))) for _ in range(random.integers(1, 4))]
    return " ".join(words)


@pytest.fixture(scope="module")
def tone_corpus(tmp_path_factory):
    """Folder of a prepared corpus: four speakers with texts of a, b and c; the last one is watched, not trained on."""
    root, random, rows = tmp_path_factory.mktemp("tones"), np.random.default_rng(0), []
    for number in range(4):
        for i in range(8):
            text = random_text(random)
            write_audio(root / f"{number}_{i}.wav", tones(text, 100 * number + i))
            rows.append({"path": f"{number}_{i}.wav", "speaker_id": f"s{number}", "text": text.upper() + ".",
                         "split": "train" if number < 3 else "dev"})
    write_table(root / "manifest.csv", rows)
    return prepare_tree("manifest", root, root / "prepared", {"name": "tones"}, shards=1).path


@pytest.fixture(scope="module")
def workdir(tone_corpus, tmp_path_factory):
    """Workdir of a recogniser whose last layer is fitted to frames of known content, everything before it random.

    (Training it would spend ten times as long, on compiling the gradient.)
    """
    import jax
    import sklearn.linear_model

    from ser_jax.audio import mfcc
    from ser_jax.config import Data, Experiment, to_dict
    from ser_jax.data import splits
    from ser_jax.files import write_json
    from ser_jax.models.wavenet import WaveNetConfig
    from ser_jax.network import Network
    from ser_jax.tasks.ctc import CTCConfig

    experiment = Experiment(name="tones", model=WaveNetConfig(channels=32, kernel=3, dilations=(1,)), task=CTCConfig(),
                            data=Data(corpora=(str(tone_corpus),), splits=("train",), eval_splits=("dev",)))
    network, corpus = Network(experiment), PreparedCorpus(tone_corpus)
    table = splits.assign([corpus], experiment.data, network.task)
    rows = table.loc[table["part"] == "train", "row"]
    params, stats = network.init(0)
    size = max(len(corpus.speech(i)) for i in rows)
    batch = {"speech": np.stack([np.pad(corpus.speech(i), (0, size - len(corpus.speech(i)))) for i in rows]),
             "length": np.array([len(corpus.speech(i)) for i in rows])}
    cepstra, valid = jax.jit(network.task.inputs)(batch)
    first = np.asarray(cepstra)[np.asarray(valid)] @ np.asarray(params["front"]["kernel"][0])
    stats["front_norm"] = {"mean": first.mean(0), "var": first.var(0)}
    hidden, _ = jax.jit(network.apply)(params, stats, batch)["taps"]["head"]
    x, y = [], []
    for i, features in zip(rows, np.asarray(hidden)):
        text = alphabet.normalise(corpus.record(i).text)
        letter, offset = np.divmod(np.arange(mfcc.num_frames(len(corpus.speech(i)))) * mfcc.HOP / 16_000, TONE + PAUSE)
        for frame, number in enumerate(letter.astype(int)):
            heard = number < len(text) and offset[frame] > PAUSE
            x.append(features[frame])
            y.append(alphabet.CHARACTERS.index(text[number]) if heard else alphabet.BLANK)
    fitted = sklearn.linear_model.LogisticRegression(C=10, max_iter=300).fit(x, y)
    symbols = params["symbols"]
    kernel, bias = np.zeros(symbols["kernel"].shape, np.float32), np.full(alphabet.SIZE, -20, np.float32)
    kernel[:, fitted.classes_], bias[fitted.classes_] = 3 * fitted.coef_.T, 3 * fitted.intercept_  # surer of itself
    params["symbols"] = {"kernel": kernel, "bias": bias}

    folder = tmp_path_factory.mktemp("runs") / "tones"
    folder.mkdir()
    write_json(folder / "config.json", to_dict(experiment))
    table.to_parquet(folder / "pretrained_on.parquet", index=False)
    with Checkpoints(folder, 1, network.task.eval_metric) as checkpoints:
        state = {"params": params, "stats": stats, "opt": {}, "step": np.ones(())}
        checkpoints.save(1, state, {network.task.eval_metric: 1.0})
    return folder


@pytest.fixture
def transcribe(workdir, capsys):
    """Runs the verb in this process: (exit code, lines of stdout, stderr)."""
    def run(*words):
        where = [] if "--workdir" in words else ["--workdir", workdir]
        code = cli.main(["transcribe", *map(str, [*words, *where])])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """[(path, text)]: audio files of several lengths, rates and formats; more than a window of `--batch-size 1`."""
    root, found = tmp_path_factory.mktemp("audio"), []
    for i, text in enumerate(("abc", "ccc aa bac", "aba", "cab ba", "c a", "aabbcc", "acc", "bbb", "b b", "acaabc")):
        rate, suffix = ((16_000, "wav"), (44_100, "flac"), (48_000, "aiff"))[i % 3]
        sound = tones(text, i) / 32768
        sound = soxr.resample(np.stack([sound, sound], axis=1) if i == 1 else sound, 16_000, rate)
        found.append((write_audio(root / f"{i} {text}.{suffix}", sound, rate), text))
    return found


@pytest.mark.parametrize("options, window", [(("--beam", 0), 1), (("--beam", 5), 1), ((), 8), (("--jobs", 2), 8)])
def test_one_line_per_file_in_their_order_whatever_the_batches(transcribe, files, options, window, monkeypatch):
    monkeypatch.setattr(ser_jax.transcribe, "WINDOW_BATCHES", window)
    code, lines, errors = transcribe(*(path for path, _ in files), *options)
    assert (code, errors) == (0, "")
    assert lines == [f"{path}\t{text}" for path, text in files]


def test_files_that_cannot_be_transcribed_are_named_and_the_others_done(transcribe, files, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    short = write_audio(tmp_path / "short.wav", tones("a")[:1700])
    very_short = write_audio(tmp_path / "very_short.wav", tones("a")[:200])
    silent = write_audio(tmp_path / "silent.wav", np.zeros(16_000, np.int16))
    (good, text), (other, other_text) = files[0], files[-1]
    code, lines, errors = transcribe(tmp_path / "absent.wav", very_short, good, tmp_path / "text.wav", silent, other,
                                     tmp_path, short)
    assert code == 1
    # The short file has 0.106 s, enough for the front end: its first pause.
    assert lines == [f"{good}\t{text}", f"{other}\t{other_text}", f"{short}\t"]
    assert [line.split(": ")[1:] for line in errors.splitlines()] == [
        [str(tmp_path / "absent.wav"), "no such file"],
        [str(very_short), "too short", "0.013 s (shortest", "0.1 s)"],
        [str(tmp_path / "text.wav"), "not an audio file that libsndfile reads", "Format not recognised."],
        [str(silent), "silent", "all samples are zero"],
        [str(tmp_path), "unreadable", "Is a directory"],
    ]
    assert transcribe(tmp_path / "absent.wav")[:2] == (1, [])


def test_a_language_model_decides_where_the_audio_does_not(transcribe, tmp_path):
    random = np.random.default_rng(5)
    sound = tones("aba", 3).astype(float)
    half = len(sound) // 2
    mixed = sound.copy()  # the letter in the middle is half b and half c
    mixed[half - 1280:half + 1280] = (0.5 * sound + 0.5 * tones("aca", 3))[half - 1280:half + 1280]
    path = write_audio(tmp_path / "mixed.wav", np.rint(mixed + random.normal(size=len(mixed))).astype(np.int16))
    for text in ("aba", "aca"):
        (tmp_path / f"{text}.txt").write_text(f"{text}\n" * 50)
        code, lines, errors = transcribe(path, "--lm", tmp_path / f"{text}.txt", "--lm-weight", 30, "--lm-order", 3)
        assert (code, lines) == (0, [f"{path}\t{text}"])
        assert f"{text}.txt, 50 texts, 150 characters, order 3" in errors




def test_texts_of_a_corpus_are_those_of_its_training_part(workdir, tone_corpus, transcribe, files):
    index = PreparedCorpus(tone_corpus).index
    trained = Trained(workdir)
    assert sorted(read_texts(tone_corpus, trained)) == sorted(index.loc[index["split"] == "train", "text"])
    assert read_texts(tone_corpus) == index["text"].tolist()
    code, lines, errors = transcribe(files[0][0], "--lm", tone_corpus, "--lm-weight", 0.1)
    assert (code, lines) == (0, [f"{files[0][0]}\tabc"]) and f"{tone_corpus}, 24 texts" in errors


def test_a_corpus_unknown_to_the_checkpoint_gives_all_its_texts(workdir, tiny_corpus):
    assert len(read_texts(tiny_corpus, Trained(workdir))) == 32


@pytest.mark.parametrize("options, message", [
    (("--beam", -1), "--beam -1: must be at least 0"),
    (("--jobs", 0), "--jobs 0: must be at least 1"),
    (("--lm-weight", 1), "--lm-weight is for the language model"),
    (("--lm", "text.txt", "--beam", 0), "--lm needs the beam search"),
    (("--lm", "text.txt", "--lm-weight", "nan"), "--lm-weight nan: must be 0 or more"),
    (("--lm", "text.txt", "--length-bonus", "inf"), "--length-bonus inf: give a number"),
    (("--lm", __file__, "--lm-order", 40), "--lm-order 40: must be 1 to 12"),
    (("--step", "7"), "--step 7"),
])
def test_wrong_use_is_refused_in_one_line(transcribe, options, message):
    code, lines, errors = transcribe("a.wav", *options)
    assert (code, lines) == (2, []) and message in errors and errors.count("\n") == 1


def test_only_a_ctc_run_can_transcribe(transcribe, trained_workdir, tmp_path):
    code, _, errors = transcribe("a.wav", "--workdir", trained_workdir)
    assert code == 2 and "tiny was not trained to write text" in errors and errors.count("\n") == 1
    assert transcribe("a.wav", "--workdir", tmp_path)[0] == 1
    assert transcribe("a.wav", "--lm", tmp_path / "absent.txt")[0] == 1
