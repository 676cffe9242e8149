"""Windows with known texts, and an engine that can be made to fail.

A window's features are its number, written all over. Everything is deterministic: `run` has all
windows waiting before the loop takes the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.policy import Decision, WaitUntil
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.fallback import Attempt, FallbackPolicy, Verdict
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.engines.interface import (
    Alignment,
    AlignRow,
    CopyRow,
    EncodeRow,
    EngineInfo,
    PendingStep,
    StepResult,
    StepRow,
)
from batched_whisper.engines.scripted import Script, ScriptedEngine
from batched_whisper.types import Features

SOON_S = 60.0  # a deadline for what happens at once unless something is broken

EOT, SOT, TRANSCRIBE, NO_SPEECH = 50, 51, 52, 55
ENGLISH, GERMAN = 41, 42
LANGUAGES = frozenset([ENGLISH, GERMAN])
IDS = TokenIds(eot=EOT, timestamp_begin=60, n_vocab=80, no_speech=NO_SPEECH)
RULES = Rules(
    IDS,
    suppress=frozenset([SOT, TRANSCRIBE, NO_SPEECH]),
    suppress_begin=frozenset(),
    timestamps=False,
)
CONTEXT = 5

either_order = pytest.mark.parametrize("async_steps", [False, True])
"""For laws that hold with and without asynchronous steps."""


Asked = DecodeRequest | tuple[DecodeRequest, SharedLanguage]
"""A request, optionally with its recording's shared language."""


def features_of(number: int) -> Features:
    """Return features whose first frame holds the number, for an audio context of any length."""
    return np.full((1, 1), number, np.float32)


def number_in(features: Features) -> int:
    return int(features[0, 0])


@dataclass(frozen=True)
class Tries(FallbackPolicy):
    """Makes the given attempts in order, for any text; records those made."""

    full_context: int = 0
    left: list[Attempt] = field(default_factory=list)
    made: list[Attempt] = field(default_factory=list)
    doubts_language: bool = False

    def after(self, attempt: Attempt, verdict: Verdict) -> Attempt | None:
        self.made.append(attempt)
        return self.left.pop(0) if self.left else None

    def after_language(self, attempt: Attempt, probability: float) -> Attempt | None:
        return self.left.pop(0) if self.left and self.doubts_language else None


def tries(*attempts: Attempt, doubts_language: bool = False) -> Tries:
    """Return a policy that makes these attempts after the first one."""
    return Tries(left=list(attempts), doubts_language=doubts_language)


def window(number: int, **changes: Any) -> DecodeRequest:
    """Return a request that decodes to the script of its number."""
    request: dict[str, Any] = {
        "audio": features_of(number),
        "sot": SOT,
        "after_language": (TRANSCRIBE,),
        "rules": RULES,
        "max_tokens": 100,
        "first": Attempt(CONTEXT),
    }
    return DecodeRequest(**{**request, **changes})


@dataclass
class Stage:
    """A scripted engine that records the windows of each call, and calls hooks before it.

    ``before_encode`` and ``before_step`` get the numbers of the windows; what they raise is the
    engine's failure. So does ``after_step``, before the results of a step are given.
    """

    scripts: Mapping[int, Script]
    max_slots: int = 8
    encode_batch_size: int = 1
    async_steps: bool = False
    before_encode: Callable[[int], None] = lambda number: None
    before_step: Callable[[tuple[int, ...]], None] = lambda numbers: None
    after_step: Callable[[tuple[int, ...]], None] = lambda numbers: None
    before_copy: Callable[[tuple[int, ...]], None] = lambda numbers: None
    before_release: Callable[[], None] = lambda: None
    steps: list[tuple[int, ...]] = field(default_factory=list)
    rows: list[StepRow] = field(default_factory=list)
    encoded: list[tuple[int, int]] = field(default_factory=list)  # number and audio context
    held: dict[int, int] = field(default_factory=dict)  # slot -> number
    futures: list[Future[DecodedTokens]] = field(default_factory=list)  # of `run`

    def __post_init__(self) -> None:
        self.engine = ScriptedEngine(
            self._read,
            eot=EOT,
            max_slots=self.max_slots,
            encode_batch_size=self.encode_batch_size,
            async_steps=self.async_steps,
        )

    def _read(self, features: Features, audio_context: int) -> Script:
        assert features.shape == (1, 2 * audio_context)
        return self.scripts[number_in(features)]

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        for row in rows:
            number = number_in(row.features)
            self.before_encode(number)
            self.held[row.slot] = number
            self.encoded.append((number, row.audio_context))
        self.engine.encode(rows)

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        return self.start(rows)()

    def start(self, rows: Sequence[StepRow]) -> PendingStep:
        numbers = tuple(self.held[row.slot] for row in rows)
        self.steps.append(numbers)
        self.before_step(numbers)
        self.rows.extend(rows)
        started = self.engine.start(rows)

        def finish() -> list[StepResult | None]:
            results = started()
            self.after_step(numbers)
            return results

        return finish

    def copy(self, rows: Sequence[CopyRow]) -> None:
        self.before_copy(tuple(self.held[row.source] for row in rows))
        for row in rows:
            self.held[row.target] = self.held[row.source]
        self.engine.copy(rows)

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        return self.engine.align(rows)

    def release(self, slots: Sequence[int]) -> None:
        self.before_release()
        for slot in slots:
            self.held.pop(slot, None)  # its encoding may have failed
        self.engine.release(slots)

    def close(self) -> None:
        self.engine.close()


@dataclass(frozen=True)
class UntilClosed:
    """An idle engine waits until the loop is closed, when all windows are queued."""

    def decide(
        self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
    ) -> Decision:
        return WaitUntil(math.inf)


def waiting_loop(stage: Stage, max_batch_size: int) -> EngineLoop:
    """Return a loop that starts when it is closed."""
    return EngineLoop(
        stage,
        max_batch_size=max_batch_size,
        policy=UntilClosed(),
        max_queue_size=10_000,
        clock=ManualClock(),
    )


def submit(loop: EngineLoop, asked: Asked) -> Future[DecodedTokens]:
    request, language = asked if isinstance(asked, tuple) else (asked, None)
    return loop.submit(request, language=language)


def run(
    stage: Stage, requests: Iterable[Asked], max_batch_size: int = 8
) -> list[Future[DecodedTokens]]:
    """Submit all windows, and wait until the engine is closed."""
    loop = waiting_loop(stage, max_batch_size)
    stage.futures = futures = [submit(loop, each) for each in requests]
    loop.close()
    assert all(future.done() for future in futures)
    assert not stage.held, "no slot leaks"
    assert stage.engine.closed
    assert stage.engine.journal.violations == []
    assert loop.stats.n_active == loop.stats.queue_depth == 0
    return futures


def said(future: Future[DecodedTokens]) -> tuple[int, ...] | str:
    """Return the tokens, or the name of the error."""
    error = future.exception(SOON_S)
    return future.result().tokens if error is None else type(error).__name__
