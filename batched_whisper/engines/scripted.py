"""A pretend engine that says what a script tells it to: the batching's laws are tested on it.

It keeps the protocol strictly, and breaks off with an `EngineError` where its caller does not:
a slot that was never encoded, one that stands in two rows, a gap between positions, anything asked
of a slot while it is in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from batched_whisper.decoding.rules import Allowed, MaskMode
from batched_whisper.decoding.sampling import Choice
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
from batched_whisper.errors import EngineError
from batched_whisper.types import Features


@dataclass(frozen=True)
class Script:
    """What is said in one window: its language's token, and the tokens up to the end.

    Whoever asks for the best tokens gets the script's first, then others, each a little less
    probable than the one before; the script goes on whichever of them is said.
    """

    tokens: tuple[int, ...]
    language: int | None = None
    logprob: float = -0.1
    no_speech_prob: float = 0.01


@dataclass
class _Slot:
    script: Script
    audio_context: int
    length: int = 0
    n_decoded: int = 0


@dataclass(frozen=True)
class Journal:
    """What the engine was asked to do, call by call, as lists of slots; and its violations.

    ``encodes_during_step`` are those of ``encodes`` that came while a step was going on.
    """

    encodes: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)
    copies: list[tuple[CopyRow, ...]] = field(default_factory=list)
    aligns: list[tuple[int, ...]] = field(default_factory=list)
    releases: list[int] = field(default_factory=list)
    encodes_during_step: list[tuple[int, ...]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class ScriptedEngine:
    """Says scripts.

    Args:
        read: gives the script of a window by its features and audio context.
        eot: the token that ends a text.
        max_slots: how many slots it has.
        encode_batch_size: how many windows it likes to encode in one call.
        async_steps: whether it asks for windows to be encoded while it steps.
    """

    def __init__(
        self,
        read: Callable[[Features, int], Script],
        *,
        eot: int,
        max_slots: int,
        encode_batch_size: int = 1,
        async_steps: bool = False,
    ) -> None:
        self._read = read
        self._eot = eot
        self._slots: dict[int, _Slot] = {}
        self._stepping: tuple[int, ...] = ()  # the slots of the step that is going on
        self.journal = Journal()
        self.closed = False
        self.info = EngineInfo(
            "scripted",
            "none",
            "exact",
            1,
            max_slots,
            encode_batch_size=encode_batch_size,
            async_steps=async_steps,
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Look up each window's script."""
        slots = tuple(row.slot for row in rows)
        self._require(not self.closed, "it is closed")
        self._require_not_stepping(slots)
        self.journal.encodes.append(slots)
        if self._stepping:
            self.journal.encodes_during_step.append(slots)
        for row in rows:
            self._require(0 <= row.slot < self.info.max_slots, f"there is no slot {row.slot}")
            self._slots[row.slot] = _Slot(
                self._read(row.features, row.audio_context), row.audio_context
            )

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """The next token of each row's script, or the end where it is not allowed."""
        return self.start(rows)()

    def start(self, rows: Sequence[StepRow]) -> PendingStep:
        """Begin a step; nothing is said before it is waited for."""
        slots = tuple(row.slot for row in rows)
        self._require_idle()
        self._require(len(set(slots)) == len(slots), f"a slot stands in two rows: {slots}")
        self.journal.steps.append(slots)
        self._stepping = slots

        def finish() -> list[StepResult | None]:
            self._require(self._stepping == slots, "no such step is going on")
            self._stepping = ()
            return [self._next_result(row) for row in rows]

        return finish

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Let slots be where others are in their scripts."""
        self._require_idle()
        sources, targets = {row.source for row in rows}, {row.target for row in rows}
        self._require(len(targets) == len(rows), "a slot is copied to twice")
        self._require(not sources & targets, "a slot is read and overwritten in one call")
        self.journal.copies.append(tuple(rows))
        for row in rows:
            self._require(row.source in self._slots, f"slot {row.source} was not encoded")
            self._require(0 <= row.target < self.info.max_slots, f"there is no slot {row.target}")
            self._slots[row.target] = replace(self._slots[row.source])

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """Every text as if its tokens were said one after another, all equally long."""
        self._require_idle()
        self.journal.aligns.append(tuple(row.slot for row in rows))
        return [self._align(row) for row in rows]

    def release(self, slots: Sequence[int]) -> None:
        """Forget what the slots hold."""
        self._require_not_stepping(slots)
        for slot in slots:
            self.journal.releases.append(slot)
            self._slots.pop(slot, None)

    def close(self) -> None:
        """No call may follow."""
        self._require_idle()
        self.closed = True

    def _next_result(self, row: StepRow) -> StepResult | None:
        self._require(row.slot in self._slots, f"slot {row.slot} was not encoded")
        slot = self._slots[row.slot]
        self._require(row.position <= slot.length, f"slot {row.slot} has a gap in its text")
        if row.position == 0:
            slot.n_decoded = 0
        slot.length = row.position + len(row.tokens)
        probed = slot.script.no_speech_prob if row.probe is not None else None
        if row.allowed is None:
            return None if probed is None else StepResult(self._eot, 0.0, probed)
        token, logprob = self._choose(slot, row.allowed), slot.script.logprob
        best = self._best(Choice(token, logprob), row.allowed, row.n_best)
        return StepResult(token, logprob, probed, best)

    def _choose(self, slot: _Slot, allowed: Allowed) -> int:
        language, mask = slot.script.language, allowed.mask
        if language in mask.tokens and mask.mode is MaskMode.ONLY:  # asked among the languages
            return language
        place, slot.n_decoded = slot.n_decoded, slot.n_decoded + 1
        said = slot.script.tokens[place : place + 1]
        return said[0] if said and _is_allowed(said[0], allowed) else self._eot

    def _best(self, said: Choice, allowed: Allowed, n_best: int) -> tuple[Choice, ...]:
        found = [said] if n_best else []
        for token in range(self._eot):
            if len(found) >= n_best:
                break
            if token != said.token and _is_allowed(token, allowed):
                found.append(Choice(token, said.logprob - len(found)))
        return tuple(found)

    def _align(self, row: AlignRow) -> Alignment:
        self._require(row.slot in self._slots, f"slot {row.slot} was not encoded")
        n_tokens = len(row.tokens)
        self._require(0 < row.n_prompt < n_tokens, f"slot {row.slot} has no text to align")
        slot = self._slots[row.slot]
        # The token after token i is heard in one head, at the i-th part of the audio.
        part = np.linspace(0, n_tokens, slot.audio_context, endpoint=False).astype(int)
        heard = (np.arange(n_tokens)[:, None] == part).astype(np.float32) + np.float32(1e-3)
        logprobs = np.full(n_tokens, slot.script.logprob, np.float32)
        logprobs[: row.n_prompt] = 0
        return Alignment((heard / heard.sum(axis=1, keepdims=True))[None], logprobs)

    def _require_idle(self) -> None:
        self._require(not self.closed, "it is closed")
        self._require(not self._stepping, f"a step is going on, of slots {self._stepping}")

    def _require_not_stepping(self, slots: Sequence[int]) -> None:
        busy = set(slots) & set(self._stepping)
        self._require(not busy, f"a step is going on, of slots {sorted(busy)} too")

    def _require(self, kept: bool, what: str) -> None:
        if not kept:
            self.journal.violations.append(what)
            raise EngineError(f"the scripted engine was called wrongly: {what}")


def _is_allowed(token: int, allowed: Allowed) -> bool:
    listed = token in allowed.mask.tokens
    return token in allowed.timestamps or listed is (allowed.mask.mode is MaskMode.ONLY)
