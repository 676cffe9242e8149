"""Laws of windowing: channels stay in step, only clips are cut, and no audio is read in vain."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from scripted_speech import RATE, tone
from whole_recordings import cut

from batched_whisper.audio.silero import SileroDetector
from batched_whisper.config.options import DecodingOptions
from batched_whisper.pipeline.windowing import ChannelWindow, WindowSource
from batched_whisper.types import Channels, Samples


def windows(source: WindowSource, blocks: Iterator[Channels]) -> list[ChannelWindow]:
    return [each for found in source.read(blocks) for each in found.windows]


def source(**options: object) -> WindowSource:
    return WindowSource(DecodingOptions.of(**{"vad": False, **options}), SileroDetector)


def in_blocks(sound: Samples, seconds: int = 30) -> Iterator[Channels]:
    for start in range(0, sound.shape[-1], seconds * RATE):
        yield np.atleast_2d(sound)[:, start : start + seconds * RATE]


def test_each_channel_is_cut_as_if_it_were_alone() -> None:
    left = np.concatenate([tone(1, 28), np.zeros(RATE, np.float32), tone(1, 50)])
    right = np.concatenate([tone(2, 23), np.zeros(RATE, np.float32), tone(2, 55)])
    found = windows(source(), in_blocks(np.stack([left, right])))
    for channel, sound in enumerate((left, right)):
        mine = [each.window for each in found if each.channel == channel]
        alone = list(cut([sound]))
        assert [w.index for w in mine] == list(range(len(alone)))
        assert [w.start_sample for w in mine] == [w.start_sample for w in alone]
        for one, other in zip(mine, alone, strict=True):
            np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("vad", [False, True])
def test_nothing_is_read_beyond_the_last_clip(vad: bool) -> None:
    n_read = itertools.count()

    def endless() -> Iterator[Channels]:
        for _ in n_read:
            yield tone(3, 10)[None]

    clips = source(clip_timestamps=(12, 15, 31, 33), vad=vad)
    found = windows(clips, endless())
    assert next(n_read) == 4
    assert clips.duration_s == 33
    if not vad:
        assert [(w.window.start_s, w.window.end_s) for w in found] == [(12, 15), (31, 33)]


def test_a_clip_after_the_end_has_no_window_and_a_warning() -> None:
    clips = source(clip_timestamps=(1, 2, 7, 9))
    assert len(windows(clips, in_blocks(tone(0, 5)))) == 1
    assert clips.duration_s == 5
    [warning] = clips.warnings
    assert "7 s" in warning


def test_a_channel_that_is_silent_for_hours_holds_no_sound_of_the_other() -> None:
    minute = np.stack([np.tile(tone(0, 1), 60), np.zeros(60 * RATE, np.float32)])
    tracemalloc.start()
    try:
        n_windows = [0, 0]
        for found in source().read(minute for _ in range(20)):
            for each in found.windows:
                n_windows[each.channel] += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_windows[0] >= 40
    assert n_windows[1] >= 40
    assert peak < 3 * minute.nbytes


def test_what_is_settled_never_goes_back_and_no_window_begins_before_it() -> None:
    sound = np.stack([tone(0, 70), np.zeros(70 * RATE, np.float32)])
    settled = (0.0, 0.0)
    for found in source().read(in_blocks(sound, 7)):
        for each in found.windows:
            assert each.window.start_s >= settled[each.channel]
        assert all(new >= old for new, old in zip(found.watermarks_s, settled, strict=True))
        settled = found.watermarks_s  # type: ignore[assignment]
    assert settled == (70, 70)
