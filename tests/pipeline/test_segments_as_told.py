"""Laws of segments that are emitted while later windows are still being decoded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scripted_room import Room
from scripted_speech import SOON_S, sentence, tone

from batched_whisper.errors import CallbackError, EngineError, OptionError
from batched_whisper.types import Samples, Segment, Transcript

SOUND = np.concatenate([tone(number) for number in (0, 1, 2, 3, 4)])
STEREO = np.stack([SOUND, SOUND[::-1]])
CLIPS = {"clip_timestamps": (0, 1, 1, 2, 2, 5)}  # three windows


def by_callback(room: Room, audio: Samples, **options: Any) -> list[Segment]:
    told = list[Segment]()
    room.hear(audio, on_segment=told.append, **options)
    return told


def by_iterator(room: Room, audio: Samples, **options: Any) -> list[Segment]:
    return list(room.whisper.transcribe.segments(audio, **options))


def by_async_iterator(room: Room, audio: Samples, **options: Any) -> list[Segment]:
    async def main() -> list[Segment]:
        return [each async for each in room.whisper.transcribe.segments.aio(audio, **options)]

    return asyncio.run(main())


@pytest.mark.parametrize("way", [by_callback, by_iterator, by_async_iterator])
@pytest.mark.parametrize(
    ("audio", "options"),
    [
        (SOUND, {}),
        (STEREO, {"channels": "split"}),
        (SOUND, {"word_timestamps": True}),
        (SOUND, {"condition_on_previous_text": True}),
        (STEREO, {"channels": "split", "condition_on_previous_text": True}),
    ],
)
def test_what_is_told_is_what_the_transcript_has(
    room: Room, way: Callable[..., list[Segment]], audio: Samples, options: dict[str, Any]
) -> None:
    options = {**CLIPS, **options}
    expected = room.hear(audio, **options)
    assert tuple(way(room, audio, **options)) == expected.segments
    assert len(expected.segments) >= 3


def test_a_segment_is_told_while_later_windows_are_decoded(room: Room) -> None:
    room.listener.hold = 3
    sound = np.concatenate([tone(1, 25), tone(3, 25)])
    segments = room.whisper.transcribe.segments(sound, language="en")
    assert next(segments).text.strip() == sentence(1)
    assert room.listener.held.wait(SOON_S)
    room.listener.go.set()
    assert [segment.text.strip() for segment in segments] == [sentence(3)]


def test_the_result_comes_after_the_last_call(room: Room) -> None:
    entered, go, told = threading.Event(), threading.Event(), list[Segment]()

    def slow(segment: Segment) -> None:
        entered.set()
        assert go.wait(SOON_S)
        told.append(segment)

    slow_one = room.whisper.submit(tone(0), on_segment=slow)
    assert entered.wait(SOON_S)
    assert room.hear(tone(1)).text == sentence(1)  # nobody else waits for it
    assert not slow_one.done()
    go.set()
    found = slow_one.result(SOON_S)
    assert tuple(told) == found.segments


def test_an_error_of_the_callers_own_function_ends_the_recording(room: Room) -> None:
    n_calls = 0

    def fail(segment: Segment) -> None:
        nonlocal n_calls
        n_calls += 1
        raise LookupError("no such table")

    with pytest.raises(CallbackError, match=r"LookupError.*no such table") as caught:
        room.hear(SOUND, on_segment=fail, **CLIPS)
    assert isinstance(caught.value.__cause__, LookupError)
    assert n_calls == 1
    assert room.hear(tone(2)).text == sentence(2)


def test_a_callback_may_transcribe(room: Room) -> None:
    inner = list[Transcript]()
    room.hear(tone(0), on_segment=lambda segment: inner.append(room.hear(tone(1))))
    assert [transcript.text for transcript in inner] == [sentence(1)]


@pytest.mark.parametrize("way", [by_callback, by_iterator, by_async_iterator])
def test_the_calls_error_is_raised(room: Room, way: Callable[..., list[Segment]]) -> None:
    room.listener.fails = frozenset([3])
    with pytest.raises(EngineError, match="tone 3"):
        way(room, np.concatenate([tone(1, 25), tone(3, 25)]))
    with pytest.raises(OptionError):
        way(room, tone(1), no_such_option=1)


def test_leaving_the_iterator_gives_the_recording_up(room: Room) -> None:
    room.listener.hold = 3
    sound = np.concatenate([tone(1, 25), *(tone(3, 25) for _ in range(20))])
    segments = room.whisper.transcribe.segments(sound, language="en")
    next(segments)
    assert room.listener.held.wait(SOON_S)
    segments.close()
    room.listener.go.set()
    room.close()
    assert len(room.listener.encoded) < 10


def test_leaving_the_async_iterator_gives_the_recording_up(room: Room) -> None:
    room.listener.hold = 3
    sound = np.concatenate([tone(1, 25), *(tone(3, 25) for _ in range(20))])

    async def main() -> None:
        segments = room.whisper.transcribe.segments.aio(sound, language="en")
        await segments.__anext__()
        assert await asyncio.to_thread(room.listener.held.wait, SOON_S)
        await segments.aclose()

    asyncio.run(main())
    room.listener.go.set()
    room.close()
    assert len(room.listener.encoded) < 10


def test_a_callback_may_close_the_model(room: Room) -> None:
    found = room.whisper.submit(tone(0), on_segment=lambda segment: room.whisper.close())
    assert found.result(SOON_S).text == sentence(0)
