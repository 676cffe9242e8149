"""Laws of the loop with asynchronous steps: it encodes windows while a step runs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from chancy_windows import ChancyEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_windows import (
    CONTEXT,
    GERMAN,
    LANGUAGES,
    Asked,
    Stage,
    UntilClosed,
    either_order,
    run,
    said,
    submit,
    tries,
    waiting_loop,
    window,
)

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import DecodedTokens
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import Closed

N_FIRST = 4  # how many are encoded before anybody is stepped
texts = st.lists(st.integers(1, 30), max_size=9).map(tuple)


def ahead(*texts: tuple[int, ...], **hooks: Any) -> Stage:
    scripts = {number: Script(text) for number, text in enumerate(texts)}
    return Stage(scripts, async_steps=True, **{"max_slots": 16, **hooks})


# --- the same answers -----------------------------------------------------------------------------

attempts = st.builds(Attempt, st.sampled_from([3, CONTEXT, 8]), st.sampled_from([0.0, 0.4, 1.0]))
kinds = st.fixed_dictionaries(
    {
        "beams": st.builds(Beams, st.integers(1, 4)),
        "tried": st.lists(attempts, min_size=1, max_size=4).map(
            lambda tried: sorted(tried, key=lambda attempt: attempt.temperature)
        ),
        "doubts_language": st.booleans(),
        "language": st.sampled_from([None, None, GERMAN]),
        "shares": st.booleans(),
        "max_tokens": st.integers(1, 9),
        "is_wanted": st.sampled_from([True, True, True, False]),
    }
)


def asked(number: int, kind: dict[str, Any], shared: SharedLanguage) -> Asked:
    """Makes all its attempts; the first may end at the language."""
    request = window(
        number,
        first=kind["tried"][0],
        fallback=tries(*kind["tried"][1:], doubts_language=kind["doubts_language"]),
        languages=LANGUAGES,
        language=kind["language"],
        max_tokens=kind["max_tokens"],
        beams=kind["beams"],
        seed=number,
    )
    return request, shared if kind["shares"] else SharedLanguage()


def answers(
    engine: ChancyEngine, kinds: list[dict[str, Any]], max_batch_size: int
) -> list[DecodedTokens | str]:
    shared = SharedLanguage()
    loop = EngineLoop(
        engine, max_batch_size=max_batch_size, policy=UntilClosed(), clock=ManualClock()
    )
    futures = [submit(loop, asked(n, kind, shared)) for n, kind in enumerate(kinds)]
    for future, kind in zip(futures, kinds, strict=True):
        if not kind["is_wanted"]:
            future.cancel()
    loop.close()
    assert engine.closed and engine.held == {}
    return ["cancelled" if future.cancelled() else future.result() for future in futures]


@settings(max_examples=100, deadline=None)
@given(st.lists(kinds, min_size=1, max_size=14), st.integers(4, 9), st.sampled_from([1, 1, 3, 8]))
def test_all_windows_are_answered_as_without_asynchronous_steps(
    windows: list[dict[str, Any]], max_batch_size: int, tokens_per_step: int
) -> None:
    """Beams, higher temperatures, other contexts, languages shared or redetected, cancellation."""
    in_order = answers(ChancyEngine(16, tokens_per_step), windows, max_batch_size)
    overlapped = answers(ChancyEngine(16, tokens_per_step, True), windows, max_batch_size)
    assert overlapped == in_order


# --- encoding during a step -----------------------------------------------------------------------


def test_windows_are_encoded_while_others_are_stepped() -> None:
    stage = ahead(*[(1, 2, 3)] * 10)
    run(stage, map(window, range(10)), 16)
    assert stage.steps[:3] == [tuple(range(n)) for n in (4, 8, 10)]
    assert stage.engine.journal.encodes_during_step == [(slot,) for slot in range(N_FIRST, 10)]


def test_an_engine_that_does_not_work_ahead_is_asked_for_one_thing_at_a_time() -> None:
    stage = Stage({number: Script((1, 2, 3)) for number in range(10)}, max_slots=16)
    run(stage, map(window, range(10)), 16)
    assert stage.engine.journal.encodes_during_step == []


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=20), st.integers(1, 8), st.booleans())
def test_who_was_encoded_is_in_the_next_step_that_begins(
    said_in: list[tuple[int, ...]], max_batch_size: int, async_steps: bool
) -> None:
    n_before: dict[int, int] = {}
    scripts = {number: Script(text) for number, text in enumerate(said_in)}
    stage = Stage(scripts, async_steps=async_steps)
    stage.before_encode = lambda number: n_before.update({number: len(stage.steps)})
    run(stage, map(window, range(len(said_in))), max_batch_size)
    for number, n_steps in n_before.items():
        assert number in stage.steps[n_steps]
        assert number not in {each for step in stage.steps[:n_steps] for each in step}


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=25), st.integers(1, N_FIRST))
def test_when_a_step_is_done_no_slot_is_empty_that_somebody_waits_for(
    said_in: list[tuple[int, ...]], max_batch_size: int
) -> None:
    stage = ahead(*said_in)

    def after_step(numbers: tuple[int, ...]) -> None:
        assert len(stage.held) == max_batch_size or len(stage.encoded) == len(said_in)

    stage.after_step = after_step
    futures = run(stage, map(window, range(len(said_in))), max_batch_size)
    assert [said(future) for future in futures] == said_in


def test_another_context_is_encoded_while_the_others_are_stepped() -> None:
    """Windows that wait for it are in no step meanwhile, and delay no other window."""
    stage = ahead((1,), (2,) * 9)
    again = window(0, fallback=tries(Attempt(2 * CONTEXT)))
    first, second = run(stage, [again, window(1)], 2)
    assert (said(first), said(second)) == ((1,), (2,) * 9)
    assert stage.encoded == [(0, CONTEXT), (1, CONTEXT), (0, 2 * CONTEXT)]
    assert stage.engine.journal.encodes_during_step == [(0,)]
    assert stage.steps == [(0, 1)] * 3 + [(1,)] + [(0, 1)] * 3 + [(1,)] * 4


@either_order
def test_a_hotter_attempt_is_in_the_very_next_step(async_steps: bool) -> None:
    stage = Stage({0: Script((1,)), 1: Script((2,) * 9)}, async_steps=async_steps)
    hotter = window(0, fallback=tries(Attempt(CONTEXT, 0.4), Attempt(CONTEXT, 0.8)))
    run(stage, [hotter, window(1)], 2)
    assert stage.steps == [(0, 1)] * 9 + [(1,)] * 2
    assert stage.engine.journal.encodes_during_step == []


# --- failures -------------------------------------------------------------------------------------


def test_a_window_that_cannot_be_encoded_fails_alone() -> None:
    def refuse(number: int) -> None:
        if number in (4, 6):
            raise SystemExit("an engine's own library")

    stage = ahead(*[(number,) for number in range(10)], before_encode=refuse, encode_batch_size=4)
    tasks = [window(number, **({"audio": None} if number == 5 else {})) for number in range(10)]
    futures = run(stage, tasks, 16)
    lost = (4, 5, 6)
    for number, future in enumerate(futures):
        assert said(future) == ("EngineError" if number in lost else (number,))


def test_who_was_encoded_meanwhile_does_not_fail_with_the_step() -> None:
    def fail(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) == 1:
            raise RuntimeError("the device went away")

    stage = ahead(*[(1, 2)] * 10, after_step=fail)
    futures = run(stage, map(window, range(10)), 16)
    assert [said(future) for future in futures] == ["EngineError"] * 4 + [(1, 2)] * 6


def test_who_is_given_up_during_a_step_leaves_after_it() -> None:
    def give_up(number: int) -> None:
        if number == N_FIRST:
            stage.futures[0].cancel()

    stage = ahead(*[(1,) * 9] * 5, before_encode=give_up)
    futures = run(stage, map(window, range(5)), 16)
    assert [said(future) for future in futures] == ["EngineError"] + [(1,) * 9] * 4
    assert stage.steps[:2] == [(0, 1, 2, 3), (1, 2, 3, 4)]


def test_a_loop_that_breaks_during_a_step_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that finish with that step are answered, and then the engine is closed."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    stage = ahead(*[()] * 20)
    loop = waiting_loop(stage, 12)
    futures = [loop.submit(window(number)) for number in range(20)]
    take_now = loop.queue.take_now

    def breaks(*args: Any, **changes: Any) -> Any:
        if len(stage.steps) == 2:  # an empty text ends with the second one
            raise ArithmeticError("a defect of ours")
        return take_now(*args, **changes)

    monkeypatch.setattr(loop.queue, "take_now", breaks)
    loop.close()
    answered = [()] * 4 + ["EngineError"] * 4 + ["Closed"] * 12
    assert [said(future) for future in futures] == answered
    assert stage.engine.closed and not stage.held
    assert stage.engine.journal.violations == []


@pytest.mark.parametrize("drain", [True, False])
def test_a_loop_may_be_closed_during_a_step(drain: bool) -> None:
    def close(number: int) -> None:
        if number == N_FIRST:
            loop.close(drain=drain)  # on the loop's own thread, which does not wait for itself

    stage = ahead(*[(1, 2, 3)] * 12, before_encode=close)
    loop = waiting_loop(stage, 16)
    futures = [loop.submit(window(number)) for number in range(12)]
    loop.close()
    n_answered = 12 if drain else 8
    assert [said(future) for future in futures[:n_answered]] == [(1, 2, 3)] * n_answered
    for future in futures[n_answered:]:
        assert isinstance(future.exception(), Closed)
    assert stage.engine.closed
    assert stage.engine.journal.violations == []
