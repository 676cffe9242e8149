"""Laws of the loop for windows with beam search."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from chancy_windows import ChancyEngine, logits_after, said_alone
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_windows import (
    CONTEXT,
    ENGLISH,
    EOT,
    GERMAN,
    IDS,
    LANGUAGES,
    NO_SPEECH,
    RULES,
    SOT,
    TRANSCRIBE,
    Stage,
    UntilClosed,
    either_order,
    run,
    said,
    tries,
    waiting_loop,
    window,
)

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import AlignmentPrompt, DecodedTokens, DecodeRequest
from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.policy import FixedWait
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.decoding.rules import Rules
from batched_whisper.decoding.sampling import probability
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import EngineError, OptionError

TIMED = Rules(
    IDS,
    suppress=frozenset([SOT, TRANSCRIBE, NO_SPEECH]),
    suppress_begin=frozenset([EOT]),
    timestamps=True,
)
N_SLOTS = 9

beams = st.builds(
    Beams,
    st.integers(1, 5),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.none() | st.sampled_from([0.0, 1.0]),
)
changes = st.fixed_dictionaries(
    {
        "beams": beams,
        "rules": st.sampled_from([RULES, TIMED, TIMED.with_sound_until(0.6)]),
        "max_tokens": st.integers(1, 12),
        "prefix": st.sampled_from([(), (7, 8, 9)]),
    }
)


def decoded_by(
    engine: ChancyEngine, tasks: list[DecodeRequest], max_batch_size: int
) -> list[DecodedTokens]:
    """Decode all together, and check that every slot is released."""
    loop = EngineLoop(
        engine, max_batch_size=max_batch_size, policy=UntilClosed(), clock=ManualClock()
    )
    futures = [loop.submit(task) for task in tasks]
    loop.close()
    assert engine.held == {}
    assert engine.closed
    assert max(engine.n_rows) <= max_batch_size
    return [future.result(timeout=0) for future in futures]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(changes, min_size=1, max_size=10),
    st.integers(5, N_SLOTS),
    st.sampled_from([1, 1, 2, 3, 8]),
    st.booleans(),
)
def test_a_window_says_in_any_company_what_the_plain_search_finds(
    windows: list[dict[str, Any]], max_batch_size: int, tokens_per_step: int, async_steps: bool
) -> None:
    tasks = [window(number, **change) for number, change in enumerate(windows)]
    engine = ChancyEngine(max_batch_size, tokens_per_step, async_steps)
    results = decoded_by(engine, tasks, max_batch_size)
    for number, (task, found) in enumerate(zip(tasks, results, strict=True)):
        expected = said_alone(task, number, (*task.prefix, SOT, TRANSCRIBE))
        assert (found.tokens, found.ended) == (expected.text, expected.ended)
        assert found.sum_logprob == pytest.approx(expected.total, abs=1e-4)
        logits = logits_after(number, (*task.prefix, SOT))
        assert found.no_speech_prob == pytest.approx(probability(logits, NO_SPEECH))


def test_beams_find_other_texts_than_the_greedy_choice() -> None:
    """Otherwise these tests would show nothing."""
    tasks = [window(number // 2, beams=Beams(1 + 4 * (number % 2))) for number in range(12)]
    results = decoded_by(ChancyEngine(), tasks, 10)
    assert [each.tokens for each in results[::2]] != [each.tokens for each in results[1::2]]
    assert sum(each.sum_logprob for each in results[1::2]) > sum(
        each.sum_logprob for each in results[::2]
    )


@given(st.lists(st.integers(1, 5), min_size=1, max_size=14), st.integers(5, N_SLOTS), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_window_that_waits_for_many_slots_is_overtaken(
    sizes: list[int], max_batch_size: int, async_steps: bool
) -> None:
    texts = [(1,) * (1 + number % 5) for number in range(len(sizes))]
    scripts = {number: Script(text) for number, text in enumerate(texts)}
    stage = Stage(scripts, max_slots=9, async_steps=async_steps)
    tasks = [window(number, beams=Beams(size)) for number, size in enumerate(sizes)]
    futures = run(stage, tasks, max_batch_size)
    assert [said(future) for future in futures] == texts
    assert [number for number, _ in stage.encoded] == list(range(len(sizes)))
    assert max(len(step) for step in stage.steps) <= max_batch_size


def test_the_beams_of_a_window_are_stepped_with_their_neighbours() -> None:
    stage = Stage({number: Script((1, 2, 3)) for number in range(3)})
    tasks = [window(0), window(1, beams=Beams(4)), window(2)]
    loop = waiting_loop(stage, 6)
    futures = [loop.submit(task) for task in tasks]
    loop.close()
    assert [said(future) for future in futures] == [(1, 2, 3)] * 3
    # The start, and the prompt's last token; then every beam is a row of its own.
    assert stage.steps == [(0, 1, 2)] * 2 + [(0, 1, 1, 1, 1, 2)] * 3
    assert (loop.stats.n_batches, loop.stats.n_rows) == (5, 3 * 2 + 6 * 3)
    assert loop.stats.largest_batch == 6
    assert loop.stats.n_windows == 3


def test_more_beams_than_a_batch_has_room_for_are_refused_at_once() -> None:
    loop = waiting_loop(Stage({0: Script((1,))}), 4)
    with pytest.raises(OptionError, match=r"beam_size=5 .* the 4 windows"):
        loop.submit(window(0, beams=Beams(5)))
    future = loop.submit(window(0, beams=Beams(4)))
    loop.close()
    assert said(future) == (1,)


def test_of_several_engines_the_smallest_says_how_many_beams_there_may_be() -> None:
    """Any of them may take the window."""
    stages = [Stage({0: Script((1, 2))}, max_slots=n_slots) for n_slots in (5, 2, 4)]
    loops = EngineGroup(stages, policy=FixedWait(0))
    with pytest.raises(OptionError, match=r"beam_size=3 .* the 2 windows"):
        loops.submit(window(0, beams=Beams(3)))
    future = loops.submit(window(0, beams=Beams(2)))
    loops.close()
    assert said(future) == (1, 2)


# --- attempts -------------------------------------------------------------------------------------


@either_order
def test_a_hotter_attempt_is_one_text_and_leaves_the_other_slots_empty(async_steps: bool) -> None:
    stage = Stage({0: Script((1, 2))}, async_steps=async_steps)
    held: list[int] = []
    stage.before_step = lambda numbers: held.append(len(stage.held))
    fallback = tries(Attempt(2 * CONTEXT), Attempt(2 * CONTEXT, 0.4))
    [future] = run(stage, [window(0, beams=Beams(3), fallback=fallback)])
    result = future.result()
    assert (result.tokens, result.decodes) == ((1, 2), 3)
    assert result.attempt.temperature == 0.4
    assert [len(step) for step in stage.steps] == [1, 1, 3, 3] * 2 + [1, 1, 1, 1]
    assert held == [1, 1, 3, 3] * 2 + [1, 1, 1, 1]
    assert stage.encoded == [(0, CONTEXT), (0, 2 * CONTEXT)]
    assert [row.n_best for row in stage.rows[-3:]] == [0] * 3


def test_a_window_that_begins_hot_takes_one_slot() -> None:
    stage = Stage({number: Script((1, 2)) for number in range(4)})
    tasks = [window(number, beams=Beams(4), first=Attempt(CONTEXT, 0.2)) for number in range(4)]
    futures = run(stage, tasks, 4)
    assert [said(future) for future in futures] == [(1, 2)] * 4
    assert stage.steps[0] == (0, 1, 2, 3)


def test_a_limit_below_the_tasks_own_cuts_all_beams_off() -> None:
    stage = Stage({0: Script((1,) * 20)})
    [future] = run(stage, [window(0, beams=Beams(3), first=Attempt(CONTEXT, max_tokens=4))])
    assert said(future) == (1,) * 4
    assert not future.result().ended


# --- languages, words -----------------------------------------------------------------------------


def test_a_window_with_beams_detects_the_language_of_its_recording() -> None:
    stage = Stage({0: Script((1, 2), GERMAN), 1: Script((3, 4), ENGLISH)})
    first = window(0, beams=Beams(3), languages=LANGUAGES)
    second, shared = window(1, languages=LANGUAGES), SharedLanguage()
    futures = run(stage, [(first, shared), (second, shared)])
    assert [said(future) for future in futures] == [(1, 2), (3, 4)]
    for future in futures:
        language = future.result().language
        assert language is not None
        assert language.token == GERMAN


def test_the_text_that_was_found_is_aligned() -> None:
    words = AlignmentPrompt((TRANSCRIBE,), max_tokens=100)
    stage = Stage({number: Script((1, 2, 3)) for number in range(2)})
    tasks = [window(0, beams=Beams(3), alignment=words), window(1, alignment=words)]
    for future in run(stage, tasks):
        alignment = future.result().alignment
        assert alignment is not None
        assert alignment.logprobs.shape == (6,)


# --- failures, giving up --------------------------------------------------------------------------


@either_order
@pytest.mark.parametrize("at", [1, 2])
def test_a_copy_that_fails_is_the_failure_of_the_windows_that_branched(
    at: int, async_steps: bool
) -> None:
    scripts = {number: Script((1, 2, 3)) for number in range(3)}
    stage = Stage(scripts, async_steps=async_steps)
    n_copies: list[int] = []

    def before_copy(numbers: tuple[int, ...]) -> None:
        n_copies.append(1)
        if len(n_copies) == at:
            raise RuntimeError("out of memory")

    stage.before_copy = before_copy
    tasks = [window(0, beams=Beams(2)), window(1), window(2, beams=Beams(3))]
    futures = run(stage, tasks, 6)
    assert [said(future) for future in futures] == ["EngineError", (1, 2, 3), "EngineError"]
    with pytest.raises(EngineError, match="out of memory"):
        futures[0].result()


@either_order
def test_a_window_given_up_amid_its_search_gives_back_all_its_slots(async_steps: bool) -> None:
    def before_step(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) == 4:
            stage.futures[0].cancel()

    scripts = {0: Script((1,) * 20), 1: Script((2,) * 3)}
    stage = Stage(scripts, before_step=before_step, async_steps=async_steps)
    tasks = [window(0, beams=Beams(4)), window(1, beams=Beams(4))]
    futures = run(stage, tasks, 4)
    assert [said(future) for future in futures] == ["EngineError", (2,) * 3]
    assert [step for step in stage.steps if set(step) == {0, 1}] == []


@either_order
@pytest.mark.parametrize("at", ["before_step", "after_step"])
def test_a_failed_step_gives_back_all_slots_of_those_who_were_in_it(
    at: str, async_steps: bool
) -> None:
    def fail(numbers: tuple[int, ...]) -> None:
        if len(stage.steps) == 4:
            raise RuntimeError("the device went away")

    stage = Stage({0: Script((1,) * 6), 1: Script((2,) * 3)}, async_steps=async_steps)
    setattr(stage, at, fail)
    futures = run(stage, [window(0, beams=Beams(3)), window(1, beams=Beams(3))], 3)
    assert [said(future) for future in futures] == ["EngineError", (2,) * 3]


class BadRules:
    """Rules that raise when a text has two tokens."""

    ids = IDS

    def next(self, sampled: tuple[int, ...]) -> Any:
        if len(sampled) == 2:
            raise ZeroDivisionError
        return RULES.next(sampled)


def test_rules_that_break_amid_a_search_are_that_windows_failure() -> None:
    stage = Stage({number: Script((1, 2, 3)) for number in range(2)})
    bad: Future[DecodedTokens]
    bad, good = run(
        stage, [window(0, beams=Beams(3), rules=BadRules()), window(1, beams=Beams(2))], 5
    )
    assert (said(bad), said(good)) == ("EngineError", (1, 2, 3))
