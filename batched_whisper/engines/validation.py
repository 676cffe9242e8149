"""Whether an engine is called as its protocol says, before anything is computed or overwritten.

A wrong call is an error of that call alone: an index out of range would otherwise be a crash, or
another window's text. It knows the sizes of a model and no device.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batched_whisper.audio.constants import SAMPLES_PER_POSITION
from batched_whisper.engines.interface import AlignRow, CopyRow, EncodeRow, StepRow
from batched_whisper.errors import EngineError
from batched_whisper.models.dimensions import Dimensions


@dataclass(frozen=True)
class CallValidator:
    """What may be asked of an engine with so many slots and a model of these sizes.

    ``takes_samples`` is the engine's (`EngineInfo`).
    """

    n_slots: int
    sizes: Dimensions
    takes_samples: bool = False

    def encode(self, row: EncodeRow) -> None:
        """Raises EngineError for a row that cannot be encoded."""
        context = row.audio_context
        self._check_slot(row.slot)
        if not 1 <= context <= self.sizes.n_audio_ctx:
            raise EngineError(
                f"an audio context of {context} positions: give 1 to {self.sizes.n_audio_ctx}"
            )
        self._check_shape(row.features.shape, context)
        if row.features.size and not np.isfinite([row.features.min(), row.features.max()]).all():
            # One infinity would stay in the slot's memory and spoil its next windows too.
            raise EngineError("features that are not numbers: NaN or infinities")

    def step(self, rows: Sequence[StepRow], lengths: Mapping[int, int]) -> None:
        """Raises EngineError for wrong rows; ``lengths`` are the tokens of the encoded slots."""
        seen = set()
        for row in rows:
            if row.slot not in lengths:
                raise _no_audio(row.slot)
            if row.slot in seen:
                raise EngineError(f"slot {row.slot} stands in two rows of a step")
            seen.add(row.slot)
            self._check_tokens(row, lengths[row.slot])

    def copy(self, rows: Sequence[CopyRow], encoded: Container[int]) -> None:
        """Raises EngineError for rows that cannot be copied; ``encoded`` are slots with audio."""
        sources, targets = {row.source for row in rows}, [row.target for row in rows]
        for row in rows:
            if row.source not in encoded:
                raise _no_audio(row.source)
            self._check_slot(row.target)
        if len(set(targets)) < len(targets):
            raise EngineError(f"a slot is copied to twice in one call: {targets}")
        if sources & set(targets):
            raise EngineError(
                f"slots {sorted(sources & set(targets))} are read and overwritten in one call"
            )

    def align(self, row: AlignRow, encoded: Container[int]) -> None:
        """Raises EngineError for a row that cannot be aligned; ``encoded`` are slots with audio."""
        n_tokens = len(row.tokens)
        if row.slot not in encoded:
            raise _no_audio(row.slot)
        if not 1 <= row.n_prompt < n_tokens <= self.sizes.n_text_ctx:
            raise EngineError(
                f"a text of {n_tokens} tokens after the first {row.n_prompt}: give 1 or more of "
                f"both, and at most {self.sizes.n_text_ctx} in all"
            )
        self._check_vocabulary(row.tokens)

    def _check_shape(self, shape: tuple[int, ...], context: int) -> None:
        if self.takes_samples:
            if len(shape) != 1 or shape[0] > context * SAMPLES_PER_POSITION:
                raise EngineError(
                    f"samples of shape {list(shape)} where {context} positions take one channel of "
                    f"{context * SAMPLES_PER_POSITION} at most"
                )
        elif shape != (self.sizes.n_mels, 2 * context):
            raise EngineError(
                f"features of shape {list(shape)} where the model takes "
                f"{[self.sizes.n_mels, 2 * context]} for {context} positions"
            )

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.n_slots:
            raise EngineError(f"there is no slot {slot}: there are {self.n_slots}")

    def _check_tokens(self, row: StepRow, length: int) -> None:
        if not 0 <= row.position <= length:
            raise EngineError(
                f"slot {row.slot} knows {length} tokens: position {row.position} leaves a gap"
            )
        n_tokens = len(row.tokens)
        if not n_tokens or row.position + n_tokens > self.sizes.n_text_ctx:
            raise EngineError(
                f"{n_tokens} tokens from position {row.position} on: give 1 or more, "
                f"and at most {self.sizes.n_text_ctx} in all"
            )
        room = self.sizes.n_text_ctx - row.position - n_tokens
        if row.n_tokens > 1 and (row.constraints is None or row.n_tokens - 1 > room):
            raise EngineError(
                f"{row.n_tokens} tokens to say: more than one take a constraints, and there is room "
                f"for {room} to go on from"
            )
        self._check_vocabulary(row.tokens)

    def _check_vocabulary(self, tokens: Sequence[int]) -> None:
        if not all(0 <= token < self.sizes.n_vocab for token in tokens):
            raise EngineError(
                f"tokens {list(tokens)}: the model has those from 0 to {self.sizes.n_vocab - 1}"
            )


def _no_audio(slot: int) -> EngineError:
    return EngineError(f"slot {slot} holds no audio: encode a window into it")
