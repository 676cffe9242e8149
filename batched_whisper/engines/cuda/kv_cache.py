"""Memory for the slots' keys and values: arrays of fixed shape, allocated once and never moved.

A slot's row is as long as the longest window, because recorded CUDA graphs need fixed addresses.
Only the positions in use are read, and reading is what takes time. There is one row more than there
are slots: the padding slot, which padding tokens and positions write to.

The keys and values of the audio, most of what a step reads, can be stored as int8: whole numbers
from -127 to 127, with a scale per window, head and channel. The scales cost nothing when the
numbers are read: those of keys are multiplied into the query, those of values into the result.

This module knows shapes and bytes, and nothing of what the numbers mean.
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
"""The largest int8 value in use; the smallest is its negative."""
MIN_PEAK = 1e-12
"""Lower bound of a channel's peak, so that a channel of zeros has a scale too."""
COPY_CHUNK_BYTES = 1 << 28
"""The most bytes of rows that are copied at once, since a copy needs temporary memory of the same
size:
gigabytes if all windows of a batch branch in the same step."""


class LayerKV(NamedTuple):
    """Keys and values of one layer: ``numbers * scales``, or the numbers alone.

    ``numbers`` is ``[2, rows, heads, longest, head_width]``; ``scales``, for int8 only, ``[2, rows,
    heads, head_width]`` float32.
    """

    numbers: torch.Tensor
    scales: torch.Tensor | None = None


def int8_scales(peaks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scales of channels with these peaks, and the factors that quantise them."""
    peaks = peaks.clamp(min=MIN_PEAK)
    return peaks / INT8_MAX, INT8_MAX / peaks


@dataclass(frozen=True)
class SlotCopy:
    """A copy of one slot's keys and values to another slot.

    Attributes:
        source: the slot to read.
        target: the slot to write.
        audio: the layout of the source's positions; None if the target already holds the same
            audio.
        length: the number of tokens of the source's text.
    """

    source: int
    target: int
    audio: Layout | None
    length: int


@dataclass(frozen=True)
class KVCache:
    """Keys and values: axis 0 is the layer, axis 1 keys or values, axis 2 the slot.

    Attributes:
        cross_kv: ``[layers, 2, slots + 1, heads, n_audio_ctx, head_width]``.
        scales: ``[layers, 2, slots + 1, heads, head_width]`` float32 if ``cross_kv`` is int8, else
            None.
        self_kv: ``[layers, 2, slots + 1, heads, n_text_ctx, head_width]``.
        contexts: ``[slots + 1]``, the number of positions in use per row of ``cross_kv``; for
            ``self_kv`` it follows from a token's position.
        n_own: ``[slots + 1]``, how many of them are the window's own; the others are merged
            positions.
        log_sizes: ``[slots + 1]`` float32, added to the scores of merged positions
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
        """The row of padding tokens."""
        return len(self.contexts) - 1

    def layer_cross_kv(self, layer: int) -> LayerKV:
        """Return one layer's keys and values of the audio."""
        return LayerKV(self.cross_kv[layer], None if self.scales is None else self.scales[layer])

    def layer_self_kv(self, layer: int) -> LayerKV:
        """Return one layer's keys and values of the text."""
        return LayerKV(self.self_kv[layer])

    def slot_cross_kv(
        self, layer: int, slot: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a slot's dequantised keys and values, ``[1, heads, length, head_width]`` each."""
        pair = self.cross_kv[layer, :, slot, None, :, :length].to(self.self_kv.dtype)
        if self.scales is not None:
            pair = (pair * self.scales[layer, :, slot, None, :, None]).to(self.self_kv.dtype)
        keys, values = pair
        return keys, values

    def set_layouts(self, batch: PackedBatch) -> None:
        """Set the layouts of the batch's slots."""
        slots = batch.slots
        self.contexts[slots] = batch.lengths.clamp(min=1)  # the padding slot is read as well
        self.n_own[slots] = batch.n_own
        self.log_sizes[slots] = batch.log_sizes


def copy_slots(cache: KVCache, copies: Sequence[SlotCopy]) -> None:
    """Copy slots: all texts at once, and all audio; no target may be a source."""
    _copy_rows(cache.self_kv, copies, max(each.length for each in copies))
    with_audio = [(each, len(each.audio)) for each in copies if each.audio is not None]
    if not with_audio:
        return
    audio_copies = [each for each, _ in with_audio]
    _copy_rows(cache.cross_kv, audio_copies, max(length for _, length in with_audio))
    sources, targets = _rows(audio_copies, cache.self_kv.device)
    if cache.scales is not None:
        cache.scales[:, :, targets] = cache.scales[:, :, sources]
    for numbers in (cache.contexts, cache.n_own, cache.log_sizes):
        numbers[targets] = numbers[sources]


def _copy_rows(array: torch.Tensor, copies: Sequence[SlotCopy], longest: int) -> None:
    """Copy the first ``longest`` positions of rows, at most `COPY_CHUNK_BYTES` at once."""
    row_bytes = longest * array[0, :, 0, :, 0].numel() * array.itemsize  # of one layer
    n_at_once = max(1, COPY_CHUNK_BYTES // max(1, row_bytes))  # rows of one layer
    for i in range(0, len(copies), n_at_once):
        some = copies[i : i + n_at_once]
        sources, targets = _rows(some, array.device)
        for layers in array.split(max(1, n_at_once // len(some))):
            layers[:, :, targets, :, :longest] = layers[:, :, sources, :, :longest]


def _rows(copies: Sequence[SlotCopy], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return source and target indices on the device."""
    rows = [[each.source for each in copies], [each.target for each in copies]]
    sources, targets = torch.tensor(rows, device=device)
    return sources, targets


def slot_bytes(sizes: Dimensions, dtype: torch.dtype, cross_dtype: torch.dtype) -> int:
    """Return the bytes per slot; ``cross_dtype`` is the type of the cross-attention cache."""
    cross_bytes, self_bytes = (
        sizes.n_audio_ctx * cross_dtype.itemsize,
        sizes.n_text_ctx * dtype.itemsize,
    )
    scales = torch.float32.itemsize if cross_dtype is torch.int8 else 0
    n_bytes: int = sizes.n_text_layer * 2 * sizes.n_text_state * (cross_bytes + self_bytes + scales)
    return n_bytes


def allocate_kv_cache(
    sizes: Dimensions,
    n_slots: int,
    dtype: torch.dtype,
    device: torch.device,
    cross_dtype: torch.dtype | None = None,
) -> KVCache:
    """Allocate zeros (masked values must be finite). Raises torch.OutOfMemoryError.

    ``cross_dtype`` is the type of the cross-attention cache, int8 or by default ``dtype``.
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
