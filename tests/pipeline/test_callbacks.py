"""Laws of callbacks: they may block and call the model, and delay no other recording."""

from __future__ import annotations

import io
import threading
from concurrent.futures import Future
from queue import SimpleQueue

import pytest
from scripted_room import Room
from scripted_speech import SOON_S, sentence, tone

from batched_whisper.pipeline.reader_pool import MAX_WORKERS
from batched_whisper.types import Transcript


@pytest.mark.parametrize("way", ["call", "map", "segments", "on_segment"])
def test_a_callback_may_transcribe_however_many_do_it_at_a_time(room: Room, way: str) -> None:
    told: SimpleQueue[str] = SimpleQueue()
    transcribe, together = room.whisper.transcribe, threading.Barrier(MAX_WORKERS, timeout=SOON_S)

    def more(_: Future[Transcript]) -> None:
        together.wait()
        if way == "map":
            told.put(next(transcribe.map([tone(1)], order_outputs=False)).text)
        elif way == "segments":
            told.put(next(transcribe.segments(tone(1))).text.strip())
        else:
            options = {"on_segment": lambda _: None} if way == "on_segment" else {}
            told.put(transcribe(tone(1), **options).text)

    room.listener.hold = 0  # a future that is done calls back at once
    for _ in range(MAX_WORKERS):
        room.whisper.submit(tone(0)).add_done_callback(more)
    room.listener.go.set()
    assert [told.get(timeout=SOON_S) for _ in range(MAX_WORKERS)] == [sentence(1)] * MAX_WORKERS


class Unreadable(io.BytesIO):
    """A file that is no recording; reading it waits for ``opened``."""

    def __init__(self, opened: threading.Event) -> None:
        super().__init__(b"this is not a recording")
        self.opened = opened

    def read(self, size: int | None = -1) -> bytes:
        self.opened.wait(SOON_S)
        return super().read(size)


@pytest.mark.parametrize("fails", [False, True])
def test_no_recording_waits_for_callbacks_that_do_not_return(room: Room, fails: bool) -> None:
    go, opened, begun = threading.Event(), threading.Event(), threading.Semaphore(0)

    def wait(_: Future[Transcript]) -> None:
        begun.release()
        go.wait(SOON_S)

    room.listener.hold = 0  # none is done, and calls back at once, before all are submitted
    for _ in range(2 * MAX_WORKERS):
        audio = Unreadable(opened) if fails else tone(0)
        room.whisper.submit(audio).add_done_callback(wait)
    room.listener.go.set()
    opened.set()
    for _ in range(MAX_WORKERS):
        assert begun.acquire(timeout=SOON_S)
    assert room.hear(tone(1)).text == sentence(1)
    assert room.whisper.submit(tone(2)).result(SOON_S).text == sentence(2)
    go.set()


def test_callbacks_are_called_in_their_order_before_it_is_closed(room: Room) -> None:
    made = list[int]()
    future = room.whisper.submit(tone(0))
    for number in range(20):
        future.add_done_callback(lambda _, number=number: made.append(number))  # type: ignore[misc]
    room.close()
    assert made == list(range(20))


def test_who_cancels_or_comes_late_is_called_back_at_once(room: Room) -> None:
    threads = list[threading.Thread]()
    room.listener.hold = 0
    cancelled = room.whisper.submit(tone(0))
    cancelled.add_done_callback(lambda _: threads.append(threading.current_thread()))
    assert cancelled.cancel()
    room.listener.go.set()
    done = room.whisper.submit(tone(1))
    done.result(SOON_S)
    done.add_done_callback(lambda _: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()] * 2


def test_a_callback_that_fails_is_reported_and_the_result_is_there(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    future = room.whisper.submit(tone(0))
    future.add_done_callback(lambda _: 1 // 0)
    assert future.result(SOON_S).text == sentence(0)
    room.close()
    assert "exception calling callback" in caplog.text


def test_a_callback_may_close_the_model(room: Room) -> None:
    closed = threading.Event()

    def close(_: Future[Transcript]) -> None:
        room.close()
        closed.set()

    room.whisper.submit(tone(0)).add_done_callback(close)
    assert closed.wait(SOON_S)
