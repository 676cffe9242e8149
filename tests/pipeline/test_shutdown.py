"""Laws of the end of a loaded model: all callers get a result, and no thread is left."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from scripted_program import run_program
from scripted_room import Room
from scripted_speech import SOON_S, sentence, tone

from batched_whisper.backends import local
from batched_whisper.whisper import Whisper

if TYPE_CHECKING:
    from conftest import LoadedModel


@pytest.fixture
def narrow(base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Room:
    """One window at a time, and no more than two recordings open."""
    monkeypatch.setattr(local, "MIN_OPEN_RECORDINGS", 2)
    return Room(base_model, monkeypatch, max_batch_size=1)


# --- by close -------------------------------------------------------------------------------------


def test_what_was_accepted_is_answered_though_a_callback_closes_it(narrow: Room) -> None:
    narrow.listener.hold = 0
    close = lambda *_: narrow.close()  # noqa: E731
    first = narrow.whisper.submit(tone(0), on_segment=close)
    assert narrow.listener.held.wait(SOON_S)
    others = [narrow.whisper.submit(tone(1 + n % 7)) for n in range(8)]
    narrow.listener.go.set()
    assert first.result(SOON_S).text == sentence(0)
    assert [other.result(SOON_S).text for other in others] == [
        sentence(1 + n % 7) for n in range(8)
    ]


def test_who_closes_it_after_a_callback_did_waits_until_it_is_closed(narrow: Room) -> None:
    closing = threading.Event()
    narrow.listener.hold = 0

    def close(_: object) -> None:
        narrow.close()
        closing.set()

    found = narrow.whisper.submit(tone(0), on_segment=close)
    others = [narrow.whisper.submit(tone(1)) for _ in range(8)]
    narrow.listener.go.set()
    assert closing.wait(SOON_S)
    narrow.close()
    assert all(future.done() for future in (found, *others))
    assert narrow.listener.engine.closed


def test_a_thread_with_the_name_of_one_of_its_own_waits_like_any_other(narrow: Room) -> None:
    futures = [narrow.whisper.submit(tone(1)) for _ in range(8)]
    closer = threading.Thread(target=narrow.close, name="whisper-audio_0")
    closer.start()
    closer.join(SOON_S)
    assert all(future.done() for future in futures)
    assert [future.result().text for future in futures] == [sentence(1)] * 8


# --- by garbage collection ------------------------------------------------------------------------


def closed_event(room: Room, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    closed, close = threading.Event(), room.listener.engine.close
    monkeypatch.setattr(room.listener.engine, "close", lambda: (close(), closed.set()))
    return closed


def test_one_that_is_dropped_is_closed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, before = closed_event(room, monkeypatch), set(threading.enumerate())
    room.whisper.load()
    own = set(threading.enumerate()) - before
    assert room.hear(tone(0)).text == sentence(0)
    drop(room)
    assert closed.wait(SOON_S)
    for thread in own:
        thread.join(SOON_S)
    assert not any(thread.is_alive() for thread in own)


def test_one_that_is_dropped_answers_what_it_accepted(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = closed_event(room, monkeypatch)
    room.listener.hold = 3
    futures = [room.whisper.submit(tone(3, seconds)) for seconds in (1, 70, 2)]
    assert room.listener.held.wait(SOON_S)
    drop(room)
    room.listener.go.set()
    assert sentence(3) in {future.result(SOON_S).text for future in futures}
    assert closed.wait(SOON_S)


def test_one_of_which_only_a_call_is_left_is_not_closed(room: Room) -> None:
    transcribe = room.whisper.transcribe
    segments = transcribe.segments(tone(0))
    drop(room)
    assert [segment.text.strip() for segment in segments] == [sentence(0)]
    assert transcribe(tone(1)).text == sentence(1)


def drop(room: Room) -> None:
    """Drop a room's model, and replace it with one that was never loaded."""
    dropped: weakref.ref[Any] = weakref.ref(room.whisper)
    room.whisper = Whisper("base")
    assert dropped() is None
    gc.collect()


# --- by the end of the process --------------------------------------------------------------------

