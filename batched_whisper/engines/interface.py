"""The protocol between the batching loop and a device: encode windows, step slots, release.

A **slot** is a place in the engine's memory for one window: the decoder's cross-attention keys and
values of its audio, and the self-attention keys and values of its text. Slots are numbered from 0
to ``max_slots - 1``. The loop decides which window has which slot; the engine decides where its
memory lies. Only one thread at a time may call an engine.

This module knows nothing of queues, languages or texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from batched_whisper.decoding.rules import Allowed, ConstraintState
from batched_whisper.decoding.sampling import GREEDY, Choice, Sampling
from batched_whisper.types import Features, Samples


@dataclass(frozen=True)
class EngineInfo:
    """What an engine runs on, and in words why it was set up so."""

    engine: str
    device: str
    precision: str
    threads: int
    max_slots: int
    why: tuple[str, ...] = ()
    encode_batch_size: int = 1
    """The number of windows per call of `Engine.encode` that fills the device."""
    tokens_per_step: int = 1
    """The most tokens that one call of `Engine.step` chooses per row. Above 1, give a prompt whole:
    the row's probe may then be read before the prompt's last token (`StepRow.probe_at`)."""
    takes_samples: bool = False
    """Whether the engine computes features itself, so that windows are given as samples
    (`EncodeRow`)."""
    async_steps: bool = False
    """Whether the engine is an `AsyncEngine`: `AsyncEngine.start` returns before the step is done,
    and the next windows are best encoded in the meantime."""


@dataclass(frozen=True)
class EncodeRow:
    """A window to encode into a slot, in place of what the slot held.

    Attributes:
        slot: the slot to write to.
        features: ``[n_mels, 2 * audio_context]`` float32; for an engine that takes samples, ``[n]``
            samples at 16 kHz, at most 320 per position. Owned by the caller and read before the
            call returns. Missing samples or frames are silence.
        audio_context: the number of encoder positions of 20 ms, 1 to 1500. The silence from there
            to 30 s is represented by merged positions (`merged_padding`).
    """

    slot: int
    features: Features | Samples
    audio_context: int


@dataclass(frozen=True)
class StepRow:
    """The decoder's input for one slot in one step.

    ``tokens`` go to positions ``position``, ``position + 1``, ... of the slot's text. Keys and
    values from ``position`` on are overwritten, so position 0 starts a new text on the same audio.
    If ``allowed`` is None, no token is chosen (more of the prompt follows).
    """

    slot: int
    tokens: tuple[int, ...]
    position: int
    allowed: Allowed | None
    sampling: Sampling = GREEDY
    probe: int | None = None
    """A token whose softmax probability over the whole vocabulary, before any mask, is returned."""
    n_best: int = 0
    """How many of the most probable tokens to return besides the chosen one."""
    probe_at: int | None = None
    """The index in ``tokens`` after which the probe is read; by default after the last one."""
    n_tokens: int = 1
    """The most tokens to choose for this row, at most the engine's `EngineInfo.tokens_per_step`."""
    constraints: ConstraintState | None = None
    """What is allowed after the first chosen token; required if ``n_tokens`` is above 1."""


@dataclass(frozen=True)
class StepResult:
    """The token chosen after a row's last token, and its natural log-probability among the allowed.

    Attributes:
        token: the chosen token.
        logprob: its natural log-probability among the allowed tokens.
        probed: the probability of the row's ``probe``.
        best: the row's ``n_best`` most probable tokens, best first; fewer if fewer are allowed.
        more: the tokens chosen after ``token``, the same as separate steps would choose: up to the
            end of text, to the row's ``n_tokens``, or fewer. The slot then holds keys and values of
            all but the last of them.
    """

    token: int
    logprob: float
    probed: float | None = None
    best: tuple[Choice, ...] = ()
    more: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class CopyRow:
    """Copies the state of slot ``source``, audio and text, to slot ``target``."""

    source: int
    target: int


@dataclass(frozen=True)
class AlignRow:
    """A text to align with the audio in a slot.

    Attributes:
        slot: the slot with the audio.
        tokens: the start of the transcript with the no-timestamps token, the text, and the end of
            text if the text context has a position left for it.
        n_prompt: the number of tokens before the text.
    """

    slot: int
    tokens: tuple[int, ...]
    n_prompt: int


@dataclass(frozen=True, eq=False)
class Alignment:
    """The cross-attention of the alignment heads over a given text. The caller owns the arrays.

    Attributes:
        weights: ``[n_heads, n_tokens, audio_context]`` float32, the attention weights of the
            checkpoint's alignment heads, normalised over the window's own positions. Row ``i``
            belongs to the token *after* token ``i``.
        logprobs: ``[n_tokens]`` float32, the natural log-probability of each token over the whole
            vocabulary, given those before it; 0 for the prompt.
    """

    weights: NDArray[np.float32]
    logprobs: NDArray[np.float32]


class Engine(Protocol):
    """A device that runs a Whisper model on many windows at once."""

    @property
    def info(self) -> EngineInfo:
        """What the engine runs on."""

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Encode windows into their slots. Raises EngineError."""

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """Run one decoder step; returns one result per row, in order; None if nothing was asked.

        A row's result does not depend on the other rows. Each slot must have been encoded and may
        appear in one row only. Raises EngineError.
        """

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Copy slots: afterwards source and target are equal, and independent of each other.

        A target need not have been encoded. If it already holds the same audio, as the beams of one
        window do, only the text is copied. A slot may be the target of one row only, and may not be
        source and target in the same call. Raises EngineError.
        """

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """Align texts with the audio of their slots; returns one alignment per row, in order.

        The slots keep their audio and their text. A row's result does not depend on the other rows.
        What this needs is built on the first call. Raises EngineError.
        """

    def release(self, slots: Sequence[int]) -> None:
        """Free slots: their contents are no longer needed."""

    def close(self) -> None:
        """Free the device's memory. No call may follow."""


PendingStep: TypeAlias = Callable[[], list[StepResult | None]]
"""A step in progress. Called once, it waits for the step and returns what `Engine.step` would, or
raises EngineError."""


class AsyncEngine(Engine, Protocol):
    """An engine whose device computes a step while the host continues."""

    def start(self, rows: Sequence[StepRow]) -> PendingStep:
        """Start a step: ``step(rows)`` is ``start(rows)()``.

        Until the returned function has been called, only `encode` and `release` may be called, and
        only for slots that are in no row of the step. Raises EngineError; then no step is in
        progress.
        """


def as_async_engine(engine: Engine) -> AsyncEngine | None:
    """Return the engine as an `AsyncEngine` if it has asynchronous steps, otherwise None."""
    return cast("AsyncEngine", engine) if engine.info.async_steps else None


def combined_info(infos: Sequence[EngineInfo]) -> EngineInfo:
    """Describe several engines behind one queue as one, with the sum of their slots.

    Engines that share a device are described by the first. If there are several devices, all are
    named; a reason that all engines give appears once, any other is prefixed with its device.

    Args:
        infos: one per engine; at least one.
    """
    first = infos[0]
    max_slots = sum(info.max_slots for info in infos)
    devices = list(dict.fromkeys(info.device for info in infos))
    if len(devices) == 1:
        return replace(first, max_slots=max_slots)
    shared = [reason for reason in first.why if all(reason in info.why for info in infos)]
    own = [f"{info.device}: {each}" for info in infos for each in info.why if each not in shared]
    why = (f"{len(infos)} engines, one on each device, behind one queue", *shared, *own)
    named = f"{len(devices)} GPUs: {', '.join(devices)}"
    return replace(first, device=named, max_slots=max_slots, why=why)
