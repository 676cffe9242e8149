"""Checks calls of an engine against its protocol before anything is computed or overwritten.

A wrong call must fail alone: an index out of range could otherwise crash the process or change
another window's text. This module knows the sizes of a model and no device.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batched_whisper.engines.interface import AlignRow, CopyRow, EncodeRow, StepRow
from batched_whisper.errors import EngineError
from batched_whisper.models.dimensions import Dimensions
from batched_whisper.types import SAMPLES_PER_POSITION


@dataclass(frozen=True)
class CallValidator:
    """Validates calls of an engine.

    Attributes:
        n_slots: the engine's number of slots.
        sizes: the model's dimensions.
        takes_samples: as in `EngineInfo`.
    """

    n_slots: int
    sizes: Dimensions
    takes_samples: bool = False

    def encode(self, row: EncodeRow) -> None:
        """Check a row of `Engine.encode`. Raises EngineError."""
        context = row.audio_context
        self._check_slot(row.slot)
        if not 1 <= context <= self.sizes.n_audio_ctx:
            raise EngineError(
                f"audio_context={context}: choose 1 to {self.sizes.n_audio_ctx} positions"
            )
        self._check_shape(row.features.shape, context)
        if row.features.size and not np.isfinite([row.features.min(), row.features.max()]).all():
            # An infinity would stay in the slot's memory and corrupt its next windows too.
            raise EngineError(
                "the features contain NaN or infinities, which are not numbers to encode"
            )

    def step(self, rows: Sequence[StepRow], lengths: Mapping[int, int]) -> None:
        """Check the rows of a step. Raises EngineError.

        Args:
            rows: the rows.
            lengths: the number of tokens in each encoded slot.
        """
        seen = set()
        for row in rows:
            if row.slot not in lengths:
                raise _no_audio(row.slot)
            if row.slot in seen:
                raise EngineError(f"slot {row.slot} is in two rows of a step")
            seen.add(row.slot)
            self._check_tokens(row, lengths[row.slot])

    def copy(self, rows: Sequence[CopyRow], encoded: Container[int]) -> None:
        """Check the rows of a copy; ``encoded`` are the slots with audio. Raises EngineError."""
        sources, targets = {row.source for row in rows}, [row.target for row in rows]
        for row in rows:
            if row.source not in encoded:
                raise _no_audio(row.source)
            self._check_slot(row.target)
        if len(set(targets)) < len(targets):
            raise EngineError(f"a slot is the target of two copies in one call: {targets}")
        if sources & set(targets):
            raise EngineError(
                f"slots {sorted(sources & set(targets))} are both source and target in one call"
            )

    def align(self, row: AlignRow, encoded: Container[int]) -> None:
        """Check a row to align; ``encoded`` are the slots with audio. Raises EngineError."""
        n_tokens = len(row.tokens)
        if row.slot not in encoded:
            raise _no_audio(row.slot)
        if not 1 <= row.n_prompt < n_tokens <= self.sizes.n_text_ctx:
            raise EngineError(
                f"{n_tokens} tokens with a prompt of {row.n_prompt}: give a prompt and a text of "
                f"1 or more tokens each, and at most {self.sizes.n_text_ctx} in all"
            )
        self._check_vocabulary(row.tokens)

    def _check_shape(self, shape: tuple[int, ...], context: int) -> None:
        if self.takes_samples:
            if len(shape) != 1 or shape[0] > context * SAMPLES_PER_POSITION:
                raise EngineError(
                    f"samples of shape {list(shape)}: {context} positions take one channel of "
                    f"at most {context * SAMPLES_PER_POSITION}"
                )
        elif shape != (self.sizes.n_mels, 2 * context):
            raise EngineError(
                f"features of shape {list(shape)}: for {context} positions the model takes "
                f"{[self.sizes.n_mels, 2 * context]}"
            )

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.n_slots:
            raise EngineError(
                f"there is no slot {slot}: slots are numbered 0 to {self.n_slots - 1}"
            )

    def _check_tokens(self, row: StepRow, length: int) -> None:
        if not 0 <= row.position <= length:
            raise EngineError(
                f"slot {row.slot} holds {length} tokens: position {row.position} would leave a gap"
            )
        n_tokens = len(row.tokens)
        if not n_tokens or row.position + n_tokens > self.sizes.n_text_ctx:
            raise EngineError(
                f"{n_tokens} tokens from position {row.position}: give 1 or more, "
                f"up to position {self.sizes.n_text_ctx - 1}"
            )
        room = self.sizes.n_text_ctx - row.position - n_tokens
        if row.n_tokens > 1 and (row.constraints is None or row.n_tokens - 1 > room):
            raise EngineError(
                f"n_tokens={row.n_tokens}: more than one needs constraints, and at most {room} "
                "more positions are left"
            )
        self._check_vocabulary(row.tokens)

    def _check_vocabulary(self, tokens: Sequence[int]) -> None:
        if not all(0 <= token < self.sizes.n_vocab for token in tokens):
            raise EngineError(
                f"tokens {list(tokens)}: the model's tokens are 0 to {self.sizes.n_vocab - 1}"
            )


def _no_audio(slot: int) -> EngineError:
    return EngineError(f"slot {slot} holds no audio: encode a window into it first")
