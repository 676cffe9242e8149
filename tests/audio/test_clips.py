"""Laws of clips: each is cut as if it were a recording, at the times of the whole one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_recordings import assert_same, cut

from batched_whisper.audio.clips import WHOLE_RECORDING, Clip, ClipCutter, clips_from_times
from batched_whisper.audio.windows import PlainCutter
from batched_whisper.types import Samples, Window

RATE = 16_000
LONGEST_S = 1.5


class Cutter(PlainCutter):
    def __init__(self) -> None:
        super().__init__(LONGEST_S)


def noise(n_samples: int) -> Samples:
    return np.random.default_rng(7).standard_normal(n_samples).astype(np.float32)


def clipped(sound: Samples, clips: tuple[Clip, ...], block: int) -> list[Window]:
    cutter = ClipCutter(clips, Cutter)
    found = list[Window]()
    for start in range(0, len(sound), block):
        settled = cutter.watermark_sample
        new = list(cutter.add(sound[start : start + block]))
        assert all(window.start_sample >= settled for window in new)
        assert cutter.watermark_sample >= settled
        found += new
    return [*found, *cutter.end()]


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.integers(1, 8 * RATE),
    edges=st.lists(st.integers(0, 9 * RATE), min_size=1, max_size=6, unique=True).map(sorted),
    block=st.integers(500, 3 * RATE),
)
def test_clip_cutter_cuts_a_clip_like_a_separate_recording(
    n_samples: int, edges: list[int], block: int
) -> None:
    sound = noise(n_samples)
    clips = clips_from_times([edge / RATE for edge in edges])
    expected = list[Window]()
    for clip in clips:
        for window in cut([sound[clip.start_sample : clip.end_sample]], LONGEST_S):
            start = clip.start_sample + window.start_sample
            expected.append(replace(window, index=len(expected), start_sample=start))
    assert_same(clipped(sound, clips, block), expected)


def test_whole_recording_is_a_single_clip() -> None:
    sound = noise(5 * RATE)
    assert_same(clipped(sound, WHOLE_RECORDING, RATE), list(cut([sound], LONGEST_S)))


def test_clips_from_times_alternates_starts_and_ends_and_the_last_end_is_optional() -> None:
    assert clips_from_times([0, 1.5]) == (Clip(0, 24_000),)
    assert clips_from_times([0.5, 1, 2]) == (Clip(8_000, 16_000), Clip(32_000, None))


def test_adjacent_clips_stay_separate() -> None:
    found = clipped(noise(2 * RATE), clips_from_times([0, 1, 1, 2]), RATE)
    assert [(w.start_s, w.end_s) for w in found] == [(0, 1), (1, 2)]
