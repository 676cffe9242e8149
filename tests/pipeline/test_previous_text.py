"""Laws of windows with the previous text as prompt, on the scripted engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripted_room import Room
from scripted_speech import SOON_S, sentence, tone

from batched_whisper.audio.decode import AudioStream
from batched_whisper.audio.features import log_mel
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import Closed, EngineError
from batched_whisper.pipeline import decode_requests
from batched_whisper.pipeline.reader_pool import MAX_WORKERS
from batched_whisper.pipeline.recording_job import RecordingJob

if TYPE_CHECKING:
    from conftest import LoadedModel

TOLD: dict[str, Any] = {"condition_on_previous_text": True, "language": "en"}


def sentences(*numbers: int) -> dict[str, Any]:
    """Each is a window of its own, by being a clip."""
    edges = [at for i in range(len(numbers)) for at in (i, i + 1)]
    return {"audio": np.concatenate([tone(n) for n in numbers]), "clip_timestamps": edges}


def long_sentences(*numbers: int) -> dict[str, Any]:
    """Each is a window of its own, by being long."""
    return {"audio": np.concatenate([tone(number, 25) for number in numbers])}


def tokens(room: Room, *numbers: int) -> tuple[int, ...]:
    return tuple(t for n in numbers for t in room.tokenizer.encode(" " + sentence(n)))


def prompts(room: Room) -> list[tuple[int, ...]]:
    """Return each window's prompt, without the token before it and the start after it."""
    assert all(start[-1] == room.tokenizer.sot for start in room.listener.starts)
    assert all(s[0] == room.tokenizer.sot_prev for s in room.listener.starts if len(s) > 1)
    return [start[1:-1] for start in room.listener.starts]


def test_a_window_is_told_what_all_before_it_said(room: Room) -> None:
    found = room.hear(**sentences(0, 1, 2), **TOLD)
    assert [window.text.strip() for window in found.windows] == [sentence(n) for n in (0, 1, 2)]
    assert prompts(room) == [(), tokens(room, 0), tokens(room, 0, 1)]


def test_without_the_option_none_is(room: Room) -> None:
    room.hear(**sentences(0, 1, 2), language="en")
    assert prompts(room) == [()] * 3


def test_the_callers_prompt_comes_first(room: Room) -> None:
    room.hear(**sentences(0, 1), prompt="Mr. Quilter", **TOLD)
    own = tuple(room.tokenizer.encode(" Mr. Quilter"))
    assert prompts(room) == [own, own + tokens(room, 0)]


def test_timestamps_are_told_too(room: Room) -> None:
    begin = room.tokenizer.timestamp_begin
    said = (begin, *room.tokenizer.encode(" one"), begin + 60)
    room.listener.scripts[0] = Script(said)
    room.hear(**sentences(0, 1), timestamps=True, **TOLD)
    assert prompts(room) == [(), said]


def test_no_more_is_told_than_half_the_context_and_the_text_has_the_rest(room: Room) -> None:
    long = tuple(room.tokenizer.encode(" word" * 150))
    room.listener.scripts[0] = Script(long)
    found = room.hear(**sentences(0, 0, 0), temperature_increment=0.0, **TOLD)
    assert prompts(room) == [(), long, (long + long)[-223:]]
    assert [len(window.tokens) for window in found.windows] == [150] * 3


@pytest.mark.parametrize(("hottest", "is_told"), [(0.4, True), (0.6, False)])
def test_what_was_only_said_at_a_high_temperature_is_forgotten(
    room: Room, hottest: float, is_told: bool
) -> None:
    """And all before it; silence in between changes nothing."""
    unlikely = tuple(room.tokenizer.encode(" perhaps"))
    room.listener.scripts[1] = Script(unlikely, logprob=-1.8)
    room.listener.scripts[2] = Script(unlikely, logprob=-1.8, no_speech_prob=0.9)
    options = {"temperature": hottest, "temperature_increment": 0.0, **TOLD}
    room.hear(**sentences(0, 1), temperature=0.0, temperature_increment=0.0, **TOLD)
    del room.listener.starts[:]
    found = room.hear(**sentences(1, 2, 0), **options)
    assert [window.temperature for window in found.windows] == [hottest] * 3
    assert prompts(room)[-1] == (unlikely if is_told else ())


def test_each_channel_is_told_its_own(room: Room) -> None:
    left, right = sentences(0, 1, 0), sentences(2, 3, 2)
    both = np.stack([left.pop("audio"), right["audio"]])
    room.hear(both, channels="split", **left, **TOLD)
    expected = [
        *((), tokens(room, 0), tokens(room, 0, 1)),
        *((), tokens(room, 2), tokens(room, 2, 3)),
    ]
    assert sorted(prompts(room)) == sorted(expected)


