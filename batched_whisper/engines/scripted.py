"""A fake engine that returns scripted tokens, on which the laws of batching are tested.

It enforces the protocol and raises an `EngineError` if the caller breaks it: a slot that was never
encoded, a slot in two rows, a gap between positions, any use of a slot during its step.
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
    """The tokens of one window up to the end of text, and its language token.

    For ``n_best``, the script's next token is the most probable, and others follow, each a little
    less probable. The script continues in the same way whichever of them is chosen.
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
    """The calls of the engine, each as its slots, and the protocol violations.

    ``encodes_during_step`` are those of ``encodes`` that came during a step.
    """

    encodes: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)
    copies: list[tuple[CopyRow, ...]] = field(default_factory=list)
    aligns: list[tuple[int, ...]] = field(default_factory=list)
    releases: list[int] = field(default_factory=list)
    encodes_during_step: list[tuple[int, ...]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class ScriptedEngine:
    """Returns the tokens of scripts.

    Args:
        read: returns the script of a window, given its features and audio context.
        eot: the end-of-text token.
        max_slots: the number of slots.
        encode_batch_size: the preferred number of windows per call of `encode`.
        async_steps: whether windows are to be encoded during a step.
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
        self._stepping: tuple[int, ...] = ()  # the slots of the step in progress
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
        """Look up the script of each window."""
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
        """Return the next token of each row's script, or the end of text if it is not allowed."""
        return self.start(rows)()

    def start(self, rows: Sequence[StepRow]) -> PendingStep:
        """Start a step; its results are computed when it is waited for."""
        slots = tuple(row.slot for row in rows)
        self._require_idle()
        self._require(len(set(slots)) == len(slots), f"a slot is in two rows: {slots}")
        self.journal.steps.append(slots)
        self._stepping = slots

        def finish() -> list[StepResult | None]:
            self._require(self._stepping == slots, "this step is not in progress")
            self._stepping = ()
            return [self._next_result(row) for row in rows]

        return finish

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Copy the slots' scripts and positions in them."""
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
        """Align each text as if its tokens followed one another, all equally long."""
        self._require_idle()
        self.journal.aligns.append(tuple(row.slot for row in rows))
        return [self._align(row) for row in rows]

    def release(self, slots: Sequence[int]) -> None:
        """Clear the slots."""
        self._require_not_stepping(slots)
        for slot in slots:
            self.journal.releases.append(slot)
            self._slots.pop(slot, None)

    def close(self) -> None:
        """Close the engine; no call may follow."""
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
        if (
            language in mask.tokens and mask.mode is MaskMode.ONLY
        ):  # the choice is among the languages
            return language
        i, slot.n_decoded = slot.n_decoded, slot.n_decoded + 1
        token = slot.script.tokens[i : i + 1]
        return token[0] if token and _is_allowed(token[0], allowed) else self._eot

    def _best(self, chosen: Choice, allowed: Allowed, n_best: int) -> tuple[Choice, ...]:
        best = [chosen] if n_best else []
        for token in range(self._eot):
            if len(best) >= n_best:
                break
            if token != chosen.token and _is_allowed(token, allowed):
                best.append(Choice(token, chosen.logprob - len(best)))
        return tuple(best)

    def _align(self, row: AlignRow) -> Alignment:
        self._require(row.slot in self._slots, f"slot {row.slot} was not encoded")
        n_tokens = len(row.tokens)
        self._require(0 < row.n_prompt < n_tokens, f"slot {row.slot} has no text to align")
        slot = self._slots[row.slot]
        # One head; the token after token i attends to the i-th part of the audio.
        part = np.linspace(0, n_tokens, slot.audio_context, endpoint=False).astype(int)
        weights = (np.arange(n_tokens)[:, None] == part).astype(np.float32) + np.float32(1e-3)
        logprobs = np.full(n_tokens, slot.script.logprob, np.float32)
        logprobs[: row.n_prompt] = 0
        return Alignment((weights / weights.sum(axis=1, keepdims=True))[None], logprobs)

    def _require_idle(self) -> None:
        self._require(not self.closed, "it is closed")
        self._require(not self._stepping, f"a step of slots {self._stepping} is in progress")

    def _require_not_stepping(self, slots: Sequence[int]) -> None:
        busy = set(slots) & set(self._stepping)
        self._require(not busy, f"a step is in progress that includes slots {sorted(busy)}")

    def _require(self, is_met: bool, what: str) -> None:
        if not is_met:
            self.journal.violations.append(what)
            raise EngineError(f"the scripted engine was called wrongly: {what}")


def _is_allowed(token: int, allowed: Allowed) -> bool:
    listed = token in allowed.mask.tokens
    return token in allowed.timestamps or listed is (allowed.mask.mode is MaskMode.ONLY)
