"""Where the slots' keys and values lie: tables of fixed shape, taken once and never moved.

A slot's row is as long as the longest window, because a graph of recorded kernels needs fixed
addresses; of a short window only its own positions are ever read, and reading is what costs time.
One row more than there are slots belongs to nobody: rows that fill up a step write there.

It knows shapes and bytes, and nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from batched_whisper.engines.cuda.company import Company
from batched_whisper.engines.stand_ins import Layout
from batched_whisper.models.dimensions import Dimensions


@dataclass(frozen=True)
class Move:
    """A slot whose keys and values go to another's row.

    ``audio`` says what its positions are, None where the other has the same audio; ``length``
    counts the tokens of its text.
    """

    source: int
    target: int
    audio: Layout | None
    length: int


@dataclass(frozen=True)
class Tables:
    """Keys and values: axis 0 is layers, axis 1 keys then values, axis 2 slots.

    ``cross`` is ``[layers, 2, slots + 1, heads, n_audio_ctx, head_width]``, ``own`` the same over
    ``n_text_ctx`` tokens. ``contexts`` ``[slots + 1]`` says how many positions of each row of
    ``cross`` are real; of ``own`` that follows from where a token stands. Of those positions the
    first ``n_own`` are the window's own, and the others have ``log_counts`` added to their scores
    (`stand_ins.Layout`).
    """

    cross: torch.Tensor
    own: torch.Tensor
    contexts: torch.Tensor
    n_own: torch.Tensor
    log_counts: torch.Tensor

    @property
    def nobody(self) -> int:
        """The row that is no slot's."""
        return len(self.contexts) - 1

    def lay_out(self, slots: torch.Tensor, company: Company) -> None:
        """Say what the positions of slots are, ``[batch]``."""
        self.contexts[slots] = company.lengths
        self.n_own[slots] = company.n_own
        self.log_counts[slots] = company.log_counts


def move(tables: Tables, moves: Sequence[Move]) -> None:
    """Copy rows; no target is a source. All texts together, and all audio."""
    sources, targets = _rows(moves, tables.own.device)
    longest = max(each.length for each in moves)
    tables.own[:, :, targets, :, :longest] = tables.own[:, :, sources, :, :longest]
    heard = [each for each in moves if each.audio is not None]
    if heard:
        sources, targets = _rows(heard, tables.own.device)
        longest = max(len(each.audio) for each in heard if each.audio is not None)
        tables.cross[:, :, targets, :, :longest] = tables.cross[:, :, sources, :, :longest]
        for numbers in (tables.contexts, tables.n_own, tables.log_counts):
            numbers[targets] = numbers[sources]


def _rows(moves: Sequence[Move], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and targets."""
    rows = [[each.source for each in moves], [each.target for each in moves]]
    sources, targets = torch.tensor(rows, device=device)
    return sources, targets


def slot_bytes(sizes: Dimensions, dtype: torch.dtype) -> int:
    """What one slot takes of the device's memory."""
    n_positions = sizes.n_audio_ctx + sizes.n_text_ctx
    n_bytes: int = dtype.itemsize
    return sizes.n_text_layer * 2 * n_positions * sizes.n_text_state * n_bytes


def take_tables(
    sizes: Dimensions, n_slots: int, dtype: torch.dtype, device: torch.device
) -> Tables:
    """Zeros: what is masked must be a number. Raises torch.OutOfMemoryError."""
    heads = sizes.n_text_head
    width = sizes.n_text_state // heads

    def zeros(length: int) -> torch.Tensor:
        shape = (sizes.n_text_layer, 2, n_slots + 1, heads, length, width)
        return torch.zeros(shape, dtype=dtype, device=device)

    contexts = torch.ones(n_slots + 1, dtype=torch.int32, device=device)
    log_counts = torch.zeros(n_slots + 1, dtype=torch.float32, device=device)
    cross, own = zeros(sizes.n_audio_ctx), zeros(sizes.n_text_ctx)
    return Tables(cross, own, contexts, contexts.clone(), log_counts)
