"""The embedded corpus: what it promises about labels, splits, phones and sound, and the process that speaks it."""

import collections
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import ser_jax
from ser_jax.corpora import espeak_process, reader
from ser_jax.corpora.audio import check
from ser_jax.corpora.espeak import Espeak
from ser_jax.corpora.espeak_sentences import SENTENCES
from ser_jax.corpora.schema import check_labels
from ser_jax.errors import UsageError, UserError

speaking = pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="needs the [demo] extra")
ROOT = str(Path(ser_jax.__file__).parents[1])
SETTINGS = {"voice": "en-us+m3", "rate": 170, "volume": 60, "pitch": 50, "range": 50}


def load(corpus, units=None):
    return [utterance for unit in units or corpus.units() for utterance in corpus.load(unit)]


def digest(utterances):
    parts = sorted(u.id + hashlib.sha256(u.speech.tobytes() + json.dumps(u.phones).encode()).hexdigest() for u in utterances)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def median_f0(speech, rate=16_000, low=60, high=450):
    """Median over the voiced frames of the first strong autocorrelation peak, in Hz."""
    size = int(0.05 * rate)
    frames = np.lib.stride_tricks.sliding_window_view(speech.astype(float), size)[:: rate // 50]
    frames = frames[frames.std(axis=1) > 0.3 * speech.std()] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, 4 * size)) ** 2
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 4 * size)) ** 2)[:size]
    correlation = np.fft.irfft(power)[:, :size] / window
    correlation = correlation / correlation[:, :1]
    lags = np.arange(rate // high, rate // low)
    found = []
    for row in correlation[:, lags[0] - 1 : lags[-1] + 2]:
        inner = row[1:-1]
        peaks = (inner > row[:-2]) & (inner >= row[2:]) & (inner > max(0.6, 0.85 * inner.max()))
        if peaks.any():
            found.append(rate / lags[peaks.argmax()])
    return float(np.median(found))


@pytest.fixture(scope="module")
def spoken():
    """12 speakers (sessions 1-4 train, 5 dev, 6 test), 12 utterances each."""
    pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")
    return load(Espeak(speakers=12, utterances=12))


@pytest.fixture
def own_process():
    """Lets a test break the speaking process."""
    yield
    if espeak_process._process is not None:
        espeak_process._process.close()
        espeak_process._process = None


def test_sentences_are_transcripts():
    for language, feelings in SENTENCES.items():
        lines = [text for sentences in feelings.values() for text in sentences]
        assert len(lines) == len(set(lines)) >= 60
        letters = set("abcdefghijklmnopqrstuvwxyz" + ("äöüß" if language == "de" else ""))
        for text in lines:
            assert set(text.lower()) <= letters | set(" ,.!?"), text
            assert text[-1] in ".!?" and "  " not in text


@speaking
@pytest.mark.parametrize("speakers, language", [(6, "en"), (12, "en,de"), (24, "en"), (26, "de")])
def test_splits_share_neither_speakers_nor_sessions_nor_sentences(speakers, language):
    corpus = Espeak(speakers=speakers, utterances=40, language=language)
    lines = list(corpus._script().values())
    assert len(lines) == speakers * 40 == len({line["id"] for line in lines})
    for field in ("speaker_id", "session", "text"):
        for tongue in corpus.languages:
            sides = collections.defaultdict(set)
            for line in lines:
                if line["language"] == tongue:
                    sides[line["split"]].add(line[field])
            assert set(sides) == {"train", "dev", "test"}
            assert sum(map(len, sides.values())) == len(set.union(*sides.values())), (field, tongue)


@speaking
def test_labels_are_present_and_balanced(spoken):
    for utterance in spoken:
        assert check_labels(utterance) is None
        assert utterance.text and utterance.speaker_id and utterance.corpus == "espeak" and utterance.language == "en"
        assert all(1 <= value <= 5 for value in (utterance.valence, utterance.arousal, utterance.dominance))
        check(utterance.speech)
        assert 1.0 < len(utterance.speech) / 16_000 < 5.0
    by_speaker = collections.Counter((u.speaker_id, u.emotion) for u in spoken)
    assert set(by_speaker.values()) == {3} and len(by_speaker) == 12 * 4
    genders = collections.defaultdict(set)
    for utterance in spoken:
        genders[utterance.session].add((utterance.speaker_id, utterance.gender))
    assert len(genders) == 6
    assert all(sorted(gender for _, gender in members) == ["female", "male"] for members in genders.values())
    assert np.mean([u.valence for u in spoken if u.emotion == "happy"]) > 3.7
    assert np.mean([u.arousal for u in spoken if u.emotion == "sad"]) < 2.5


@speaking
def test_words_carry_some_of_the_valence():
    lines = Espeak(speakers=24, utterances=40)._script().values()
    feeling = {text: name for name, sentences in SENTENCES["en"].items() for text in sentences}
    own = np.mean([feeling[line["text"]] == line["emotion"] for line in lines])
    sentiment = {"happy": 1, "neutral": 0, "sad": -1, "angry": -1}
    correlation = np.corrcoef([sentiment[feeling[line["text"]]] for line in lines], [line["valence"] for line in lines])
    assert 0.55 < own < 0.85
    assert 0.4 < correlation[0, 1] < 0.9


@speaking
def test_phones_cover_the_signal_in_order(spoken):
    for utterance in spoken:
        position = 0
        for label, start, end in utterance.phones:
            assert label and start == position < end
            position = end
        assert position == len(utterance.speech)
    pauses = [u.speech[start:end] for u in spoken for label, start, end in u.phones if label == "sil" and end - start > 800]
    vowels = [u.speech[start:end] for u in spoken for label, start, end in u.phones if label in ("aɪ", "æ", "iː", "ɑː", "uː")]
    assert len(pauses) > 5 and len(vowels) > 50
    loudness = [np.median([piece.astype(float).std() for piece in pieces]) for pieces in (pauses, vowels)]
    assert loudness[0] < loudness[1] / 3  # the boundaries are where the sound changes


@speaking
def test_gender_and_emotion_are_audible_but_not_trivial(spoken):
    from sklearn.metrics import recall_score
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    pitch = np.log([median_f0(u.speech) for u in spoken])
    energy = np.log([u.speech.astype(float).std() for u in spoken])
    rate = np.array([len(u.phones) / len(u.speech) for u in spoken])
    speaker, session, emotion = (np.array([getattr(u, name) for u in spoken]) for name in ("speaker_id", "session", "emotion"))
    by_speaker = {name: np.exp(np.median(pitch[speaker == name])) for name in set(speaker)}
    assert max(f0 for name, f0 in by_speaker.items() if name.endswith("M")) < 140
    assert min(f0 for name, f0 in by_speaker.items() if name.endswith("F")) > 150

    features = np.stack([pitch, energy, rate], axis=1)
    for name in set(speaker):
        own = features[speaker == name]
        features[speaker == name] = (own - own.mean(axis=0)) / own.std(axis=0)
    arousal = np.array([u.arousal for u in spoken])
    correlations = [np.corrcoef(column, arousal)[0, 1] for column in features.T]
    assert correlations[0] > 0.4 and correlations[1] > 0.5 and correlations[2] > 0.2
    guess = cross_val_predict(make_pipeline(StandardScaler(), SVC()), features, emotion, groups=session, cv=LeaveOneGroupOut())
    assert 0.45 < recall_score(emotion, guess, average="macro") < 0.95


@speaking
def test_every_process_and_order_gives_the_same_bits(spoken):
    program = """
import os, sys
sys.path.insert(0, sys.argv[1] + "/tests")
from test_espeak import digest, load
from ser_jax.corpora.espeak import Espeak
corpus = Espeak(speakers=12, utterances=12)
units = corpus.units()[::-3]
first = load(corpus, units[:5])
read_end, write_end = os.pipe()
if os.fork() == 0:  # a worker forked from a process that is already speaking
    os.write(write_end, digest(load(corpus, units[5:9])).encode())
    os._exit(0)
middle = load(corpus, units[5:9])
assert os.read(read_end, 100).decode() == digest(middle)
print(digest(first + middle + load(corpus, units[9:])))
"""
    environment = os.environ | {"PYTHONPATH": ROOT}
    time.sleep(1.1)  # eSpeak NG by itself seeds its noise by the second
    command = [sys.executable, "-c", program, ROOT]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert other.returncode == 0, other.stderr
    assert other.stdout.strip() == digest(spoken[::-3])


@speaking
def test_seed_changes_the_corpus_and_a_pickled_reader_does_not():
    lines = list(Espeak(speakers=6, utterances=4)._script().values())
    assert list(pickle.loads(pickle.dumps(Espeak(speakers=6, utterances=4)))._script().values()) == lines
    assert list(Espeak(speakers=6, utterances=4, seed=1)._script().values()) != lines
    assert reader("espeak", None, {"speakers": "6", "utterances": "4"}).options() == Espeak(speakers=6, utterances=4).options()


@speaking
def test_german():
    corpus = Espeak(speakers=12, utterances=2, language="en,de")
    assert corpus.language == "en,de"
    german = load(corpus, [unit for unit in corpus.units() if corpus._script()[unit.key]["language"] == "de"][:6])
    known = {text for sentences in SENTENCES["de"].values() for text in sentences}
    assert len(german) == 6 and all(u.text in known and u.language == "de" for u in german)
    assert {"ç", "ɾ", "ts", "yː", "x"} & {label for u in german for label, _, _ in u.phones}


@speaking
def test_stories_have_one_emotion_and_one_rating():
    lines = list(Espeak(speakers=6, utterances=10, story=4)._script().values())
    stories = collections.defaultdict(list)
    for line in lines:
        stories[line["chunk_of"]].append(line)
    assert sorted(map(len, stories.values())) == [2] * 6 + [4] * 12
    for story in stories.values():
        assert len({(line["speaker_id"], line["emotion"], line["valence"], line["arousal"]) for line in story}) == 1
    assert {line["chunk_of"] for line in Espeak(speakers=6, utterances=2)._script().values()} == {""}


@speaking
@pytest.mark.parametrize("language", ["en", "de"])
def test_matrix_sentences_are_new_in_dev_and_test_but_their_words_are_not(language):
    corpora = [Espeak(speakers=12, utterances=40, language=language, seed=seed, sentences="matrix") for seed in (0, 1)]
    said, words = collections.defaultdict(set), collections.defaultdict(set)
    for corpus in corpora:
        for line in corpus._script().values():
            slots = tuple(line["text"].removesuffix(".").split(" "))
            said[line["split"]].add(slots)
            words[line["split"]] |= set(enumerate(slots))
            assert len(slots) == 5 and line["text"].endswith(".") and line["emotion"] in ("neutral", "happy", "sad", "angry")
    assert not said["train"] & said["dev"] and not (said["train"] | said["dev"]) & said["test"]
    assert len(words["train"]) == 50 and words["dev"] | words["test"] <= words["train"]
    first, second = ([line["text"] for line in corpus._script().values()] for corpus in corpora)
    assert len(set(first)) > 470 and first != second  # of 480
    letters = {letter for text in first for letter in text.lower()} - set("äöüß .")
    assert letters >= set("abcdefghijklmnopqrstuvwxyz" if language == "en" else "abcdefghijklmnopqrstuvwxz")


@speaking
def test_matrix_sentences_are_spoken_by_the_voices_of_the_corpus(spoken):
    corpus = Espeak(speakers=12, utterances=12, sentences="matrix")
    assert corpus.options() == Espeak(speakers=12, utterances=12).options() | {"sentences": "matrix"}
    first = load(corpus, corpus.units()[:1])[0]
    assert first.extra["voice"] == spoken[0].extra["voice"] and first.speaker_id == spoken[0].speaker_id
    assert 1.0 < len(first.speech) / 16_000 < 5.0 and len(first.phones) > 12


@speaking
def test_acted_sentences_are_those_of_every_earlier_version():
    """Prepared corpora and checkpoints of them stay valid: the digest was taken before there was a choice of sentences."""
    lines = list(Espeak(speakers=12, utterances=9, language="en,de", story=4, seed=3)._script().values())
    assert hashlib.sha256(json.dumps(lines).encode()).hexdigest() == "068dc90264eecf34df2f699aff53742cb5c140d134518b16b8d24bc2f5f3add2"


@pytest.mark.parametrize("options, word", [
    ({"source": "/tmp"}, "--source"), ({"speakers": 4}, "at least 6"), ({"speakers": 7}, "even"), ({"language": "fr"}, "en,de"),
    ({"speakers": 6, "language": "en,de"}, "at least 12"), ({"utterances": 0}, "utterances"), ({"seed": -1}, "seed"),
    ({"story": 0}, "story"), ({"sentences": "read"}, "acted or matrix"), ({"utterances": 1.5}, "1.5"),
])
def test_wrong_options(options, word):
    with pytest.raises(UsageError) as raised:
        Espeak(**options)
    assert word in str(raised.value) and "\n" not in str(raised.value)


def test_missing_wheel_is_one_line(monkeypatch):
    monkeypatch.setattr(espeak_process.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ser_jax\[demo\]'") as raised:
        Espeak().units()
    assert "\n" not in str(raised.value)


@speaking
def test_a_lost_process_is_replaced(own_process, monkeypatch):
    phones, speech, rate = espeak_process.speak("The lamp is on the desk.", SETTINGS)
    first = espeak_process._process.pid
    os.kill(first, signal.SIGKILL)
    again = espeak_process.speak("The lamp is on the desk.", SETTINGS)
    second = espeak_process._process.pid
    assert second != first and again[0] == phones and np.array_equal(again[1], speech) and again[2] == rate == 22_050

    monkeypatch.setattr(espeak_process, "ANSWER_SECONDS", 1.0)
    os.kill(second, signal.SIGSTOP)  # alive, but silent
    begin = time.monotonic()
    assert np.array_equal(espeak_process.speak("The lamp is on the desk.", SETTINGS)[1], speech)
    assert time.monotonic() - begin < 10 and espeak_process._process.pid not in (first, second)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


@speaking
def test_a_process_that_never_answers_is_an_error_not_a_hang(own_process, monkeypatch):
    espeak_process.speak("Yes.", SETTINGS)
    say = espeak_process.VoiceProcess.say

    def lose_and_say(process, request):
        os.kill(process.pid, signal.SIGKILL)
        return say(process, request)

    monkeypatch.setattr(espeak_process.VoiceProcess, "say", lose_and_say)
    with pytest.raises(UserError, match="lost twice while saying 'Yes.'"):
        espeak_process.speak("Yes.", SETTINGS)
    monkeypatch.setattr(espeak_process, "ANSWER_SECONDS", 0.0)
    with pytest.raises(UserError, match="does not start: no answer"):
        espeak_process.speak("Yes.", SETTINGS)


@speaking
def test_unknown_voice_is_named_and_does_no_harm(own_process):
    before = espeak_process.speak("Yes.", SETTINGS)[1]
    with pytest.raises(UserError, match="no voice 'en-us[+]?nobody'|no voice 'nobody'"):
        espeak_process.speak("Yes.", SETTINGS | {"voice": "nobody"})
    assert np.array_equal(espeak_process.speak("Yes.", SETTINGS)[1], before)


@speaking
def test_long_install_path(tmp_path):
    import espeakng_loader

    from ser_jax.corpora import espeak_voice

    folder = tmp_path / ("a" * 120) / ("b" * 120)
    folder.mkdir(parents=True)
    (folder / "data").symlink_to(espeakng_loader.get_data_path())
    command = [sys.executable, "-P", espeak_voice.__file__, espeakng_loader.get_library_path(), str(folder / "data")]
    answer = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=True).stdout
    assert json.loads(answer[4:])["sample_rate"] == 22_050


@speaking
def test_the_voice_ends_with_its_owner():
    program = ("import os, signal; from ser_jax.corpora import espeak_process as p; "
               f"p.speak('Yes.', {SETTINGS!r}); print(p._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        try:
            os.kill(pid, 0)
            if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break  # ended; nobody has collected it yet
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"the voice process {pid} outlived its owner")
