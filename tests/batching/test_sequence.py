"""Laws of a sequence, step by step, with invented results of the engine."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_windows import (
    CONTEXT,
    ENGLISH,
    EOT,
    GERMAN,
    LANGUAGES,
    NO_SPEECH,
    SOT,
    TRANSCRIBE,
    tries,
    window,
)

from batched_whisper.batching.decode_request import DecodedTokens
from batched_whisper.batching.sequence import Sequence, SequenceState, StepInputs
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.engines.interface import StepResult, StepRow

texts = st.lists(st.integers(1, 30), max_size=12)


def begun(shared: SharedLanguage | None = None, **changes: Any) -> Sequence:
    sequence = Sequence(window(0, **changes), slots=(3,), language=shared)
    sequence.begin()
    return sequence


def fed(sequence: Sequence) -> StepRow:
    feed = sequence.next_inputs()
    assert feed is not None
    assert feed.copies == ()
    [row] = feed.rows
    return row


def accept(sequence: Sequence, row: StepRow, result: StepResult | None) -> None:
    sequence.accept(StepInputs((row,)), [result])


def decode(
    sequence: Sequence, said: list[int], logprob: float = -0.5, language: int = ENGLISH
) -> list[StepRow]:
    """Simulate the engine until the sequence is done; return the rows that were fed."""
    rows, left = [], [*said, EOT]
    while sequence.state is SequenceState.DECODING:
        row = fed(sequence)
        rows.append(row)
        if row.allowed is None:
            accept(sequence, row, StepResult(EOT, 0.0, 0.25) if row.probe is not None else None)
        elif row.allowed.mask.tokens == LANGUAGES:
            accept(sequence, row, StepResult(language, math.log(0.75), 0.25))
        else:
            accept(sequence, row, StepResult(left.pop(0), logprob))
    return rows


def result(sequence: Sequence) -> DecodedTokens:
    assert sequence.result is not None
    return sequence.result


@given(
    said=texts,
    prefix=st.lists(st.integers(1, 30), max_size=5).map(tuple),
    language=st.none() | st.sampled_from(sorted(LANGUAGES)),
    multilingual=st.booleans(),
)
def test_what_is_fed_is_prompt_start_and_text_without_a_gap(
    said: list[int], prefix: tuple[int, ...], language: int | None, multilingual: bool
) -> None:
    languages = LANGUAGES if multilingual else frozenset[int]()
    sequence = begun(prefix=prefix, language=language, languages=languages)
    rows = decode(sequence, said, language=GERMAN)
    spoken = [language] if language else [GERMAN] if multilingual else []
    written = [token for row in rows for token in row.tokens]
    assert written == [*prefix, SOT, *spoken, TRANSCRIBE, *said]
    positions = [0]
    for row in rows:
        assert row.position == positions[-1]
        positions.append(row.position + len(row.tokens))
    assert {row.slot for row in rows} == {3}
    assert rows[0].tokens == (*prefix, SOT)
    assert all(len(row.tokens) == 1 for row in rows[1:])


@given(said=texts, logprob=st.floats(-9, 0))
def test_the_mean_log_probability_counts_the_end_of_text(said: list[int], logprob: float) -> None:
    sequence = begun()
    decode(sequence, said, logprob)
    assert result(sequence).tokens == tuple(said)
    assert result(sequence).ended
    assert result(sequence).avg_logprob == pytest.approx(logprob)


@given(limit=st.integers(1, 8), own=st.none() | st.integers(1, 8))
def test_a_text_ends_at_the_lower_of_its_limits(limit: int, own: int | None) -> None:
    sequence = begun(max_tokens=limit, first=Attempt(CONTEXT, max_tokens=own))
    decode(sequence, [1] * 20)
    assert len(result(sequence).tokens) == min(limit, own or limit)
    assert not result(sequence).ended


def test_a_text_that_ends_at_its_limit_was_cut_off_and_one_below_it_was_not() -> None:
    for length, ended in ((4, True), (5, False)):
        sequence = begun(max_tokens=5)
        decode(sequence, [1] * length)
        assert result(sequence).ended is ended


@given(said=texts, prefix=st.lists(st.integers(1, 30), max_size=3).map(tuple))
def test_text_may_follow_the_start_at_once(said: list[int], prefix: tuple[int, ...]) -> None:
    """In English-only models with timestamps there is no token between them."""
    sequence = begun(after_language=(), prefix=prefix)
    start = fed(sequence)
    assert (start.tokens, start.probe) == ((*prefix, SOT), NO_SPEECH)
    assert start.allowed is not None
    left = [*said, EOT]
    accept(sequence, start, StepResult(left.pop(0), -0.5, 0.25))
    while sequence.state is SequenceState.DECODING:
        accept(sequence, fed(sequence), StepResult(left.pop(0), -0.5))
    assert result(sequence).tokens == tuple(said)
    assert result(sequence).no_speech_prob == 0.25
    assert result(sequence).avg_logprob == pytest.approx(-0.5)


def test_the_no_speech_probability_is_read_where_the_transcript_starts() -> None:
    sequence = begun(prefix=(1, 2))
    rows = decode(sequence, [3])
    assert rows[0].probe == NO_SPEECH
    assert [row.probe for row in rows[1:]] == [None] * (len(rows) - 1)
    assert result(sequence).no_speech_prob == 0.25


def test_the_language_is_the_one_detected_with_its_probability() -> None:
    sequence = begun(languages=LANGUAGES)
    decode(sequence, [], language=GERMAN)
    language = result(sequence).language
    assert language is not None
    assert language.token == GERMAN
    assert language.probability == pytest.approx(0.75)


def test_the_others_wait_while_one_detects_the_language_and_then_go_on() -> None:
    shared = SharedLanguage()
    first, second = (begun(shared, languages=LANGUAGES) for _ in range(2))
    row = fed(first)
    assert second.next_inputs() is None
    accept(first, row, StepResult(GERMAN, 0.0, 0.0))
    assert fed(second).allowed is None  # nothing left to detect
    decode(second, [7], language=ENGLISH)
    language = result(second).language
    assert language is not None
    assert language.token == GERMAN


@settings(max_examples=50)
@given(first=texts, second=texts)
def test_a_retry_starts_from_nothing(first: list[int], second: list[int]) -> None:
    sequence = begun(fallback=tries(Attempt(CONTEXT, 0.4)), prefix=(9,))
    decode(sequence, first, logprob=-8)
    assert sequence.retry == Attempt(CONTEXT, 0.4)
    sequence.try_again()
    rows = decode(sequence, second, logprob=-1)
    assert sequence.state is SequenceState.DONE
    assert [token for row in rows for token in row.tokens] == [9, SOT, TRANSCRIBE, *second]
    found = result(sequence)
    assert (found.tokens, found.decodes) == (tuple(second), 2)
    assert found.avg_logprob == pytest.approx(-1)
    assert found.attempt.temperature == 0.4


def test_a_language_heard_on_less_audio_is_asked_for_again_on_more() -> None:
    sequence = begun(languages=LANGUAGES, fallback=tries(Attempt(2 * CONTEXT)))
    decode(sequence, [1], language=ENGLISH)
    sequence.try_again()
    assert sequence.shared_language.detected is None
    assert sequence.state is SequenceState.WAITING
    sequence.begin()
    decode(sequence, [1], language=GERMAN)
    language = result(sequence).language
    assert language is not None
    assert language.token == GERMAN


def test_a_language_is_kept_when_only_the_temperature_changes() -> None:
    sequence = begun(languages=LANGUAGES, fallback=tries(Attempt(CONTEXT, 0.6)))
    decode(sequence, [1], language=ENGLISH)
    sequence.try_again()
    assert LANGUAGES not in [
        row.allowed.mask.tokens for row in decode(sequence, [1]) if row.allowed is not None
    ]


def test_a_doubtful_language_is_a_retry_before_any_text() -> None:
    again = Attempt(2 * CONTEXT)
    fallback = tries(again, doubts_language=True)
    sequence = begun(languages=LANGUAGES, fallback=fallback)
    rows = decode(sequence, [1], language=ENGLISH)
    assert (len(rows), sequence.state) == (1, SequenceState.RETRY)
    assert sequence.retry == again
    sequence.try_again()
    sequence.begin()
    decode(sequence, [1], language=GERMAN)
    assert result(sequence).tokens == (1,)


def test_certain_rounding_does_not_make_a_probability_above_1() -> None:
    sequence = begun(languages=LANGUAGES)
    accept(sequence, fed(sequence), StepResult(GERMAN, 1e-7, 0.0))
    detected = sequence.shared_language.detected
    assert detected is not None
    assert detected.probability == 1.0
