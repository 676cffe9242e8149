"""Containers, resampling, broken files, and streams against whole recordings."""

from __future__ import annotations

import io
import json
import tracemalloc
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batched_whisper.audio.decode import decode, open_audio
from batched_whisper.errors import (
    AudioError,
    EmptyAudio,
    InvalidSamples,
    NoAudioStream,
    UnreadableAudio,
)
from batched_whisper.types import Channels, Samples

CONTAINERS = [
    "LJ001-0002_48k_float.wav",
    "LJ001-0003.mp3",
    "LJ001-0005.mp3",
    "LJ001-0006_stereo.wav",
    "LJ001-0008_left_only.wav",
    "LJ001-0011.m4a",
    "LJ001-0013_8k_mulaw.wav",
    "LJ001-0016.ogg",
    "LJ001-0020.webm",
    "LJ001-0029_video.mp4",
]


def tone(n_samples: int, sampling_rate: int, hz: float = 200.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(n_samples) / sampling_rate)).astype(np.float32)


def encoded(container_format: str, codec: str, sound: Samples, rate: int = 16_000) -> bytes:
    """The sound, ``[n_samples]`` or ``[2, n_samples]``, as a file of this kind."""
    layout = "mono" if sound.ndim == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout  # type: ignore[union-attr]
        values = np.atleast_2d(sound * 32_767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(values, format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))  # type: ignore[union-attr, arg-type]
        container.mux(stream.encode(None))  # type: ignore[union-attr, arg-type]
    return file.getvalue()


