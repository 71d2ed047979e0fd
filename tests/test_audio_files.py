"""Audio decoding: what comes out of every format, and the reason given for every kind of bad file."""

import io
import struct

import numpy as np
import pytest
import soundfile
from corpus_files import voice, write_audio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ser_jax.corpora import audio
from ser_jax.corpora.schema import BadAudio

LOSSLESS = (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("NIST", "PCM_16"), ("AIFF", "PCM_16"))
SPEECH = voice(150.0, seconds=1.0)


def encoded(samples, rate=16_000, format="WAV", subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int16, st.integers(1, 3000)), st.sampled_from(LOSSLESS))
def test_16_bit_16_khz_mono_is_bit_exact(samples, kind):
    np.testing.assert_array_equal(audio.read(encoded(samples, format=kind[0], subtype=kind[1])), samples)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_16_bit_values_survive_other_sample_formats(subtype):
    samples = SPEECH // 256 * 256 if subtype == "PCM_U8" else SPEECH
    np.testing.assert_array_equal(audio.read(encoded(samples / 32768.0, subtype=subtype)), samples)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT"])
def test_finer_values_are_rounded_not_truncated(subtype):
    for value, rounded in ((1000.75, 1001), (1000.25, 1000), (-1000.75, -1001)):
        assert set(audio.read(encoded(np.full(2000, value / 32768.0), subtype=subtype))) == {rounded}


def test_path_bytes_and_pathlike_agree(tmp_path):
    path = write_audio(tmp_path / "a.flac", SPEECH)
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(audio.read(source), SPEECH)


def test_stereo_becomes_the_mean_of_the_channels():
    stereo = np.stack([SPEECH, np.roll(SPEECH, 7)], axis=1)
    np.testing.assert_allclose(audio.read(encoded(stereo)), stereo.astype(float).mean(axis=1), atol=0.51)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone_and_the_duration(rate):
    t = np.arange(rate) / rate
    read = audio.read(encoded(0.5 * np.sin(2 * np.pi * 1000 * t), rate))
    assert len(read) == 16_000
    expected = 16_384 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(read[500:-500], expected[500:-500], atol=8)


def test_resampling_removes_what_16_khz_cannot_hold():
    t = np.arange(48_000) / 48_000
    read = audio.read(encoded(0.5 * np.sin(2 * np.pi * 10_000 * t), 48_000))
    assert np.abs(read[500:-500]).max() < 16  # 16384 before, -60 dB


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_formats_are_read(format, subtype):
    read = audio.read(encoded(SPEECH, format=format, subtype=subtype))
    assert np.corrcoef(read[: len(SPEECH)], SPEECH[: len(read)])[0, 1] > 0.98


def test_overshooting_floats_are_clipped_not_wrapped():
    read = audio.read(encoded(np.linspace(-1.5, 1.5, 4000), subtype="FLOAT"))
    assert read.min() == -32768 and read.max() == 32767 and (np.diff(read.astype(int)) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LOSSLESS), st.integers(0, 900), st.integers(1, 900))
def test_a_segment_is_a_slice(kind, start, length):
    start, end = start / 1000, min(start + length, 1000) / 1000
    data = encoded(SPEECH, format=kind[0], subtype=kind[1])
    if start < end:
        np.testing.assert_array_equal(audio.read(data, start, end), SPEECH[round(start * 16_000):round(end * 16_000)])
    np.testing.assert_array_equal(audio.read(data, start=start), SPEECH[round(start * 16_000):])


def test_one_open_file_gives_many_segments_in_any_order():
    with audio.AudioFile(encoded(SPEECH, format="FLAC")) as file:
        assert file.seconds == pytest.approx(1.0)
        for start in (0.7, 0.1, 0.4, 0.1):
            first = round(start * 16_000)
            np.testing.assert_array_equal(file.read(start, start + 0.2), SPEECH[first:first + 3200])


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.2), (1.0, 1.3), (2.0, None), (-0.1, 0.5), (0.5, 0.5), (0.8, 0.2)])
def test_segment_outside_the_file(start, end):
    with pytest.raises(BadAudio, match=r"segment outside the file: .* of 1\.00 s"):
        audio.read(encoded(SPEECH), start, end)


def test_a_segment_may_end_a_rounding_error_late():
    np.testing.assert_array_equal(audio.read(encoded(SPEECH), 0.5, 1.01), SPEECH[8000:])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LOSSLESS[:3]), st.floats(0.0, 0.85))
def test_a_file_cut_anywhere_is_refused(kind, share):
    data = encoded(SPEECH, format=kind[0], subtype=kind[1])
    with pytest.raises(BadAudio) as caught:
        audio.read(data[: int(len(data) * share)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", [1, 10, 2000])
def test_flac_that_lost_its_last_bytes_is_refused(tmp_path, lost):
    path = write_audio(tmp_path / "a.flac", SPEECH)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(BadAudio, match="truncated"):
        audio.read(path)


def test_a_segment_before_the_cut_of_a_wav_is_refused_too():
    data = encoded(SPEECH)
    with pytest.raises(BadAudio, match="truncated"):
        audio.read(data[:20_000], 0.0, 0.2)


def test_wav_from_a_pipe_has_no_length_and_is_taken():
    data = bytearray(encoded(SPEECH))
    position = data.index(b"data") + 4
    data[position:position + 4] = struct.pack("<I", 0xFFFFFFFF)
    np.testing.assert_array_equal(audio.read(bytes(data)), SPEECH)


def test_a_damaged_flac_frame_is_refused():
    data = bytearray(encoded(SPEECH, format="FLAC"))
    data[len(data) // 2:len(data) // 2 + 200] = bytes(200)
    with pytest.raises(BadAudio):
        audio.read(bytes(data))


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "empty file"),
    (b"this is not sound\n" * 100, "not an audio file"),
    (b"RIFF\x00\x00\x00\x00WAVE", "truncated"),
])
def test_files_that_are_not_audio(tmp_path, content, reason):
    (tmp_path / "a.wav").write_bytes(content)
    for source in (tmp_path / "a.wav", content):
        with pytest.raises(BadAudio, match=reason):
            audio.read(source)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BadAudio, match="^no such file$"):
        audio.read(tmp_path / "none.wav")
    with pytest.raises(BadAudio, match="unreadable: Is a directory"):
        audio.read(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_samples(value):
    samples = SPEECH / 32768.0
    samples[5000] = value
    with pytest.raises(BadAudio, match="NaN or infinite"):
        audio.read(encoded(samples, subtype="FLOAT"))


def test_integers_stored_as_floats_are_not_clipped_to_noise():
    with pytest.raises(BadAudio, match="not normalised"):
        audio.read(encoded(SPEECH.astype(np.float32), subtype="FLOAT"))


@pytest.mark.parametrize(("speech", "reason"), [
    (np.zeros(0), "empty"), (np.zeros(16_000), "silent"), (np.full(16_000, 32767), "clipped to constant"),
    (SPEECH[:160], r"too short: 0\.010 s"), (SPEECH[:1599], "too short"),
])
def test_speech_with_nothing_to_learn_from(speech, reason):
    with pytest.raises(BadAudio, match=reason):
        audio.check(speech.astype(np.int16))


def test_a_tenth_of_a_second_of_speech_passes():
    audio.check(SPEECH[:1600])