# --- many at a time -------------------------------------------------------------------------------


def numbered(n: int) -> tuple[int, ...]:
    """Return the text of recording ``n``."""
    return (n % 8, n // 8, (n + 3) % 8)


def test_many_such_recordings_share_batches_and_say_what_each_says_alone(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than there are threads; the engine begins when each has read its windows."""
    room = Room(base_model, monkeypatch, max_batch_size=50)
    n_recordings, n_together, brought = 30, list[int](), threading.Semaphore(0)
    run = RecordingJob.run

    def told(job: RecordingJob) -> None:
        run(job)
        brought.release()

    def hold(rows: Any) -> None:
        n_together.append(len(rows))
        assert room.listener.go.wait(SOON_S)

    monkeypatch.setattr(RecordingJob, "run", told)
    room.listener.before_step = hold
    futures = [room.whisper.submit(**sentences(*numbered(n)), **TOLD) for n in range(n_recordings)]
    for _ in range(n_recordings):
        assert brought.acquire(timeout=SOON_S)
    room.listener.go.set()
    found = [future.result(SOON_S) for future in futures]
    for n, transcript in enumerate(found):
        assert [w.text.strip() for w in transcript.windows] == [sentence(k) for k in numbered(n)]
    assert sum(n_together) / len(n_together) > 4 * MAX_WORKERS
    assert set(prompts(room)) == {
        before
        for n in range(n_recordings)
        for before in ((), tokens(room, *numbered(n)[:1]), tokens(room, *numbered(n)[:2]))
    }
    room.close()


def test_a_queue_of_one_place_is_enough(
    base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(base_model, monkeypatch, max_batch_size=2, max_queue_size=1)
    futures = [
        room.whisper.submit(**sentences(*numbered(n)), **(TOLD if n % 2 else {})) for n in range(8)
    ]
    for n, future in enumerate(futures):
        assert future.result(SOON_S).text == " ".join(map(sentence, numbered(n)))
    room.close()


def test_closing_answers_what_was_accepted(room: Room) -> None:
    futures = [room.whisper.submit(**sentences(*numbered(n)), **TOLD) for n in range(6)]
    room.close()
    assert [f.result(0).text for f in futures] == [
        " ".join(map(sentence, numbered(n))) for n in range(6)
    ]
    with pytest.raises(Closed):
        room.whisper.submit(tone(0), **TOLD)


def test_a_failure_ends_that_recording_alone(room: Room) -> None:
    room.listener.fails = frozenset([5])
    bad, good = (room.whisper.submit(**sentences(0, n, 1), **TOLD) for n in (5, 2))
    with pytest.raises(EngineError, match="tone 5"):
        bad.result(SOON_S)
    assert good.result(SOON_S).text == " ".join(map(sentence, (0, 2, 1)))


def test_one_given_up_is_closed_and_not_read_on_and_lets_others_go_on(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Event()
    monkeypatch.setattr(AudioStream, "close", lambda stream: closed.set())
    room.listener.hold = 3
    given_up = room.whisper.submit(**long_sentences(*[3] * 12), **TOLD)
    assert room.listener.held.wait(SOON_S)
    other = room.whisper.submit(**sentences(1, 2), **TOLD)
    assert given_up.cancel()
    assert closed.wait(SOON_S)
    room.listener.go.set()
    assert other.result(SOON_S).text == f"{sentence(1)} {sentence(2)}"
    room.close()
    assert room.listener.encoded.count(3) == 1


def test_no_more_is_read_than_is_soon_needed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    made, left = list[Any](), threading.Semaphore(0)
    run = RecordingJob.run

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(log_mel(*arguments, **options))
        return made[-1]

    def told(job: RecordingJob) -> None:
        run(job)
        left.release()

    monkeypatch.setattr(decode_requests, "log_mel", counted)
    monkeypatch.setattr(RecordingJob, "run", told)
    room.listener.hold = 0
    future = room.whisper.submit(**long_sentences(*(n % 8 for n in range(12))), **TOLD)
    assert left.acquire(timeout=SOON_S)  # the thread is given back while the first one is decoded
    assert len(made) <= 4  # of twelve: that one, two that wait, and what the same block brought
    room.listener.go.set()
    assert len(future.result(SOON_S).windows) == 12
    assert prompts(room)[-1] == tokens(room, *range(8), *range(3))[-223:]
