"""The protocol between the batching loop and a device: encode windows, step slots, release.

A **slot** is a place in the engine's memory for one window: its encoded audio (the decoder's
cross-attention keys and values) and its self-attention keys and values. Slots are numbered from
0 to ``max_slots - 1``; who uses which is the loop's business, where the memory lies is the
engine's. One thread at a time may call an engine.

It knows nothing of queues, languages or texts.
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
    """What runs where, and the reasons in words."""

    engine: str
    device: str
    precision: str
    threads: int
    max_slots: int
    why: tuple[str, ...] = ()
    encode_batch_size: int = 1
    """How many windows in one call of `Engine.encode` fill the device."""
    tokens_per_step: int = 1
    """How many tokens of a row one call of `Engine.step` may choose. With more than one, prompts
    are best given whole: then a row's probe may be asked before its last token."""
    takes_samples: bool = False
    """Whether it makes features itself: windows come as samples (`EncodeRow`)."""
    async_steps: bool = False
    """Whether it is a `AsyncEngine`: `start` returns before the step is done, so that windows are
    best encoded meanwhile."""


@dataclass(frozen=True)
class EncodeRow:
    """A window to encode into a slot, in place of whatever the slot held.

    ``features`` is ``[n_mels, 2 * audio_context]``, owned by the caller and read before the call
    returns; for an engine that takes samples it is those, ``[n]``, at 16 kHz and no more than 320 a
    position. ``audio_context`` counts encoder positions of 20 ms, at most 1500. What is missing to
    those is silence, and heard as `merged_padding` says.
    """

    slot: int
    features: Features | Samples
    audio_context: int


@dataclass(frozen=True)
class StepRow:
    """What one slot is fed in a step.

    ``tokens`` go to positions ``position``, ``position + 1``, ...; whatever the slot knew from
    ``position`` on is forgotten, so position 0 starts the text anew on the same audio. With
    ``allowed`` of None nothing is chosen (more of the prompt is to come).
    """

    slot: int
    tokens: tuple[int, ...]
    position: int
    allowed: Allowed | None
    sampling: Sampling = GREEDY
    probe: int | None = None
    """A token whose softmax probability among all is wanted, before anything is masked."""
    n_best: int = 0
    """How many of the most probable tokens are wanted besides the chosen one."""
    probe_at: int | None = None
    """Which of ``tokens`` the probe is asked after; the last one if it is not said."""
    n_tokens: int = 1
    """How many tokens may be chosen, one after another, by an engine that can (`EngineInfo`)."""
    constraints: ConstraintState | None = None
    """What is allowed after the first of them; needed for more than one."""


@dataclass(frozen=True)
class StepResult:
    """The token chosen after a row's last one, and its natural log-probability among the allowed.

    ``probed`` is the probability of the row's ``probe``. ``best`` are the ``n_best`` tokens that
    the row asked for, the most probable first, or all that are allowed if those are fewer. ``more``
    are tokens chosen after that, as calls of their own would have: up to the end of text or the
    row's ``n_tokens``, or as few as the engine likes. The slot knows all but the last of them.
    """

    token: int
    logprob: float
    probed: float | None = None
    best: tuple[Choice, ...] = ()
    more: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class CopyRow:
    """What slot ``source`` knows, audio and text, for slot ``target`` in place of its own."""

    source: int
    target: int


@dataclass(frozen=True)
class AlignRow:
    """A text to lay alongside the audio that a slot holds.

    ``tokens`` are all of it: the start of the transcript with the promise of no timestamps, the
    text, and the end of text where the text context has room for it. ``n_prompt`` counts those
    before the text.
    """

    slot: int
    tokens: tuple[int, ...]
    n_prompt: int


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where the alignment heads look while a given text is said; the arrays are the caller's.

    ``weights`` is ``[n_heads, n_tokens, audio_context]`` float32: the cross-attention of the
    checkpoint's alignment heads, after the softmax over the slot's own audio context. Row ``i``
    is what is heard for the token *after* token ``i``. ``logprobs`` is ``[n_tokens]`` float32:
    of each token its natural log-probability among all, given those before; of the prompt 0.
    """

    weights: NDArray[np.float32]
    logprobs: NDArray[np.float32]


class Engine(Protocol):
    """A device that runs a Whisper model for many windows at once."""

    @property
    def info(self) -> EngineInfo:
        """What runs where."""

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Encode windows into their slots. Raises EngineError."""

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """One decoder pass; a result for each row in order, None where nothing was asked.

        A row's result does not depend on the other rows. Every slot has been encoded before, and
        stands in one row at most. Raises EngineError.
        """

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Let slots go on from where others are: afterwards each pair is alike, and independent.

        A target need not have been encoded; where it holds the same audio already, as the beams
        of one window do, that need not move. A slot is target of one row at most, and is not read
        in the call that overwrites it. Raises EngineError.
        """

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """Lay texts alongside the audio of their slots; an alignment for each row in order.

        The slots keep their audio, and what they know of a text too. A row's result does not
        depend on the other rows. What this needs is built on the first call. Raises EngineError.
        """

    def release(self, slots: Sequence[int]) -> None:
        """The slots' contents are no longer needed."""

    def close(self) -> None:
        """Give back the device's memory; no call may follow."""


PendingStep: TypeAlias = Callable[[], list[StepResult | None]]
"""A step that was begun: called, once, it waits for the step and gives what `Engine.step` would,
or raises EngineError."""


class AsyncEngine(Engine, Protocol):
    """An engine whose device computes while the host does something else."""

    def start(self, rows: Sequence[StepRow]) -> PendingStep:
        """Begin a step: ``step(rows)`` is ``start(rows)()``.

        Until it was waited for, only `encode` and `release` may be called, of slots that no row
        of the step names. Raises EngineError; then nothing was begun.
        """


def as_async_engine(engine: Engine) -> AsyncEngine | None:
    """The engine, if it says that it works ahead."""
    return cast("AsyncEngine", engine) if engine.info.async_steps else None


def combined_info(infos: Sequence[EngineInfo]) -> EngineInfo:
    """One description of engines behind one queue, one at least; slots are added up.

    Of engines that share a device the first one speaks for all. Of several devices each is named;
    a reason that all of them give is given once, any other with the device that it is about.
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
