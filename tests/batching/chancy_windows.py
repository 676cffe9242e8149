"""An engine whose tokens all depend on the audio and on all tokens before.

Whatever is mixed up between slots, or left out of a copy, changes what is said from there on, so
it can be held against a search that has no slots. It says any token, unlike a script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from naive_beams import Heard, Text, naive_beam_search
from numpy.typing import NDArray
from scripted_windows import EOT, IDS, number_in

from batched_whisper.batching.decode_request import DecodeRequest
from batched_whisper.decoding.sampling import apply, best, choose, log_sum_exp, probability
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

BEGIN = IDS.timestamp_begin


def logits_after(number: int, text: Text) -> NDArray[np.float32]:
    """Return a window's logits after the prompt and any text; the end becomes likelier."""
    random = np.random.default_rng((number, *text))
    logits = 3 * random.standard_normal(IDS.n_vocab, dtype=np.float32)
    logits[EOT] += 0.4 * len(text)
    return logits


def said_alone(task: DecodeRequest, number: int, prompt: Text) -> Heard:
    """Return the result of an exhaustive search, without slots, steps or candidates."""

    def following(text: Text) -> dict[int, float]:
        logits = logits_after(number, prompt + text)
        filtered = apply(logits, task.rules.next(text), BEGIN)
        logprobs = filtered - log_sum_exp(filtered)
        return {token: float(p) for token, p in enumerate(logprobs) if p > -np.inf}

    beams = task.beams
    return naive_beam_search(
        following,
        EOT,
        size=beams.size,
        patience=beams.patience if beams.size > 1 else 1.0,  # one beam is greedy
        length_penalty=beams.length_penalty,
        max_tokens=task.max_tokens,
    )


@dataclass
class _Slot:
    number: int
    text: Text = ()


@dataclass
class ChancyEngine:
    """Decodes by `logits_after`; records the number of rows per step."""

    max_slots: int = 16
    tokens_per_step: int = 1
    async_steps: bool = False
    n_rows: list[int] = field(default_factory=list)
    held: dict[int, _Slot] = field(default_factory=dict)
    before_copy: Callable[[], None] = lambda: None
    closed: bool = False
    stepping: frozenset[int] = frozenset()  # the slots of the running step

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            "chancy",
            "none",
            "exact",
            1,
            self.max_slots,
            tokens_per_step=self.tokens_per_step,
            async_steps=self.async_steps,
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        for row in rows:
            assert 0 <= row.slot < self.max_slots
            assert row.slot not in self.stepping
            self.held[row.slot] = _Slot(number_in(row.features))

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        return self.start(rows)()

    def start(self, rows: Sequence[StepRow]) -> PendingStep:
        slots = frozenset(row.slot for row in rows)
        assert len(slots) == len(rows) <= self.max_slots
        assert not self.stepping
        self.n_rows.append(len(rows))
        self.stepping = slots

        def finish() -> list[StepResult | None]:
            self.stepping = frozenset()
            return [self._say(row) for row in rows]

        return finish

    def copy(self, rows: Sequence[CopyRow]) -> None:
        self.before_copy()
        assert not self.stepping
        targets = [row.target for row in rows]
        assert len(set(targets)) == len(targets)
        assert not {row.source for row in rows} & set(targets)
        for row in rows:
            source = self.held[row.source]
            self.held[row.target] = _Slot(source.number, source.text)

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        raise NotImplementedError

    def release(self, slots: Sequence[int]) -> None:
        assert not self.stepping & set(slots)
        for slot in slots:
            self.held.pop(slot, None)

    def close(self) -> None:
        assert not self.stepping
        self.closed = True

    def _say(self, row: StepRow) -> StepResult | None:
        slot = self.held[row.slot]
        assert row.position <= len(slot.text)
        slot.text = slot.text[: row.position] + row.tokens
        probed = self._probed(row, slot)
        if row.allowed is None:
            return None if probed is None else StepResult(EOT, 0.0, probed)
        logits = logits_after(slot.number, slot.text)
        choices = [choose(logits, row.allowed, BEGIN, row.sampling, len(slot.text))]
        found = best(logits, row.allowed, BEGIN, row.n_best) if row.n_best else ()
        constraints = row.constraints
        while constraints and len(choices) < min(row.n_tokens, self.tokens_per_step):
            last = choices[-1].token
            if last == EOT:
                break
            allowed, constraints = constraints.after(last, IDS)
            slot.text += (last,)
            logits = logits_after(slot.number, slot.text)
            choices.append(choose(logits, allowed, BEGIN, row.sampling, len(slot.text)))
        first, *more = choices
        return StepResult(first.token, first.logprob, probed, found, tuple(more))

    def _probed(self, row: StepRow, slot: _Slot) -> float | None:
        if row.probe is None:
            return None
        n_after = 0 if row.probe_at is None else len(row.tokens) - 1 - row.probe_at
        logits = logits_after(slot.number, slot.text[: len(slot.text) - n_after])
        return probability(logits, row.probe)
