"""The log-mel spectrogram against two others: the formula written plainly, and faster-whisper's."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batched_whisper.audio.decode import decode
from batched_whisper.audio.features import log_mel, mel_filters
from batched_whisper.errors import InvalidSamples
from batched_whisper.types import Samples


def noise(n_samples: int, seed: int = 0) -> Samples:
    """Noise whose loudness wanders over five powers of ten, as speech and its pauses do."""
    chance = np.random.default_rng(seed)
    envelope = 10 ** (2.5 * np.sin(np.arange(n_samples) / 9000) - 3)
    return (chance.standard_normal(n_samples) * envelope).astype(np.float32)


def hz_of_mel(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def plain_mel_filters(n_mels: int) -> NDArray[np.float64]:
    """Each triangle drawn on its own, its edges found by bisection on the mel scale."""
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if hz_of_mel(middle) < 8000 else (low, middle)
    edges = [hz_of_mel(low * i / (n_mels + 1)) for i in range(n_mels + 2)]
    filters = np.zeros((n_mels, 201))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for bin_, hz in enumerate(np.arange(201) * 40.0):
            if left < hz < right:
                side = (hz - left) / (centre - left), (right - hz) / (right - centre)
                filters[band, bin_] = min(side) * 2 / (right - left)
    return filters


def plain_log_mel(samples: Samples, n_mels: int, n_frames: int) -> NDArray[np.float64]:
    """The formula as the paper's program states it, by a matrix of sines and in no hurry."""
    padded = np.pad(samples.astype(np.float64), (0, n_frames * 160 - len(samples)))
    mirrored = np.pad(padded, 200, mode="reflect")
    n = np.arange(400)
    window = np.sin(np.pi * n / 400) ** 2
    fourier = np.exp(-2j * np.pi * np.outer(n, np.arange(201)) / 400)
    frames = np.stack([mirrored[t * 160 : t * 160 + 400] for t in range(n_frames)])
    power = np.abs((frames * window) @ fourier) ** 2
    logs = np.log10(np.maximum(plain_mel_filters(n_mels) @ power.T, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


@pytest.mark.parametrize("n_mels", [80, 128])
def test_the_mel_filters_are_slaneys_triangles(n_mels: int) -> None:
    np.testing.assert_allclose(mel_filters(n_mels), plain_mel_filters(n_mels), atol=1e-12)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("n_samples", [1, 4_000, 100_000, 479_900, 480_000])
def test_log_mel_equals_the_reference_formula(n_mels: int, n_samples: int) -> None:
    samples = noise(n_samples)
    ours = log_mel(samples, n_mels)
    assert ours.shape == (n_mels, 3000)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, plain_log_mel(samples, n_mels, 3000), atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(n_frames=st.integers(3, 60), missing=st.integers(0, 60 * 160), seed=st.integers(0, 99))
def test_log_mel_equals_the_reference_for_every_length_and_number_of_frames(
    n_frames: int, missing: int, seed: int
) -> None:
    samples = noise(max(0, n_frames * 160 - missing), seed)
    ours = log_mel(samples, 80, n_frames)
    np.testing.assert_allclose(ours, plain_log_mel(samples, 80, n_frames), atol=2e-6)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_of_real_speech_equals_faster_whisper(speech: Path, n_mels: int) -> None:
    extractor = pytest.importorskip("faster_whisper.feature_extractor")
    samples = decode(speech / "ljspeech" / "LJ001-0001.flac").samples
    padded = np.pad(samples, (0, 480_000 - len(samples)))
    theirs = extractor.FeatureExtractor(feature_size=n_mels)(padded, padding=0)[:, :3000]
    # The other one works in single precision, whose error is what is seen here.
    np.testing.assert_allclose(log_mel(samples, n_mels), theirs, atol=1e-4)


def test_log_mel_of_silence_is_constant() -> None:
    assert set(log_mel(np.zeros(16_000, np.float32), 80).ravel()) == {np.float32(-1.5)}


def test_log_mel_of_no_samples_is_silence() -> None:
    nothing, silence = np.zeros(0, np.float32), np.zeros(480_000, np.float32)
    np.testing.assert_array_equal(log_mel(nothing, 80), log_mel(silence, 80))


def test_log_mel_with_fewer_frames_is_a_prefix() -> None:
    samples = noise(100_000)
    short = log_mel(samples, 80, 850)
    np.testing.assert_allclose(short, log_mel(samples, 80)[:, :850], atol=1e-6)


def test_log_mel_rejects_more_samples_than_its_frames_hold() -> None:
    with pytest.raises(InvalidSamples, match="at most 1600 samples"):
        log_mel(noise(1601), 80, 10)


def test_log_mel_is_thread_safe() -> None:
    inputs = [noise(50_000 + 7_000 * i, seed=i) for i in range(8)]
    results: dict[int, NDArray[np.float32]] = {}

    def compute(i: int) -> None:
        results[i] = log_mel(inputs[i], 80)

    threads = [threading.Thread(target=compute, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, samples in enumerate(inputs):
        np.testing.assert_array_equal(results[i], log_mel(samples, 80))


IDLE_AFTER_LOG_MEL = """
import time
import numpy as np
from batched_whisper.audio.features import log_mel

samples = np.ones(112_000, np.float32)
time.sleep(0.5)  # a BLAS's threads spin when they are made, too
log_mel(samples, {n_mels})
before = time.process_time()
time.sleep(0.2)
print(time.process_time() - before)
"""


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_leaves_no_spinning_threads(n_mels: int) -> None:
    """As those of a BLAS would, which spin after a product that they shared."""
    script = IDLE_AFTER_LOG_MEL.format(n_mels=n_mels)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert float(done.stdout) < 0.02, done.stderr
