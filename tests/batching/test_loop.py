"""Laws of the loop, on the scripted engine."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_windows import (
    CONTEXT,
    ENGLISH,
    GERMAN,
    LANGUAGES,
    SOON_S,
    Asked,
    Stage,
    either_order,
    run,
    said,
    tries,
    waiting_loop,
    window,
)

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.policy import Decision, FixedWait, Start
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.fallback import Attempt, FallbackPolicy, Verdict
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import AudioError, Closed, EngineError

TEXT_TOKENS = st.integers(1, 30)
texts = st.lists(TEXT_TOKENS, max_size=9).map(tuple)


def staged(*texts: tuple[int, ...], **hooks: Any) -> Stage:
    return Stage({number: Script(text) for number, text in enumerate(texts)}, **hooks)


def fails(*numbers: int) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number in numbers:
            raise RuntimeError(f"no window {number}")

    return before


def give_up(stage: Stage, *numbers: int) -> None:
    """As their callers do."""
    for number in numbers:
        stage.futures[number].cancel()


# --- batches --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(texts, min_size=1, max_size=25), st.integers(1, 8), st.integers(1, 6), st.booleans()
)
def test_every_window_says_in_a_batch_what_it_says_alone(
    said_in: list[tuple[int, ...]], max_batch_size: int, encode_batch_size: int, async_steps: bool
) -> None:
    stage = staged(*said_in, encode_batch_size=encode_batch_size, async_steps=async_steps)
    futures = run(stage, map(window, range(len(said_in))), max_batch_size)
    assert [said(future) for future in futures] == said_in
    assert sorted(stage.encoded) == [(number, CONTEXT) for number in range(len(said_in))]


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=25), st.integers(1, 4))
def test_a_slot_that_becomes_free_is_taken_at_the_next_step(
    said_in: list[tuple[int, ...]], max_batch_size: int
) -> None:
    """Steps are full while windows wait, and never exceed the limit."""
    stage = staged(*said_in)
    run(stage, map(window, range(len(said_in))), max_batch_size)
    sizes = [len(step) for step in stage.steps]
    still_waiting = len(said_in)
    seen: set[int] = set()
    for step in stage.steps:
        seen |= set(step)
        still_waiting = len(said_in) - len(seen)
        assert len(step) <= max_batch_size
        assert len(step) == max_batch_size or not still_waiting
    assert sizes == sorted(sizes, reverse=True)


def test_a_large_batch_fills_up_while_it_is_stepped() -> None:
    """A few windows are encoded between two steps, so that no next token waits for all of them."""
    stage = staged(*[(1,) * 50] * 20, max_slots=16)
    run(stage, map(window, range(20)), 16)
    sizes = [len(step) for step in stage.steps[:8]]
    assert sizes == sorted(sizes)
    assert sizes[0] < 16 == sizes[-1]


@either_order
def test_no_window_is_overtaken_forever(async_steps: bool) -> None:
    texts = [(1,) * (1 + number % 5) for number in range(40)]
    stage = staged(*texts, async_steps=async_steps)
    run(stage, map(window, range(40)), 3)
    first_seen = {number: i for i, step in reversed([*enumerate(stage.steps)]) for number in step}
    starts = [first_seen[number] for number in range(40)]
    assert starts == sorted(starts)


@given(st.lists(texts, min_size=1, max_size=12), st.integers(1, 5), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_figures_are_those_of_what_happened(
    said_in: list[tuple[int, ...]], max_batch_size: int, async_steps: bool
) -> None:
    stage = staged(*said_in, async_steps=async_steps)
    loop = waiting_loop(stage, max_batch_size)
    for number in range(len(said_in)):
        loop.submit(window(number))
    assert loop.stats.queue_depth == len(said_in)
    loop.close()
    sizes, stats = [len(step) for step in stage.steps], loop.stats
    assert stats.n_windows == stats.n_encodes == len(said_in)
    assert (stats.n_batches, stats.n_rows) == (len(sizes), sum(sizes))
    assert stats.largest_batch == max(sizes)
    assert stats.mean_batch_size == pytest.approx(sum(sizes) / len(sizes))
    assert stats.n_failed == stats.n_cancelled == stats.n_retries == 0


# --- failures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadFallback(FallbackPolicy):
    """A policy that raises, as none of the package does."""

    full_context: int = 0

    def after(self, attempt: Attempt, verdict: Verdict) -> Attempt | None:
        raise SystemExit("not even an ordinary error")


class BadRules:
    """Rules that raise, as none of the package do."""

    ids = window(0).rules.ids

    def next(self, sampled: object) -> None:
        raise ZeroDivisionError


SPOILED: dict[str, Callable[[int], DecodeRequest]] = {
    "audio": lambda number: window(number, audio=np.zeros((1, 0), np.float32)),
    "after_language": lambda number: window(number, after_language=None),
    "fallback": lambda number: window(number, fallback=BadFallback()),
    "alignment": lambda number: window(number, alignment=object()),
    "rules": lambda number: window(number, rules=BadRules()),
    "no rules": lambda number: window(number, rules=object()),
    "no audio": lambda number: window(number, audio=None),
}
kinds = st.sampled_from(["good", "good", "encode", *SPOILED])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(kinds, texts), min_size=1, max_size=20),
    st.integers(1, 6),
    st.integers(1, 6),
    st.booleans(),
)
def test_what_goes_wrong_with_a_window_is_its_own_affair(
    windows: list[tuple[str, tuple[int, ...]]],
    max_batch_size: int,
    encode_batch_size: int,
    async_steps: bool,
) -> None:
    bad = [number for number, (kind, _) in enumerate(windows) if kind == "encode"]
    stage = staged(
        *(text for _, text in windows),
        before_encode=fails(*bad),
        encode_batch_size=encode_batch_size,
        async_steps=async_steps,
    )
    tasks = [SPOILED.get(kind, window)(number) for number, (kind, _) in enumerate(windows)]
    futures = run(stage, tasks, max_batch_size)
    expected = [
        text if kind == "good" or (kind == "alignment" and not text) else "EngineError"
        for kind, text in windows
    ]
    assert [said(future) for future in futures] == expected


@pytest.mark.parametrize("encode_batch_size", [1, 3, 6, 9])
def test_windows_are_encoded_as_many_a_call_as_the_engine_likes(encode_batch_size: int) -> None:
    stage = staged(*[(1,)] * 9, max_slots=9, encode_batch_size=encode_batch_size)
    run(stage, map(window, range(9)), 9)
    sizes = [len(slots) for slots in stage.engine.journal.encodes]
    assert sum(sizes) == 9
    assert max(sizes) == encode_batch_size
    assert stage.encoded == [(number, CONTEXT) for number in range(9)]


@either_order
@pytest.mark.parametrize("at", ["before_step", "after_step"])
def test_a_failed_step_fails_those_who_were_in_it(at: str, async_steps: bool) -> None:
    stage = staged(*[(1, 2, 3)] * 6, async_steps=async_steps)
    failed: list[int] = []

    def fail(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) == 7:
            failed.extend(numbers)
            raise RuntimeError("the device went away")

    setattr(stage, at, fail)
    futures = run(stage, map(window, range(6)), 2)
    assert len(failed) == 2
    for number, future in enumerate(futures):
        assert said(future) == ("EngineError" if number in failed else (1, 2, 3))


@either_order
@pytest.mark.parametrize("at", ["before_step", "after_step"])
def test_an_engine_that_always_fails_fails_all_windows(at: str, async_steps: bool) -> None:
    def fail(numbers: tuple[int, ...]) -> None:
        raise MemoryError

    stage = staged(*[(1,)] * 20, async_steps=async_steps, **{at: fail})
    futures = run(stage, map(window, range(20)), 4)
    assert {said(future) for future in futures} == {"EngineError"}


def test_a_slot_that_cannot_be_released_is_used_again() -> None:
    def before_release() -> None:
        raise RuntimeError("no")

    stage = staged(*[(1,), (2,), (3,)], before_release=before_release)
    loop = waiting_loop(stage, 1)
    futures = [loop.submit(window(number)) for number in range(3)]
    loop.close()
    assert [said(future) for future in futures] == [(1,), (2,), (3,)]


def test_errors_of_ours_reach_the_caller_as_they_are() -> None:
    def before_encode(number: int) -> None:
        raise AudioError("cut off")

    [future] = run(staged((1,), before_encode=before_encode), [window(0)])
    with pytest.raises(AudioError, match="cut off"):
        future.result()


def test_errors_of_others_are_the_cause_of_ours() -> None:
    [future] = run(staged((1,), before_encode=fails(0)), [window(0)])
    with pytest.raises(EngineError, match="no window 0") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_callback_that_raises_affects_no_other_window(caplog: pytest.LogCaptureFixture) -> None:
    loop = waiting_loop(staged((1,), (2,)), 1)
    first, second = loop.submit(window(0)), loop.submit(window(1))

    def broken(_: Future[DecodedTokens]) -> None:
        raise ValueError("a caller's own callback")

    first.add_done_callback(broken)
    loop.close()
    assert (said(first), said(second)) == ((1,), (2,))


# --- cancellation ---------------------------------------------------------------------------------


@either_order
@pytest.mark.parametrize("at_step", [1, 2, 4])
def test_a_recording_given_up_loses_its_windows_and_their_slots(
    at_step: int, async_steps: bool
) -> None:
    stage = staged(*[(1,) * 20] * 6, (9,) * 3, async_steps=async_steps)

    def before_step(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) == at_step:
            give_up(stage, *range(6))

    stage.before_step = before_step
    futures = run(stage, map(window, range(7)), 2)
    dropped, gone = [each for each in futures if not each.cancelled()], futures[:6]
    assert [said(future) for future in dropped] == ["EngineError"] * (len(dropped) - 1) + [(9,) * 3]
    assert len(dropped) > 1 and any(each.cancelled() for each in gone)
    assert {number for step in stage.steps[at_step:] for number in step} == {6}
    assert all(len(step) <= 2 for step in stage.steps)


def test_what_is_given_up_while_it_waits_is_never_encoded() -> None:
    stage = staged((1,), (2,), (3,))
    loop = waiting_loop(stage, 1)
    kept = loop.submit(window(0))
    assert loop.submit(window(1)).cancel()
    assert loop.submit(window(2)).cancel()
    loop.close()
    assert said(kept) == (1,)
    assert stage.encoded == [(0, CONTEXT)]


# --- fallback -------------------------------------------------------------------------------------


attempts = st.lists(
    st.builds(Attempt, st.sampled_from([3, 5, 8]), st.sampled_from([0.0, 0.4, 1.0])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(texts, attempts), min_size=1, max_size=12), st.integers(1, 5), st.booleans()
)
def test_a_retry_keeps_its_slot_and_encodes_only_another_context(
    windows: list[tuple[tuple[int, ...], list[Attempt]]], max_batch_size: int, async_steps: bool
) -> None:
    policies = [tries(*tried[1:]) for _, tried in windows]
    stage = staged(*(text for text, _ in windows), async_steps=async_steps)
    slots: dict[int, set[int]] = {}

    def before_step(_: tuple[int, ...]) -> None:
        for slot, number in stage.held.items():
            slots.setdefault(number, set()).add(slot)

    stage.before_step = before_step
    tasks = [
        window(number, first=tried[0], fallback=policies[number])
        for number, (_, tried) in enumerate(windows)
    ]
    futures = run(stage, tasks, max_batch_size)
    for number, (text, tried) in enumerate(windows):
        decoded = futures[number].result()
        assert (decoded.tokens, decoded.decodes) == (text, len(tried))
        assert decoded.attempt == tried[-1]
        assert policies[number].made == tried
        contexts = [each.audio_context for each in tried]
        changes = [context for context, _ in itertools.groupby(contexts)]
        assert [context for who, context in stage.encoded if who == number] == changes
        assert len(slots[number]) == 1


def test_a_retry_is_as_hot_as_it_was_asked_to_be() -> None:
    stage = staged((1, 2))
    run(stage, [window(0, fallback=tries(Attempt(CONTEXT, 0.6)), seed=7)])
    asked = [row.sampling for row in stage.rows if row.allowed is not None]
    assert [sampling.temperature for sampling in asked] == [0.0] * 3 + [0.6] * 3
    assert {sampling.seed for sampling in asked} == {7}


@either_order
def test_a_retry_whose_encoding_fails_frees_its_slot(async_steps: bool) -> None:
    stage = staged((1,), (2,), async_steps=async_steps)
    before = stage.before_encode

    def second_time(number: int) -> None:
        before(number)
        if (number, 3) in stage.encoded:
            raise RuntimeError("out of memory")

    stage.before_encode = second_time
    futures = run(stage, [window(0, first=Attempt(3), fallback=tries(Attempt(8))), window(1)], 1)
    assert [said(future) for future in futures] == ["EngineError", (2,)]


# --- languages ------------------------------------------------------------------------------------


def multilingual(number: int, shared: SharedLanguage, **changes: Any) -> Asked:
    return window(number, languages=LANGUAGES, **changes), shared


def detections(stage: Stage) -> list[int]:
    """Return the rows that detect a language, by slot."""
    return [row.slot for row in stage.rows if row.allowed and row.allowed.mask.tokens == LANGUAGES]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(texts, min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_a_recordings_language_is_detected_once_and_holds_for_all_its_windows(
    recordings: list[list[tuple[int, ...]]], max_batch_size: int, random: Any, async_steps: bool
) -> None:
    shared = [SharedLanguage() for _ in recordings]
    windows = [(owner, text) for owner, said_in in enumerate(recordings) for text in said_in]
    random.shuffle(windows)
    stage = Stage(
        # Each window alone would be detected as a language of its own.
        {i: Script(text, random.choice([ENGLISH, GERMAN])) for i, (_, text) in enumerate(windows)},
        async_steps=async_steps,
    )
    tasks = [multilingual(i, shared[owner]) for i, (owner, _) in enumerate(windows)]
    futures = run(stage, tasks, max_batch_size)
    assert [said(future) for future in futures] == [text for _, text in windows]
    assert len(detections(stage)) == len(recordings)
    for owner in range(len(recordings)):
        own = [i for i, (of, _) in enumerate(windows) if of == owner]
        languages = {futures[i].result().language for i in own}
        first_encoded = next(number for number, _ in stage.encoded if number in own)
        [language] = languages
        assert language is not None
        assert language.token == stage.scripts[first_encoded].language


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["audio", "encode", "before_step", "after_step"]),
    st.booleans(),
)
def test_if_the_detector_dies_the_next_window_takes_over(
    n_dead: int, max_batch_size: int, way: str, async_steps: bool
) -> None:
    n_windows = n_dead + 2
    shared, failed = SharedLanguage(), list[int]()
    scripts = {i: Script((i + 1,), GERMAN) for i in range(n_windows)}
    stage = Stage(scripts, async_steps=async_steps)
    if way == "encode":
        stage.before_encode = fails(*range(n_dead))

    def fail(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) <= n_dead:
            failed.extend(numbers)
            raise RuntimeError("the step of the detector")

    if way.endswith("step"):
        setattr(stage, way, fail)

    bad = {"audio": None} if way == "audio" else {}
    tasks = [multilingual(i, shared, **(bad if i < n_dead else {})) for i in range(n_windows)]
    futures = run(stage, tasks, max_batch_size)
    dead = set(failed) if way.endswith("step") else set(range(n_dead))
    assert dead == set(range(n_dead))  # the others did not step, so they live
    for number, future in enumerate(futures):
        if number in dead:
            assert said(future) == "EngineError"
        else:
            assert said(future) == (number + 1,)
            language = future.result().language
            assert language is not None
            assert language.token == GERMAN


def test_a_detector_given_up_does_not_keep_the_others_waiting() -> None:
    shared = SharedLanguage()
    stage = Stage({i: Script((i + 1,), ENGLISH) for i in range(3)})

    def before_encode(number: int) -> None:
        give_up(stage, 0, 1)

    stage.before_encode = before_encode
    futures = run(stage, [multilingual(i, shared) for i in range(3)], 1)
    assert said(futures[0]) == "EngineError"
    assert said(futures[2]) == (3,)


def test_a_language_that_is_given_is_not_detected() -> None:
    stage = Stage({0: Script((1, 2), ENGLISH)})
    [future] = run(stage, [multilingual(0, SharedLanguage(), language=GERMAN)])
    language = future.result().language
    assert language is not None
    assert (language.token, language.probability) == (GERMAN, 1.0)
    assert detections(stage) == []
    assert (GERMAN,) in [row.tokens for row in stage.rows]


def test_an_english_only_model_has_no_language() -> None:
    [future] = run(staged((1,)), [window(0)])
    assert future.result().language is None


# --- closing --------------------------------------------------------------------------------------


@either_order
def test_close_answers_everything_that_was_accepted(async_steps: bool) -> None:
    futures = run(staged(*[(1, 2)] * 30, async_steps=async_steps), map(window, range(30)), 4)
    assert {said(future) for future in futures} == {(1, 2)}


@either_order
def test_close_without_draining_answers_only_what_is_being_decoded(async_steps: bool) -> None:
    stage = staged(*[(1, 2, 3)] * 6, async_steps=async_steps)
    loop: EngineLoop

    def before_step(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) == 2:
            loop.close(drain=False)  # on the loop's own thread, which does not wait for itself

    stage.before_step = before_step
    loop = waiting_loop(stage, 2)
    futures = [loop.submit(window(number)) for number in range(6)]
    loop.close()
    assert [said(future) for future in futures] == [(1, 2, 3)] * 2 + ["Closed"] * 4


def test_after_close_no_window_is_accepted() -> None:
    loop = waiting_loop(staged((1,)), 1)
    loop.close()
    with pytest.raises(Closed):
        loop.submit(window(0))
    loop.close()


@either_order
def test_an_idle_loop_closes(async_steps: bool) -> None:
    stage = staged(async_steps=async_steps)
    waiting_loop(stage, 1).close()
    assert stage.engine.closed


def test_a_loop_that_breaks_fails_all_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that raises represents a defect of the package."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    class Broken:
        def decide(self, *_: object) -> Any:
            raise ArithmeticError

    stage = staged((1,), (2,))
    loop = EngineLoop(stage, max_batch_size=2, policy=Broken(), clock=ManualClock())
    future = loop.submit(window(0))
    with pytest.raises(Closed):
        future.result(SOON_S)
    loop.close()
    assert stage.engine.closed


# --- waiting for more windows ---------------------------------------------------------------------


def timed_loop(stage: Stage, clock: ManualClock, max_batch_size: int = 6) -> EngineLoop:
    policy = FixedWait(50)
    return EngineLoop(stage, max_batch_size=max_batch_size, policy=policy, clock=clock)


def test_an_idle_engine_waits_for_company_as_long_as_it_may_and_no_longer() -> None:
    clock, started_s = ManualClock(), list[float]()
    stage = staged(*[(1,)] * 5, before_encode=lambda _: started_s.append(clock.now_s()))
    loop = timed_loop(stage, clock, max_batch_size=6)
    clock.await_sleeper(None)
    futures = [loop.submit(window(0))]
    clock.await_sleeper(0.05)
    clock.advance(0.03)
    futures += [loop.submit(window(number)) for number in range(1, 5)]
    clock.await_sleeper(0.05)
    clock.advance(0.02)
    assert {said_soon(future) for future in futures} == {(1,)}
    assert started_s == [0.05] * 5
    loop.close()


def test_a_full_batch_starts_at_once() -> None:
    stage, clock = staged(*[(1,)] * 6), ManualClock()
    loop = timed_loop(stage, clock)
    clock.await_sleeper(None)
    futures = [loop.submit(window(number)) for number in range(6)]
    assert {said_soon(future) for future in futures} == {(1,)}  # time stood still
    loop.close()


def test_a_batch_is_full_at_the_loops_size_though_it_is_encoded_in_parts() -> None:
    asked = set[int]()

    class Asked:
        def decide(self, n: int, oldest_s: float, now_s: float, max_batch_size: int) -> Decision:
            asked.add(max_batch_size)
            return Start()

    loop = EngineLoop(staged((1,), max_slots=32), max_batch_size=32, policy=Asked())
    assert said_soon(loop.submit(window(0))) == (1,)
    loop.close()
    assert asked == {32}


def test_company_is_not_waited_for_while_others_are_decoded() -> None:
    clock = ManualClock()
    arrived = Counter[str]()
    stage = staged((1,) * 4, (2,))
    loop: EngineLoop
    late: list[Future[DecodedTokens]] = []

    def before_step(numbers: tuple[int, ...]) -> None:
        if not arrived["late"]:
            arrived["late"] += 1
            late.append(loop.submit(window(1)))

    stage.before_step = before_step
    loop = timed_loop(stage, clock, max_batch_size=2)
    clock.await_sleeper(None)
    first = loop.submit(window(0))
    clock.await_sleeper(0.05)
    clock.advance(0.05)
    assert said_soon(first) == (1,) * 4
    assert said_soon(late[0]) == (2,)
    assert stage.steps[1] == (0, 1)
    loop.close()


def said_soon(future: Future[DecodedTokens]) -> tuple[int, ...]:
    return future.result(SOON_S).tokens


@either_order
def test_windows_may_come_from_many_threads(async_steps: bool) -> None:
    scripts = {number: Script((number % 30 + 1,) * (number % 7)) for number in range(200)}
    stage = Stage(scripts, async_steps=async_steps)
    loop = EngineLoop(stage, max_batch_size=8, policy=FixedWait(0), max_queue_size=16)
    results: dict[int, Future[DecodedTokens]] = {}

    def bring(numbers: range) -> None:
        for number in numbers:
            results[number] = loop.submit(window(number), group=numbers.start)

    threads = [threading.Thread(target=bring, args=(range(i, 200, 8),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    loop.close()
    for number, future in results.items():
        assert said(future) == stage.scripts[number].tokens
    assert len(results) == 200