BUSY = """
decoding = threading.Event()
listener.before_step = lambda rows: decoding.set()
sound = tone(0, 100)
futures = [whisper.submit(sound) for _ in range(60)]
listener.engine.close = lambda: print(len(listener.encoded))
assert decoding.wait(60)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("sys.exit(3)", 3), ("futures.clear(); whisper = None", 0)],
)
def test_a_process_that_ends_while_it_decodes_gives_up_and_has_its_own_exit_code(
    end: str, code: int, base_model: LoadedModel
) -> None:
    ended = run_program(BUSY + end, base_model)
    assert (ended.returncode, ended.stderr) == (code, "")
    n_encoded, *rest = ended.stdout.splitlines()
    assert rest == ["engine closed"]
    assert int(n_encoded) < 60 * 4


def test_threads_that_outlive_the_main_one_are_answered(base_model: LoadedModel) -> None:
    program = """
    def go_on():
        threading.main_thread().join()
        print(whisper.transcribe(tone(5, 400)).text.count(sentence(5)))
        print(*(len(each.segments) for each in whisper.transcribe.map([tone(1), tone(2)])))

    threading.Thread(target=go_on).start()
    """
    ended = run_program(program, base_model)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split("\n")[1:] == ["1 1", "engine closed", ""]


NO_THREADS = """
import atexit
from batched_whisper.errors import CallbackError

def refuse(_):
    raise RuntimeError("can't start new thread")

def last():
    threading.Thread.start = refuse
    print(whisper.transcribe(tone(1)).text == sentence(1), flush=True)
    print(whisper.submit(tone(2)).result().text == sentence(2), flush=True)
    heard = []
    whisper.transcribe(tone(3), on_segment=lambda segment: heard.append(segment.text.strip()))
    print(heard == [sentence(3)], flush=True)
    try:
        whisper.transcribe(tone(5, 400))
    except Closed as error:  # where the one that brings it would have to read it alone
        assert "no thread can be started" in str(error)
    try:
        whisper.transcribe(tone(4), on_segment=lambda _: whisper.transcribe(tone(1)))
    except CallbackError as error:
        print("no thread can be started" in str(error), flush=True)

atexit.register(last)
"""


def test_what_ends_the_process_may_transcribe_though_no_thread_can_be_started(
    base_model: LoadedModel,
) -> None:
    ended = run_program(NO_THREADS, base_model)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [*["True"] * 4, "engine closed"]


REAL = """
import threading
import numpy as np
from batched_whisper import Whisper
from batched_whisper.batching.loop import EngineLoop

decoding, step = threading.Event(), EngineLoop._step
EngineLoop._step = lambda *arguments: (decoding.set(), step(*arguments))
noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 300).astype(np.float32)
whisper = Whisper("base", device="cpu")
future = whisper.submit(noise, language="en", vad=False)
assert decoding.wait(60)
raise SystemExit(3)
"""


@pytest.mark.usefixtures("base_model")
def test_a_process_that_ends_while_a_real_engine_decodes_does_not_crash() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (3, "")


# --- by a fork ------------------------------------------------------------------------------------


def test_a_forked_process_is_refused_and_may_close_it_and_the_other_one_goes_on(
    base_model: LoadedModel,
) -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore")
    if os.fork() == 0:
        for call in (whisper.load, lambda: whisper.transcribe(tone(0)), lambda: whisper.info):
            try:
                call()
            except Closed as error:
                print("forked" in str(error), flush=True)
        print(whisper.stats.n_windows, flush=True)
        whisper.close()
        whisper = None
        sys.exit()
    print(os.waitstatus_to_exitcode(os.wait()[1]), whisper.transcribe(tone(1)).text)
    """
    ended = run_program(program, base_model)
    assert (ended.returncode, ended.stderr) == (0, "")
    said = ["True", "True", "True", "0", f"0 {sentence(1)}", "engine closed"]
    assert ended.stdout.split("\n")[:-1] == said


def test_a_forked_process_may_load_its_own(base_model: LoadedModel) -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore")
    if os.fork() == 0:
        listener = Told(Tokenizer.from_folder(folder), 4)
        own = Whisper(folder, wait_ms=0, max_batch_size=4)
        print(own.transcribe(tone(2)).text, flush=True)
        sys.exit()
    os.wait()
    """
    ended = run_program(program, base_model)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split("\n")[:-1] == [sentence(2), "engine closed", "engine closed"]


LISTENS = """
import os, sys, warnings
import numpy as np
from batched_whisper import Whisper

warnings.simplefilter("ignore")
noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
whisper = Whisper("base", device="cpu")
heard = whisper.transcribe(noise, language="en", vad=True)
if os.fork() == 0:
    own = Whisper("base", device="cpu")
    print(own.transcribe(noise, language="en", vad=True).text == heard.text, flush=True)
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.usefixtures("base_model")
def test_a_forked_process_ends_though_the_other_one_listened_for_speech() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LISTENS], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n3\n"), ended.stderr
