"""Pauses are found by loudness."""

from __future__ import annotations

import numpy as np
import pytest

from batched_whisper.transcript.silence import Pause, find_pauses
from batched_whisper.types import SAMPLING_RATE, Samples


def sound(*parts: tuple[float, float], noise: float = 0.0) -> Samples:
    """Noise of given loudness, for given seconds."""
    random = np.random.default_rng(0)
    pieces = [
        level * random.standard_normal(round(seconds * SAMPLING_RATE)) for seconds, level in parts
    ]
    whole = np.concatenate(pieces)
    return (whole + noise * random.standard_normal(len(whole))).astype(np.float32)


@pytest.mark.parametrize("loudness", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.06])
def test_find_pauses_does_not_depend_on_the_level(loudness: float, noise: float) -> None:
    parts = [(0.3, 0), (0.5, 1.0), (0.2, 0), (0.5, 1.0), (0.4, 0)]
    found = find_pauses(np.float32(loudness) * sound(*parts, noise=noise))
    expected = [Pause(0.0, 0.3), Pause(0.8, 1.0), Pause(1.5, 1.9)]
    assert len(found) == len(expected)
    for pause, true in zip(found, expected, strict=True):
        assert pause.start_s == pytest.approx(true.start_s, abs=0.011)
        assert pause.end_s == pytest.approx(true.end_s, abs=0.011)


def test_the_closure_of_a_plosive_is_no_pause() -> None:
    assert find_pauses(sound((0.5, 1.0), (0.06, 0), (0.5, 1.0))) == ()


def test_find_pauses_finds_nothing_in_loud_noise() -> None:
    assert find_pauses(sound((0.5, 0.3), (0.3, 0), (0.5, 0.3), noise=0.3)) == ()


def test_silence_is_one_pause_and_nothing_is_none() -> None:
    assert find_pauses(np.zeros(SAMPLING_RATE, np.float32)) == (Pause(0.0, 1.0),)
    assert find_pauses(np.zeros(0, np.float32)) == ()
