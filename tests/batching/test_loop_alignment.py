"""Laws of the loop for windows whose text is aligned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_windows import CONTEXT, EOT, SOT, TRANSCRIBE, Stage, either_order, run, tries, window

from batched_whisper.batching.decode_request import AlignmentPrompt, DecodedTokens, DecodeRequest
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.engines.interface import Alignment, AlignRow
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import EngineError

PROMPT = (SOT, TRANSCRIBE)

WORDS = AlignmentPrompt((TRANSCRIBE,), max_tokens=100)


@dataclass
class AligningStage(Stage):
    """Records alignments; ``before_align`` gets the numbers of the windows and may raise."""

    before_align: Callable[[tuple[int, ...]], None] = lambda numbers: None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.aligned: list[tuple[int, ...]] = []
        self.texts: dict[int, tuple[int, ...]] = {}

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        numbers = tuple(self.held[row.slot] for row in rows)
        self.aligned.append(numbers)
        self.before_align(numbers)
        self.texts.update((self.held[row.slot], row.tokens) for row in rows)
        return super().align(rows)


def staged(*texts: tuple[int, ...], **hooks: Any) -> AligningStage:
    return AligningStage({number: Script(text) for number, text in enumerate(texts)}, **hooks)


def windows(n_windows: int, **changes: Any) -> list[DecodeRequest]:
    return [window(number, alignment=WORDS, **changes) for number in range(n_windows)]


def result(future: Future[DecodedTokens]) -> DecodedTokens:
    return future.result(timeout=0)


def failing(*numbers: int) -> Callable[[tuple[int, ...]], None]:
    def before(rows: tuple[int, ...]) -> None:
        if set(rows) & set(numbers):
            raise RuntimeError(f"cannot align {rows}")

    return before


texts = st.lists(st.integers(1, 30), max_size=6).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=12), st.integers(1, 8), st.booleans())
def test_every_window_with_a_text_is_aligned_with_that_text(
    said: list[tuple[int, ...]], max_batch_size: int, async_steps: bool
) -> None:
    stage = staged(*said, async_steps=async_steps)
    futures = run(stage, windows(len(said)), max_batch_size)
    for text, future in zip(said, futures, strict=True):
        found = result(future)
        assert found.tokens == text
        assert (found.alignment is not None) == bool(text)
        if found.alignment is not None:
            assert found.alignment.logprobs.shape == (len(PROMPT) + len(text) + 1,)
    expected = {n: (*PROMPT, *text, EOT) for n, text in enumerate(said) if text}
    assert stage.texts == expected


def test_windows_without_a_request_are_not_aligned() -> None:
    stage = staged((1, 2), (3, 4))
    futures = run(stage, [window(0), window(1)], 2)
    assert stage.aligned == []
    assert [result(future).alignment for future in futures] == [None, None]


def test_windows_that_end_in_one_step_are_aligned_in_one_call() -> None:
    stage = staged((1, 2), (3, 4), (5, 6, 7))
    run(stage, windows(3), 3)
    assert [sorted(numbers) for numbers in stage.aligned] == [[0, 1], [2]]


def test_who_does_not_ask_is_answered_before_the_others_are_aligned() -> None:
    answered: list[bool] = []
    stage = staged((1, 2), (3, 4))
    tasks = [window(0, alignment=WORDS), window(1)]
    futures: list[Future[DecodedTokens]] = []
    stage.before_align = lambda numbers: answered.append(1 not in stage.held.values())
    futures = run(stage, tasks, 2)
    assert answered == [True]
    assert all(future.done() for future in futures)


def test_a_window_is_aligned_once_when_it_is_believed() -> None:
    stage = staged((1, 2))
    [future] = run(stage, windows(1, fallback=tries(Attempt(CONTEXT, 0.5))), 1)
    assert stage.aligned == [(0,)]
    assert result(future).decodes == 2
    assert result(future).alignment is not None


@either_order
def test_a_failing_alignment_is_that_windows_alone(async_steps: bool) -> None:
    stage = staged((1, 2), (3, 4), (5, 6), before_align=failing(1), async_steps=async_steps)
    good, bad, also_good = run(stage, windows(3), 3)
    assert isinstance(bad.exception(timeout=0), EngineError)
    assert result(good).alignment is not None
    assert result(also_good).alignment is not None
    assert stage.held == {}


def test_a_request_that_cannot_say_what_to_align_fails_alone() -> None:
    stage = staged((1, 2), (3, 4))
    broken = AlignmentPrompt(after_language=None, max_tokens=100)  # type: ignore[arg-type]
    bad, good = run(stage, [window(0, alignment=broken), *windows(2)[1:]], 2)
    with pytest.raises(EngineError, match="iterable"):
        result(bad)
    assert result(good).alignment is not None
    assert stage.held == {}
