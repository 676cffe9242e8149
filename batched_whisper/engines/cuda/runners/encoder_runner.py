"""Runs batches of windows: features or samples in, keys and values to the cache.

The host writes these and the batch's description to pinned memory, from which the device copies
while it still computes the batch before. On a GPU, the rest is recorded as CUDA graphs for a few
numbers of positions; batches between those are padded. On a CPU it just runs, without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch

from batched_whisper.engines.cuda.cuda_graphs import (
    RecordedGraphs,
    StreamSlot,
    blocking_event,
    try_to_record,
)
from batched_whisper.engines.cuda.kv_cache import KVCache
from batched_whisper.engines.cuda.model.decoder import Decoder
from batched_whisper.engines.cuda.model.encoder import Encoder
from batched_whisper.engines.cuda.model.log_mel import Spectrogram, lay_samples, n_samples
from batched_whisper.engines.cuda.packed_batch import (
    BatchShape,
    PackedBatch,
    frame_starts,
    split_batches,
    write_batch,
)
from batched_whisper.engines.interface import EncodeRow
from batched_whisper.engines.merged_padding import Layout, append_silence
from batched_whisper.models.dimensions import Dimensions
from batched_whisper.types import Samples

_IN_FULL_WINDOWS = (1 / 3, 2 / 3, 1, 4 / 3, 2, 3, 4, 5, 6, 7, 8)
"""Recorded numbers of positions, in full windows; the last is the most of a batch: eight full
windows fill a GPU."""


def recorded_positions(full: int) -> list[int]:
    """Return the numbers of positions that are recorded; the last is the most of a batch."""
    return [round(full * n) for n in _IN_FULL_WINDOWS]


class EncoderRunner:
    """Runs batches of windows.

    Args:
        encoder: the encoder.
        decoder: writes its output to the cache.
        cache: the slots' keys and values.
        sizes: the model's dimensions.
        from_samples: whether windows are given as samples, whose features are computed on the
            device.
        stream_slots: the streams to record CUDA graphs on.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        cache: KVCache,
        sizes: Dimensions,
        *,
        from_samples: bool,
        stream_slots: Sequence[StreamSlot] = (),
    ) -> None:
        device = cache.self_kv.device
        self._full = sizes.n_audio_ctx
        recorded = recorded_positions(self._full)
        self._max_positions = recorded[-1]
        self._device_pass = _EncoderPass(
            encoder, decoder, cache, sizes, from_samples, self._max_positions
        )
        self.graphs = RecordedGraphs(self._device_pass.run, recorded)
        """The device's part of a batch, for what was sent last, by its number of positions."""
        n_staged = 2 if device.type == "cuda" else 1
        self._staged = cycle([_Staged(self._device_pass, device) for _ in range(n_staged)])
        self.why = "encoding is not recorded"
        if stream_slots:
            self.record(stream_slots)

    def run(
        self, rows: Sequence[EncodeRow], layouts: Sequence[Layout], stream_slot: int = 0
    ) -> None:
        """Encode windows into their slots in as few batches as hold them."""
        for each in split_batches(
            [len(window_layout) for window_layout in layouts], self._max_positions
        ):
            self._run([rows[i] for i in each], [layouts[i] for i in each], stream_slot)

    def record(self, stream_slots: Sequence[StreamSlot]) -> None:
        """Record batches as CUDA graphs if possible. Raises torch.OutOfMemoryError."""
        self.why = try_to_record("encoding", [self.graphs], stream_slots)

    def _run(self, rows: Sequence[EncodeRow], layouts: Sequence[Layout], stream_slot: int) -> None:
        n_positions = self.graphs.size(sum(len(each) for each in layouts))
        batch_shape, staged = self._device_pass.batch_shape(n_positions), next(self._staged)
        staged.wait()
        write_batch([row.slot for row in rows], layouts, batch_shape, staged.numbers)
        audio = staged.audio[: self._device_pass.n_audio(batch_shape)]
        for row, window_layout, start in zip(rows, layouts, frame_starts(layouts), strict=True):
            self._write_window(row, window_layout, start, audio)
        staged.send(batch_shape.n_numbers, len(audio))
        self.graphs.replay(n_positions, stream_slot)

    def _write_window(
        self, row: EncodeRow, window_layout: Layout, start: int, audio: Samples
    ) -> None:
        """Write one window to its frames."""
        if self._device_pass.from_samples:
            lay_samples(row.features, start, window_layout.n_frames, audio)
            return
        features = append_silence(row.features, self._full)
        audio.reshape(len(features), -1)[:, start : start + window_layout.n_frames] = features


class _EncoderPass:
    """The device's part of a batch, on memory at fixed addresses.

    Holds no reference to its graphs: a reference cycle would keep GPU memory until Python's garbage
    collector runs.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        cache: KVCache,
        sizes: Dimensions,
        from_samples: bool,
        max_positions: int,
    ) -> None:
        device = cache.self_kv.device
        self._encoder, self._decoder, self._cache = encoder, decoder, cache
        self._full, self._n_mels = sizes.n_audio_ctx, sizes.n_mels
        self._spectrogram = Spectrogram(sizes.n_mels, device) if from_samples else None
        largest = self.batch_shape(max_positions)
        self.numbers = torch.zeros(largest.n_numbers, dtype=torch.int32, device=device)
        """The description of the batch, see `packed_batch`."""
        self.audio = torch.zeros(self.n_audio(largest), device=device)
        """Features or samples of all windows."""

    @property
    def from_samples(self) -> bool:
        """Whether windows are given as samples."""
        return self._spectrogram is not None

    def run(self, n_positions: int) -> None:
        """Encode the current batch of ``n_positions``."""
        batch_shape = self.batch_shape(n_positions)
        batch = PackedBatch.of(self.numbers, batch_shape)
        audio = self.audio[: self.n_audio(batch_shape)]
        features = (
            audio.view(self._n_mels, -1)
            if self._spectrogram is None
            else self._spectrogram(audio, batch)
        )
        self._decoder.write_cross_kv(self._cache, self._encoder(features, batch), batch)

    def n_audio(self, batch_shape: BatchShape) -> int:
        """Return the number of features or samples of a batch."""
        if self._spectrogram is not None:
            return n_samples(batch_shape.n_frames)
        return self._n_mels * batch_shape.n_frames

    def batch_shape(self, n_positions: int) -> BatchShape:
        """Return the shape of a batch of ``n_positions``."""
        return BatchShape(n_positions, self._full, self._cache.padding_slot)


class _Staged:
    """Pinned host memory, from which the device copies asynchronously."""

    def __init__(self, target: _EncoderPass, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._target = target
        self._numbers = torch.zeros(
            target.numbers.shape, dtype=target.numbers.dtype, pin_memory=on_gpu
        )
        self._audio = torch.zeros(target.audio.shape, pin_memory=on_gpu)
        self._sent = blocking_event() if on_gpu else None
        self.numbers = self._numbers.numpy()
        """The same memory as NumPy arrays."""
        self.audio = self._audio.numpy()

    def wait(self) -> None:
        """Wait until the memory may be written."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self, n_numbers: int, n_audio: int) -> None:
        """Start to copy that many numbers to the device."""
        self._target.numbers[:n_numbers].copy_(self._numbers[:n_numbers], non_blocking=True)
        self._target.audio[:n_audio].copy_(self._audio[:n_audio], non_blocking=True)
        if self._sent is not None:
            self._sent.record()
