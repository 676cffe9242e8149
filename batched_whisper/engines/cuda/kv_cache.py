"""Where the slots' keys and values lie: cache of fixed shape, taken once and never moved.

A slot's row is as long as the longest window, because a graph of recorded kernels needs fixed
addresses; of a short window only its self_kv positions are ever read, and reading is what costs time.
One row more than there are slots belongs to padding_slot: rows that fill up a step write there.

What is heard of the audio, most of what a step reads, may be cross_dtype in 8 bits: whole numbers from
-127 to 127, and for every window, head and channel a scale. Scales of channels cost nothing when
the numbers are read: those of keys are multiplied into the query, those of values into the result.

It knows shapes and bytes, and nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from batched_whisper.engines.cuda.packed_batch import PackedBatch
from batched_whisper.engines.merged_padding import Layout
from batched_whisper.models.dimensions import Dimensions

INT8_MAX = 127
"""Of the whole numbers of 8 bits, and as far below zero."""
MIN_PEAK = 1e-12
"""Channels of nothing but zeros have a scale too."""
COPY_CHUNK_BYTES = 1 << 28
"""Rows on their way from one slot to another lie in memory a second time, so many of them at once:
when all windows of a batch branch in the same step, all of them together would be gigabytes."""


class LayerKV(NamedTuple):
    """Keys and values of one layer: ``numbers * scales``, or the numbers alone.

    ``numbers`` is ``[2, rows, heads, longest, head_width]``; ``scales``, of those in 8 bits,
    ``[2, rows, heads, head_width]`` float32.
    """

    numbers: torch.Tensor
    scales: torch.Tensor | None = None


def int8_scales(peaks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales of channels with these peaks, and what makes whole numbers of such channels."""
    peaks = peaks.clamp(min=MIN_PEAK)
    return peaks / INT8_MAX, INT8_MAX / peaks


@dataclass(frozen=True)
class SlotCopy:
    """A slot whose keys and values go to another's row.

    ``audio`` says what its positions are, None where the other has the same audio; ``length``
    counts the tokens of its text.
    """

    source: int
    target: int
    audio: Layout | None
    length: int


@dataclass(frozen=True)
class KVCache:
    """Keys and values: axis 0 is layers, axis 1 keys then values, axis 2 slots.

    ``cross_kv`` is ``[layers, 2, slots + 1, heads, n_audio_ctx, head_width]``, ``self_kv`` the same over
    ``n_text_ctx`` tokens; ``scales``, where `cross_kv` is in 8 bits, without the positions.
    ``contexts`` ``[slots + 1]`` says how many positions of each row of ``cross_kv`` are real; of
    ``self_kv`` that follows from where a token stands. Of those positions the first ``n_own`` are the
    window's self_kv, and the others have ``log_sizes`` added to their scores
    (`merged_padding.Layout`).
    """

    cross_kv: torch.Tensor
    scales: torch.Tensor | None
    self_kv: torch.Tensor
    contexts: torch.Tensor
    n_own: torch.Tensor
    log_sizes: torch.Tensor

    @property
    def padding_slot(self) -> int:
        """The row that is no slot's."""
        return len(self.contexts) - 1

    def layer_cross_kv(self, layer: int) -> LayerKV:
        """What one layer keeps of the audio."""
        return LayerKV(self.cross_kv[layer], None if self.scales is None else self.scales[layer])

    def layer_self_kv(self, layer: int) -> LayerKV:
        """What one layer keeps of the text."""
        return LayerKV(self.self_kv[layer])

    def slot_cross_kv(
        self, layer: int, slot: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a slot's audio in full, ``[1, heads, length, head_width]`` each."""
        pair = self.cross_kv[layer, :, slot, None, :, :length].to(self.self_kv.dtype)
        if self.scales is not None:
            pair = (pair * self.scales[layer, :, slot, None, :, None]).to(self.self_kv.dtype)
        keys, values = pair
        return keys, values

    def set_layouts(self, batch: PackedBatch) -> None:
        """WriteSelfKV what the positions of slots are."""
        slots = batch.slots
        self.contexts[slots] = batch.lengths.clamp(min=1)  # padding_slot's row is heard as well
        self.n_own[slots] = batch.n_own
        self.log_sizes[slots] = batch.log_sizes


def copy_slots(cache: KVCache, copies: Sequence[SlotCopy]) -> None:
    """Copy rows; no target is a source. All texts together, and all audio."""
    _copy_rows(cache.self_kv, copies, max(each.length for each in copies))
    heard = [(each, len(each.audio)) for each in copies if each.audio is not None]
    if not heard:
        return
    others = [each for each, _ in heard]
    _copy_rows(cache.cross_kv, others, max(length for _, length in heard))
    sources, targets = _rows(others, cache.self_kv.device)
    if cache.scales is not None:
        cache.scales[:, :, targets] = cache.scales[:, :, sources]
    for numbers in (cache.contexts, cache.n_own, cache.log_sizes):
        numbers[targets] = numbers[sources]


def _copy_rows(table: torch.Tensor, copies: Sequence[SlotCopy], longest: int) -> None:
    """The first ``longest`` positions of rows; as much at once as `COPY_CHUNK_BYTES` hold."""
    one = longest * table[0, :, 0, :, 0].numel() * table.itemsize  # row of one layer
    n_at_once = max(1, COPY_CHUNK_BYTES // max(1, one))  # rows of one layer
    for i in range(0, len(copies), n_at_once):
        some = copies[i : i + n_at_once]
        sources, targets = _rows(some, table.device)
        for layers in table.split(max(1, n_at_once // len(some))):
            layers[:, :, targets, :, :longest] = layers[:, :, sources, :, :longest]


def _rows(copies: Sequence[SlotCopy], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and targets."""
    rows = [[each.source for each in copies], [each.target for each in copies]]
    sources, targets = torch.tensor(rows, device=device)
    return sources, targets


def slot_bytes(sizes: Dimensions, dtype: torch.dtype, cross_dtype: torch.dtype) -> int:
    """What one slot takes of the device's memory; ``cross_dtype`` is the type of what is heard."""
    heard, said = sizes.n_audio_ctx * cross_dtype.itemsize, sizes.n_text_ctx * dtype.itemsize
    scales = torch.float32.itemsize if cross_dtype is torch.int8 else 0
    n_bytes: int = sizes.n_text_layer * 2 * sizes.n_text_state * (heard + said + scales)
    return n_bytes


def allocate_kv_cache(
    sizes: Dimensions,
    n_slots: int,
    dtype: torch.dtype,
    device: torch.device,
    cross_dtype: torch.dtype | None = None,
) -> KVCache:
    """Zeros: what is masked must be a number. Raises torch.OutOfMemoryError.

    ``cross_dtype`` is the type of what is heard: int8, or ``dtype`` where nothing is said.
    """
    heads = sizes.n_text_head
    width = sizes.n_text_state // heads
    rows = (sizes.n_text_layer, 2, n_slots + 1, heads)
    cross_dtype = cross_dtype or dtype
    contexts = torch.ones(n_slots + 1, dtype=torch.int32, device=device)
    scales = torch.ones((*rows, width), device=device) if cross_dtype is torch.int8 else None
    return KVCache(
        torch.zeros((*rows, sizes.n_audio_ctx, width), dtype=cross_dtype, device=device),
        scales,
        torch.zeros((*rows, sizes.n_text_ctx, width), dtype=dtype, device=device),
        contexts,
        contexts.clone(),
        torch.zeros(n_slots + 1, dtype=torch.float32, device=device),
    )