def agreement(one: Samples, other: Samples) -> float:
    """The highest correlation over shifts by quarters of a sample; encoders may shift sound."""
    n = 2 ** int(np.ceil(np.log2(len(one) + len(other))))
    product = np.fft.rfft(other, n) * np.conj(np.fft.rfft(one, n))
    correlations = np.fft.irfft(product, 4 * n) * 4
    shift = int(np.argmax(correlations))
    assert min(shift, 4 * n - shift) < 4 * 1600, "shifted by more than 0.1 s"
    return float(correlations.max() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_decodes_to_the_original_audio(speech: Path, name: str) -> None:
    original = decode(speech / "ljspeech" / f"{name[:10]}.flac")
    other = decode(speech / "containers" / name)
    assert other.warnings == ()
    assert other.duration_s == pytest.approx(original.duration_s, abs=0.05)
    assert agreement(original.samples, other.samples) > (0.95 if "8k" in name else 0.98)


def test_intact_files_have_the_listed_duration_and_no_warnings(speech: Path) -> None:
    rows = [json.loads(line) for line in (speech / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) > 50
    for row in rows:
        if row["collection"] == "long":
            continue
        recording = decode(speech / row["audio"])
        assert recording.warnings == (), row["audio"]
        assert recording.duration_s == pytest.approx(row["duration_s"], abs=0.02), row["audio"]


DECLARED = "of the 1.90 s that its header declares"

# Of each broken file: the error and a piece of its message, or the seconds that can be read (the
# least and the most, for FFmpeg's versions differ) and a piece of the warning.
BROKEN: dict[str, tuple[type[AudioError], str] | tuple[float, float, str | None]] = {
    "text_named.wav": (UnreadableAudio, "it is text, not audio"),
    "header_cut.wav": (UnreadableAudio, "should have 16 bytes, but only 0 follow"),
    "empty_file.wav": (EmptyAudio, "0 bytes"),
    "no_samples.wav": (EmptyAudio, "0 samples"),
    "nan_inf.wav": (InvalidSamples, "NaN or infinite"),
    "zero_rate.wav": (UnreadableAudio, "sampling rate of 0"),
    "random_bytes.mp3": (UnreadableAudio, "no decoder can read it"),
    "awful.wav": (InvalidSamples, "1092676 Hz"),
    "bad.wav": (UnreadableAudio, "1,717,986,918 bytes"),
    "evil.wav": (UnreadableAudio, "'HURF' chunk should have 960,051,513 bytes"),
    "no_audio.mp4": (NoAudioStream, "only video"),
    "truncated.wav": (0.73, 0.77, DECLARED),
    "truncated.flac": (0.73, 0.76, DECLARED),
    "damaged_middle.flac": (1.1, 1.8, DECLARED),
    "short_50ms.wav": (0.05, 0.05, None),
}


def test_every_broken_file_of_the_manifest_is_listed_here(speech: Path) -> None:
    rows = [json.loads(line) for line in (speech / "broken.jsonl").read_text().splitlines()]
    assert {Path(row["audio"]).name for row in rows} == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("as_bytes", [False, True], ids=["path", "bytes"])
def test_a_broken_file_raises_or_warns_with_its_defect(
    speech: Path, name: str, as_bytes: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = speech / "broken" / name
    source = path.read_bytes() if as_bytes else path
    expected = BROKEN[name]
    if len(expected) == 3:
        shortest, longest, words = expected
        recording = decode(source)
        assert shortest <= recording.duration_s <= longest
        assert len(recording.warnings) == (words is not None)
        assert (words or "") in "".join(recording.warnings)
    else:
        error, named = expected
        with pytest.raises(AudioError) as caught:
            decode(source, name=str(path))
        assert type(caught.value) is error
        assert str(caught.value).startswith(f"{path}: ")
        assert named in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["LJ001-0003.mp3", "LJ001-0011.m4a", "LJ001-0016.ogg"])
def test_noise_in_the_middle_of_a_coded_file_is_warned_about(speech: Path, name: str) -> None:
    content = bytearray((speech / "containers" / name).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    recording = decode(bytes(content))
    assert recording.duration_s > 4
    assert "damaged" in recording.warnings[0]


@pytest.mark.parametrize("name", ["LJ001-0003.mp3", "LJ001-0020.webm"])
def test_half_a_coded_file_is_read_with_a_warning(speech: Path, name: str) -> None:
    content = (speech / "containers" / name).read_bytes()
    whole, half = decode(content), decode(content[: len(content) // 2])
    assert 0.4 < half.duration_s / whole.duration_s < 0.6
    assert "truncated" in half.warnings[0]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s24le"),
        ("wav", "pcm_f64le"),
        ("wav", "pcm_s64le"),
        ("wav", "pcm_u8"),
        ("aiff", "pcm_s16be"),
        ("flac", "flac"),
        ("matroska", "pcm_s16le"),
        ("ipod", "alac"),
        ("au", "pcm_s16be"),
    ],
)
def test_lossless_codecs_decode_exactly(container: str, codec: str) -> None:
    sound = tone(20_000, 16_000)
    recording = decode(encoded(container, codec, sound))
    np.testing.assert_allclose(recording.samples, sound, atol=0.01 if "u8" in codec else 1e-4)
    assert recording.warnings == ()


@pytest.mark.parametrize(
    ("container", "codec"), [("wav", "pcm_s16le"), ("wav", "pcm_s64le"), ("ipod", "alac")]
)
def test_two_channels_are_mixed_however_the_codec_lays_them_out(container: str, codec: str) -> None:
    left, right = tone(20_000, 16_000), tone(20_000, 16_000, hz=310)
    recording = decode(encoded(container, codec, np.stack([left, right])))
    np.testing.assert_allclose(recording.samples, (left + right) / 2, atol=1e-4)


def test_a_file_truncated_within_a_packet_gives_a_warning_without_a_declared_length() -> None:
    recording = decode(encoded("w64", "pcm_s16le", tone(20_000, 16_000))[:-1001])
    assert recording.duration_s == pytest.approx(1.2, abs=0.06)
    assert "incomplete" in recording.warnings[0]


def test_a_file_truncated_before_its_audio_raises_unreadable_audio() -> None:
    with pytest.raises(UnreadableAudio, match="truncated before its audio data"):
        decode(encoded("matroska", "pcm_s16le", tone(20_000, 16_000))[:-1001])


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([1_000, 8_000, 11_025, 12_345, 22_050, 44_100, 48_000, 96_000, 192_000])
    | st.integers(1_000, 768_000),
    n_samples=st.integers(1, 30_000),
)
def test_resampling_keeps_the_length_to_a_sample(rate: int, n_samples: int) -> None:
    samples = decode(tone(n_samples, rate), sampling_rate=rate).samples
    assert n_samples * 16_000 / rate <= len(samples) < n_samples * 16_000 / rate + 1


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_resampling_keeps_the_signal_and_its_position(rate: int) -> None:
    samples = decode(tone(3 * rate + 17, rate), sampling_rate=rate).samples
    expected = tone(len(samples), 16_000)
    np.testing.assert_allclose(samples[200:-200], expected[200:-200], atol=1e-3)
    np.testing.assert_allclose(samples, expected, atol=0.3)


def test_frequencies_above_8_khz_are_filtered_out() -> None:
    samples = decode(tone(48_000, 48_000, hz=12_000), sampling_rate=48_000).samples
    assert np.abs(samples[500:-500]).max() < 0.01


def test_open_audio_yields_the_blocks_of_decode(speech: Path) -> None:
    path = speech / "long" / "mixed_english.flac"
    with open_audio(path) as stream:
        lengths = [len(block) for block in stream]
    assert set(lengths[:-1]) == {480_000}
    assert 0 < lengths[-1] <= 480_000
    assert sum(lengths) == len(decode(path).samples)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_concatenated_blocks_equal_the_recording(rate: int) -> None:
    with open_audio(tone(65 * rate, rate, hz=0.2), sampling_rate=rate) as stream:
        blocks = list(stream)
    assert [len(block) for block in blocks] == [480_000, 480_000, 80_000]
    expected = tone(65 * 16_000, 16_000, hz=0.2)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-3)


def test_a_long_file_is_streamed_with_bounded_memory(speech: Path) -> None:
    tracemalloc.start()
    try:
        with open_audio(speech / "long" / "mixed_english.flac") as stream:
            n_samples = sum(len(block) for block in stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n_samples * 4 / 3


def channels_of(source: object, **options: int) -> Channels:
    with open_audio(source, **options) as stream:  # type: ignore[arg-type]
        return np.concatenate(list(stream.by_channel()), axis=1)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_by_channel_equals_decoding_each_channel_as_mono(rate: int, n_channels: int) -> None:
    sounds = [tone(31 * rate, rate, hz=100.0 * (i + 1)) for i in range(n_channels)]
    apart = channels_of(np.stack(sounds), sampling_rate=rate)
    assert len(apart) == n_channels
    for channel, sound in zip(apart, sounds, strict=True):
        np.testing.assert_array_equal(channel, decode(sound, sampling_rate=rate).samples)


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac")])
def test_by_channel_separates_channels_and_their_mean_is_the_mono_mix(
    container: str, codec: str
) -> None:
    sounds = np.stack([tone(48_000, 48_000, hz=200), tone(48_000, 48_000, hz=300)])
    file = encoded(container, codec, sounds, 48_000)
    apart = channels_of(file)
    assert apart.shape == (2, 16_000)
    for channel, sound in zip(apart, sounds, strict=True):
        alone = decode(encoded(container, codec, sound, 48_000)).samples
        np.testing.assert_allclose(channel, alone, atol=1e-6)
    np.testing.assert_allclose(apart.mean(axis=0), decode(file).samples, atol=1e-6)


def test_by_channel_pads_a_lost_channel_with_silence_and_warns() -> None:
    rate = 16_000
    parts = [np.stack([tone(rate, rate), tone(rate, rate)]), tone(rate, rate)]
    file = b"".join(encoded("mp2", "mp2", part, rate) for part in parts)
    with open_audio(file) as stream:
        apart = np.concatenate(list(stream.by_channel()), axis=1)
    assert len(apart) == 2
    frames = apart[:, : apart.shape[1] // 160 * 160].reshape(2, -1, 160)
    loud = np.abs(frames).max(axis=2) > 0.1
    assert (loud[0].sum(), loud[1].sum()) == pytest.approx((200, 100), abs=15)
    assert "from 2 to 1 within" in stream.warnings[0]


def test_a_sample_that_is_no_number_is_found_on_any_channel() -> None:
    values = np.zeros((2, 16_000), np.float32)
    values[1, 8_000] = np.inf
    with pytest.raises(InvalidSamples, match=r"0\.50 s"):
        channels_of(values)


def test_one_missing_sample_late_in_a_long_array_is_found() -> None:
    values = np.zeros(45 * 16_000, np.float32)
    values[40 * 16_000] = np.nan
    with open_audio(values) as stream:
        blocks = iter(stream)
        assert len(next(blocks)) == 480_000
        with pytest.raises(InvalidSamples, match=r"40\.00 s"):
            next(blocks)


def test_playlists_and_concat_lists_do_not_open_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where FFmpeg would look for them
    with wave.open(str(tmp_path / "secret.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x01\x02" * 16_000)
    for name, text in [
        ("list.ffconcat", "ffconcat version 1.0\nfile secret.wav\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"),
    ]:
        path = tmp_path / name
        path.write_text(text)
        for source in (path, path.read_bytes()):
            with pytest.raises(UnreadableAudio, match="text, not audio"):
                decode(source)


def test_the_sampling_rate_may_change_within_a_file() -> None:
    parts = [encoded("mp2", "mp2", tone(2 * rate, rate), rate) for rate in (16_000, 48_000)]
    samples = decode(b"".join(parts)).samples
    assert len(samples) == pytest.approx(4 * 16_000, abs=2000)
    for second in (0.5, 1.5, 2.5, 3.5):  # the same tone before and after
        part = samples[int(second * 16_000) :][:1600]
        assert np.argmax(np.abs(np.fft.rfft(part))) == 200 / 10


def test_close_closes_own_files_but_not_the_callers(tmp_path: Path) -> None:
    content = encoded("flac", "flac", tone(1000, 16_000))
    file = io.BytesIO(content)
    with open_audio(file) as stream:
        assert sum(len(block) for block in stream) == 1000
    assert not file.closed
