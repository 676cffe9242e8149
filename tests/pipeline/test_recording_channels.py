"""Laws of recordings with separate channels, and of clips, on the scripted engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scripted_room import Room
from scripted_speech import RATE, sentence, tone

from batched_whisper.types import Samples, Segment, Transcript

if TYPE_CHECKING:
    from conftest import LoadedModel


def stereo(left: Samples, right: Samples) -> Samples:
    n_samples = max(len(left), len(right))
    both = np.zeros((2, n_samples), np.float32)
    both[0, : len(left)], both[1, : len(right)] = left, right
    return both


def said(transcript: Transcript, channel: int) -> list[tuple[float, float, str]]:
    return [(s.start, s.end, s.text) for s in transcript.segments if s.channel == channel]


def test_a_channel_says_what_it_would_say_alone(room: Room) -> None:
    left, right = tone(1, 40), np.concatenate([np.zeros(20 * RATE, np.float32), tone(3, 20)])
    together = room.hear(stereo(left, right), channels="split")
    for channel, sound in enumerate((left, right)):
        alone = room.hear(sound)
        assert said(together, channel) == [(s.start, s.end, s.text) for s in alone.segments]
        languages = {w.language for w in together.windows if w.channel == channel}
        assert languages == {alone.language}


def test_segments_come_in_the_order_of_time_numbered_across_channels(room: Room) -> None:
    found = room.hear(stereo(tone(0, 40), tone(2, 32)), channels="split")
    order = [(segment.start, segment.channel) for segment in found.segments]
    assert order == sorted(order)  # type: ignore[type-var]
    assert [segment.id for segment in found.segments] == list(range(len(found.segments)))
    assert {segment.channel for segment in found.segments} == {0, 1}
    assert found.text == " ".join(segment.text.strip() for segment in found.segments)


def test_the_channels_are_decoded_in_the_same_batches(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(base_model, monkeypatch, max_batch_size=2, wait_ms=60_000)  # both start together
    room.listener.scripts[0] = room.listener.script(" and so on" * 9)
    room.listener.scripts[2] = room.listener.script(" on and on" * 9)
    together = set[int]()
    room.listener.before_step = lambda rows: together.add(len(rows))
    room.hear(stereo(tone(0), tone(2)), channels="split", language="en", temperature_increment=0.0)
    assert max(together) == 2
    room.close()


def test_a_mono_recording_has_one_channel(room: Room) -> None:
    alone, split = room.hear(tone(5, 40)), room.hear(tone(5, 40), channels="split")
    assert {segment.channel for segment in split.segments} == {0}
    assert split.text == alone.text
    assert {segment.channel for segment in alone.segments} == {None}


def test_mixed_channels_are_heard_as_one(room: Room) -> None:
    found = room.hear(stereo(tone(4), tone(4)))
    assert [segment.channel for segment in found.segments] == [None]
    assert found.text == sentence(4)


# --- clips ----------------------------------------------------------------------------------------


def parts(transcript: Transcript) -> list[tuple[float, float, str]]:
    return [(s.start, s.end, s.text.strip()) for s in transcript.segments]


@pytest.mark.parametrize("channels", ["mix", "split"])
def test_only_the_clips_are_heard_at_the_times_of_the_recording(room: Room, channels: str) -> None:
    sound = np.concatenate([tone(number, 10) for number in range(6)])
    found = room.hear(sound, clip_timestamps=[11, 19, 32, 38.5], channels=channels, language="en")
    assert parts(found) == [(11, 19, sentence(1)), (32, 38.5, sentence(3))]
    assert set(room.listener.encoded) == {1, 3}
    assert found.duration == 38.5


def test_the_last_clip_may_go_on_to_the_end(room: Room) -> None:
    sound = np.concatenate([tone(number, 10) for number in range(3)])
    found = room.hear(sound, clip_timestamps=[20], language="en")
    assert parts(found) == [(20, 30, sentence(2))]
    assert found.duration == 30


def test_clips_after_the_end_are_told(room: Room) -> None:
    found = room.hear(tone(0, 3), clip_timestamps=[1, 2, 5, 6])
    assert parts(found) == [(1, 2, sentence(0))]
    assert "after the end" in found.warnings[0]


def test_clips_of_channels_are_told_segment_by_segment_too(room: Room) -> None:
    told = list[Segment]()
    sound = stereo(tone(0, 60), tone(2, 60))
    options = {"channels": "split", "clip_timestamps": [5, 10, 40, 45]}
    found = room.hear(sound, on_segment=told.append, **options)
    assert tuple(told) == found.segments
    assert [(s.start, s.channel) for s in told] == [(5, 0), (5, 1), (40, 0), (40, 1)]
