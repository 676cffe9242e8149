"""Laws of plain cutting: nothing lost, nothing too long, and the blocks make no difference."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_recordings import assert_same, blocked, cut

from batched_whisper.audio.windows import PlainCutter
from batched_whisper.errors import OptionError
from batched_whisper.types import Samples

RATE = 16_000


def babble(n_samples: int, seed: int) -> Samples:
    """Noise in bursts with quieter gaps, here and there digital silence."""
    chance = np.random.default_rng(seed)
    levels = chance.choice(
        [0.0, 0.01, 0.1, 1.0], size=n_samples // 3000 + 1, p=[0.1, 0.1, 0.4, 0.4]
    )
    envelope = np.repeat(levels, 3000)[:n_samples]
    return (chance.standard_normal(n_samples) * envelope).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.integers(0, 9 * RATE),
    max_s=st.sampled_from([1, 1.5, 2.7, 4]),
    sizes=st.lists(st.integers(1, 3 * RATE), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_windows_lose_nothing_and_do_not_depend_on_the_blocks(
    n_samples: int, max_s: float, sizes: list[int], seed: int
) -> None:
    samples = babble(n_samples, seed)
    windows = list(cut(blocked(samples, sizes), max_s))
    joined = np.concatenate([np.zeros(0, np.float32), *(w.samples for w in windows)])
    np.testing.assert_array_equal(joined, samples)
    assert all(0 < len(w.samples) <= max_s * RATE for w in windows)
    assert [w.index for w in windows] == list(range(len(windows)))
    assert all(w.end_s == after.start_s for w, after in pairwise(windows))
    assert_same(windows, list(cut([samples], max_s)))


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.integers(0, 9 * RATE),
    max_s=st.sampled_from([1.5, 2.7, 4]),
    overlap_s=st.sampled_from([0.1, 0.5]),
    sizes=st.lists(st.integers(1, 3 * RATE), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_windows_share_the_overlap_or_nothing(
    n_samples: int, max_s: float, overlap_s: float, sizes: list[int], seed: int
) -> None:
    samples = babble(n_samples, seed)
    windows = list(cut(blocked(samples, sizes), max_s, overlap_s))
    assert_same(windows, list(cut([samples], max_s, overlap_s)))
    edges = [(w.start_sample, w.start_sample + len(w.samples)) for w in windows]
    for w, (start, end) in zip(windows, edges, strict=True):
        assert 0 < end - start <= max_s * RATE
        np.testing.assert_array_equal(w.samples, samples[start:end])
    assert not windows or (edges[0][0], edges[-1][1]) == (0, n_samples)
    assert all(a[1] - b[0] in (0, overlap_s * RATE) for a, b in pairwise(edges))


@pytest.mark.parametrize(("pause", "overlap_s"), [(0.05, 0), (0.5, 2)])
def test_windows_overlap_where_the_cut_is_not_in_a_pause(pause: float, overlap_s: float) -> None:
    samples = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    samples[25 * RATE : int(25.5 * RATE)] *= pause
    first, second = cut([samples], overlap_s=2)
    assert first.end_s - second.start_s == pytest.approx(overlap_s)
    assert (first.end_s + second.start_s) / 2 == pytest.approx(25.25, abs=0.02)


def test_in_digital_silence_windows_do_not_overlap() -> None:
    first, second = cut([np.zeros(40 * RATE, np.float32)], overlap_s=2)
    assert first.end_s == second.start_s


@pytest.mark.parametrize("length_s", [29.99, 30.01, 30.5, 31.0, 60.0, 60.2, 95.3])
def test_no_window_of_a_long_recording_is_shorter_than_a_second(length_s: float) -> None:
    for seed in range(3):
        samples = babble(int(length_s * RATE), seed)
        windows = list(cut([samples]))
        assert min(len(w.samples) for w in windows) >= RATE
        assert max(len(w.samples) for w in windows) <= 30 * RATE


def test_a_pause_is_passed_over_where_the_rest_would_be_shorter_than_a_second() -> None:
    samples = np.random.default_rng(0).standard_normal(int(30.2 * RATE)).astype(np.float32)
    samples[int(29.5 * RATE) : int(29.9 * RATE)] = 0
    samples[int(27 * RATE) : int(27.4 * RATE)] *= 0.1
    first, last = cut([samples])
    assert first.end_s == pytest.approx(27.2, abs=0.02)
    assert len(last.samples) >= RATE


def test_thirty_seconds_are_one_window_and_a_sample_more_are_two() -> None:
    samples = babble(30 * RATE + 1, seed=1)
    assert len(list(cut([samples[:-1]]))) == 1
    assert len(list(cut([samples]))) == 2


def test_no_samples_give_no_window() -> None:
    assert list(cut([])) == []
    assert list(cut([np.zeros(0, np.float32)])) == []


@pytest.mark.parametrize("pause_s", [(22.0, 22.6), (25.0, 26.0), (29.0, 29.5)])
def test_the_cut_is_in_the_middle_of_the_only_pause(pause_s: tuple[float, float]) -> None:
    samples = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    start, end = (int(at * RATE) for at in pause_s)
    samples[start:end] *= 0.01
    first, _ = cut([samples])
    assert first.end_s == pytest.approx(sum(pause_s) / 2, abs=0.02)


def test_of_two_pauses_as_quiet_the_longer_one_is_cut() -> None:
    samples = np.ones(40 * RATE, np.float32)
    samples[int(22 * RATE) : int(23 * RATE)] = 0
    samples[int(27 * RATE) : int(27.5 * RATE)] = 0
    first, _ = cut([samples])
    assert first.end_s == pytest.approx(22.5, abs=0.02)


def test_of_two_pauses_alike_the_later_one_is_cut() -> None:
    samples = np.ones(40 * RATE, np.float32)
    for start_s in (22, 27):
        samples[start_s * RATE : (start_s + 1) * RATE] = 0
    first, _ = cut([samples])
    assert first.end_s == pytest.approx(27.5, abs=0.02)


def test_a_deep_short_click_of_silence_is_no_pause() -> None:
    samples = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    samples[int(28 * RATE) : int(28.04 * RATE)] = 0
    samples[int(23 * RATE) : int(23.5 * RATE)] *= 0.1
    first, _ = cut([samples])
    assert first.end_s == pytest.approx(23.25, abs=0.02)


def test_pauses_before_the_last_ten_seconds_are_ignored() -> None:
    samples = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    samples[16 * RATE : 19 * RATE] = 0
    first, _ = cut([samples])
    assert first.end_s > 20


def test_windows_are_emitted_before_the_recording_has_ended() -> None:
    seconds_read = 0

    def endless() -> Iterator[Samples]:
        nonlocal seconds_read
        while True:
            seconds_read += 1
            yield np.ones(RATE, np.float32)

    assert next(cut(endless())).index == 0
    assert seconds_read <= 31


def test_cutting_an_hour_uses_the_memory_of_about_two_windows() -> None:
    second = np.ones(RATE, np.float32)
    window_bytes = 30 * RATE * 4
    tracemalloc.start()
    try:
        n_windows = sum(1 for _ in cut(second for _ in range(600)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_windows >= 20
    assert peak < 3 * window_bytes


@pytest.mark.parametrize("max_s", [0, 0.5, -1, 31, float("nan")])
def test_max_s_out_of_range_is_rejected(max_s: float) -> None:
    with pytest.raises(OptionError, match="from 1 to 30"):
        PlainCutter(max_s)


@pytest.mark.parametrize("overlap_s", [-1, 10.1, float("nan")])
def test_overlap_s_out_of_range_is_rejected(overlap_s: float) -> None:
    with pytest.raises(OptionError, match="from 0 to 10"):
        PlainCutter(30, overlap_s)
