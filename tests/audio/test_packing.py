"""Laws of packing: all speech is in a window, no silence is, and cuts lie in pauses."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_recordings import blocked, windows_by_speech

from batched_whisper.audio.packing import PackingOptions
from batched_whisper.audio.speech import SpeechUpdate
from batched_whisper.errors import OptionError
from batched_whisper.types import Samples, SpeechSpan, Window

RATE = 16_000


@dataclass(frozen=True)
class ScriptedDetector:
    """Emits the given speech spans ``lag`` samples after their audio was processed."""

    speech: tuple[SpeechSpan, ...]
    lag: int = 0
    turn: int = 1

    def new_stream(self) -> ScriptedListener:
        return ScriptedListener(self)


class ScriptedListener:
    def __init__(self, script: ScriptedDetector) -> None:
        self._script, self._n_heard, self._settled = script, 0, 0

    def process(self, block: Samples) -> SpeechUpdate:
        self._n_heard += len(block)
        turn = self._script.turn
        return self._tell(max(0, self._n_heard // turn * turn - self._script.lag))

    def end(self) -> SpeechUpdate:
        return self._tell(self._n_heard)

    def _tell(self, until: int) -> SpeechUpdate:
        clipped = [
            SpeechSpan(max(s.start_sample, self._settled), min(s.end_sample, until))
            for s in self._script.speech
        ]
        self._settled = until
        return SpeechUpdate(tuple(s for s in clipped if s.start_sample < s.end_sample), until)


BARE = PackingOptions(margin_s=0)


def in_seconds(*pairs: tuple[float, float]) -> tuple[SpeechSpan, ...]:
    return tuple(SpeechSpan(int(start * RATE), int(end * RATE)) for start, end in pairs)


def packed(
    spans: tuple[SpeechSpan, ...], n_s: float, options: PackingOptions | None = None
) -> list[Window]:
    sound = np.random.default_rng(0).standard_normal(int(n_s * RATE)).astype(np.float32)
    return list(windows_by_speech([sound], ScriptedDetector(spans), options))


def edges(windows: list[Window]) -> list[tuple[float, float]]:
    return [(w.start_s, w.end_s) for w in windows]


@st.composite
def scripts(draw: st.DrawFn) -> tuple[SpeechSpan, ...]:
    lengths = draw(st.lists(st.tuples(st.integers(1, 30_000), st.integers(1, 90_000)), max_size=8))
    spans, at = [], draw(st.sampled_from([0, 0, 20_000]))
    for pause, speech in lengths:
        spans.append(SpeechSpan(at, at + speech))
        at += speech + pause
    return tuple(spans)


@settings(max_examples=150, deadline=None)
@given(
    spans=scripts(),
    silence=st.integers(0, 60_000),
    max_s=st.sampled_from([1.0, 2.0, 3.3]),
    max_pause_s=st.sampled_from([0.0, 0.5, 1.5]),
    overlap_s=st.sampled_from([0.0, 0.1, 0.33]),
    sizes=st.lists(st.integers(500, 100_000), min_size=1, max_size=3),
    lag=st.integers(0, 40_000),
    turn=st.sampled_from([1, 7_000, 50_000]),
)
def test_packed_windows_contain_all_speech_within_the_limits(
    spans: tuple[SpeechSpan, ...],
    silence: int,
    max_s: float,
    max_pause_s: float,
    overlap_s: float,
    sizes: list[int],
    lag: int,
    turn: int,
) -> None:
    n_samples = (spans[-1].end_sample if spans else 0) + silence
    sound = np.random.default_rng(1).standard_normal(n_samples).astype(np.float32)
    options = PackingOptions(max_s, max_pause_s, overlap_s, margin_s=0)
    detector = ScriptedDetector(spans, lag, turn)
    windows = list(windows_by_speech(blocked(sound, sizes), detector, options))

    starts = [w.start_sample for w in windows]
    ends = [w.start_sample + len(w.samples) for w in windows]
    assert [w.index for w in windows] == list(range(len(windows)))
    assert all(a < b for a, b in pairwise(starts))
    for w, start, end in zip(windows, starts, ends, strict=True):
        assert 0 < end - start <= max_s * RATE
        np.testing.assert_array_equal(w.samples, sound[start:end])

    assert_every_sample_of_speech_is_in_a_window(spans, starts, ends)
    assert_no_long_pause_is_in_a_window(spans, starts, ends, max_pause_s)
    assert_overlaps_only_where_there_was_no_pause(spans, windows, starts, ends, overlap_s)

    whole = list(windows_by_speech([sound], ScriptedDetector(spans), options))
    assert edges(whole) == edges(windows)


def assert_every_sample_of_speech_is_in_a_window(
    spans: tuple[SpeechSpan, ...], starts: list[int], ends: list[int]
) -> None:
    n_samples = max([0, *ends, *(span.end_sample for span in spans)])
    covered = np.zeros(n_samples, bool)
    for start, end in zip(starts, ends, strict=True):
        covered[start:end] = True
    assert all(covered[span.start_sample : span.end_sample].all() for span in spans)


def assert_no_long_pause_is_in_a_window(
    spans: tuple[SpeechSpan, ...], starts: list[int], ends: list[int], max_pause_s: float
) -> None:
    inside = [{span.start_sample for span in spans}, {span.end_sample for span in spans}]
    for start, end in zip(starts, ends, strict=True):
        assert any(s.start_sample < end and s.end_sample > start for s in spans)
        for a, b in pairwise(spans):
            if start < a.end_sample and b.start_sample < end:
                assert b.start_sample - a.end_sample <= max_pause_s * RATE
        assert start in inside[0] or any(s.start_sample < start < s.end_sample for s in spans)
        assert end in inside[1] or any(s.start_sample < end < s.end_sample for s in spans)


def assert_overlaps_only_where_there_was_no_pause(
    spans: tuple[SpeechSpan, ...],
    windows: list[Window],
    starts: list[int],
    ends: list[int],
    overlap_s: float,
) -> None:
    for at in range(len(windows)):
        begins_after_a_pause = any(span.start_sample == starts[at] for span in spans)
        if begins_after_a_pause:
            assert at == 0 or any(span.end_sample == ends[at - 1] for span in spans)
        else:
            assert abs(ends[at - 1] - starts[at] - overlap_s * RATE) <= 1
            assert any(s.start_sample < starts[at] and ends[at - 1] <= s.end_sample for s in spans)


def test_max_pause_s_decides_whether_a_pause_ends_the_window() -> None:
    spans = in_seconds((1, 4), (6, 9), (11.1, 13))
    assert edges(packed(spans, 20, BARE)) == [(1, 9), (11.1, 13)]


def test_speech_that_does_not_fit_begins_the_next_window() -> None:
    spans = in_seconds((0, 12), (12.5, 24), (25, 31), (31.5, 40))
    assert edges(packed(spans, 40, BARE)) == [(0, 24), (25, 40)]


def test_speech_of_exactly_thirty_seconds_is_one_window() -> None:
    assert edges(packed(in_seconds((2, 32)), 40)) == [(2, 32)]


@settings(max_examples=100, deadline=None)
@given(
    spans=scripts(),
    silence=st.integers(0, 60_000),
    margin_s=st.sampled_from([0.1, 0.5, 2.0]),
    sizes=st.lists(st.integers(500, 100_000), min_size=1, max_size=3),
    lag=st.integers(0, 40_000),
)
def test_margin_s_keeps_silence_that_no_other_window_has(
    spans: tuple[SpeechSpan, ...], silence: int, margin_s: float, sizes: list[int], lag: int
) -> None:
    n_samples = (spans[-1].end_sample if spans else 0) + silence
    sound = np.random.default_rng(1).standard_normal(n_samples).astype(np.float32)
    wide = PackingOptions(3.3, 1.5, 0.33, margin_s)
    detector = ScriptedDetector(spans, lag)
    windows = list(windows_by_speech(blocked(sound, sizes), detector, wide))
    bare = list(windows_by_speech([sound], detector, replace(wide, margin_s=0)))
    assert edges(list(windows_by_speech([sound], detector, wide))) == edges(windows)
    assert len(windows) == len(bare)
    for w, b in zip(windows, bare, strict=True):
        start, end = w.start_sample, w.start_sample + len(w.samples)
        bare_start, bare_end = b.start_sample, b.start_sample + len(b.samples)
        assert 0 <= bare_start - start <= margin_s * RATE
        assert 0 <= end - bare_end <= margin_s * RATE
        assert end - start <= 3.3 * RATE
        np.testing.assert_array_equal(w.samples, sound[start:end])
        if start < bare_start:
            assert not any(s.start_sample < bare_start and s.end_sample > start for s in spans)
    for (w, after), (b, b_after) in zip(pairwise(windows), pairwise(bare), strict=True):
        assert w.end_s <= after.start_s or b.end_s > b_after.start_s


@pytest.mark.parametrize("speech", [(0.0, 3.0), (0.7, 3.5), (0.3, 4.0)])
def test_a_short_recording_with_little_silence_is_one_window_as_it_is(
    speech: tuple[float, float],
) -> None:
    n_s = speech[1] + 0.7
    [(start, end)] = edges(packed(in_seconds(speech), n_s))
    assert start == 0 and end == pytest.approx(n_s)


def test_speech_without_a_pause_is_cut_at_its_quietest_moment_with_overlap_s() -> None:
    sound = np.random.default_rng(0).standard_normal(50 * RATE).astype(np.float32)
    sound[26 * RATE : int(26.4 * RATE)] *= 0.01
    detector = ScriptedDetector(in_seconds((0, 50)))
    first, second = windows_by_speech([sound], detector)
    assert first.end_s == pytest.approx(26.2 + 1, abs=0.03)
    assert second.start_s == pytest.approx(26.2 - 1, abs=0.03)
    assert first.end_s - second.start_s == 2
    assert second.end_s == 50


def test_a_window_is_emitted_during_the_silence_after_it() -> None:
    seconds_read = 0

    def silence() -> Iterator[Samples]:
        nonlocal seconds_read
        for _ in range(60):
            seconds_read += 1
            yield np.zeros(RATE, np.float32)

    detector = ScriptedDetector(in_seconds((2, 5)), lag=RATE)
    window = next(windows_by_speech(silence(), detector, BARE))
    assert (window.start_s, window.end_s) == (2, 5)
    assert seconds_read <= 10


@pytest.mark.parametrize("speech", ["on and on", "seldom", "never"])
def test_at_most_three_windows_are_buffered(speech: str) -> None:
    spans = {
        "on and on": in_seconds((0, 600)),
        "seldom": in_seconds((10, 12), (500, 520)),
        "never": (),
    }[speech]
    block = np.ones(30 * RATE, np.float32)
    tracemalloc.start()
    try:
        for _ in windows_by_speech(
            (block for _ in range(20)), ScriptedDetector(spans, lag=8 * RATE)
        ):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * block.nbytes


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_s", 31), ("max_s", 0.5), ("max_pause_s", -1), ("overlap_s", 11), ("margin_s", -1)],
)
def test_an_impossible_option_is_refused(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        PackingOptions(**{name: value})
