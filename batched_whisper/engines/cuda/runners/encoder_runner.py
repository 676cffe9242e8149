"""Batches of windows: features or samples in, keys and values in the tables.

The host lays those and numbers side by side in memory that the device copies from by itself,
while it still computes the batch before. On a GPU what follows is recorded once for each of a few
numbers of positions, as CUDA graphs; what is missing to one of those are positions that are no
window's. Elsewhere it just runs, on just so many.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch

from batched_whisper.engines.cuda.cuda_graphs import Place, Recordings, try_to_record, waited_for
from batched_whisper.engines.cuda.kv_cache import Tables
from batched_whisper.engines.cuda.model.decoder import Decoder
from batched_whisper.engines.cuda.model.encoder import Encoder
from batched_whisper.engines.cuda.model.log_mel import Spectrogram, lay_samples, n_samples
from batched_whisper.engines.cuda.packed_batch import (
    Company,
    Extent,
    companies,
    describe,
    frame_starts,
)
from batched_whisper.engines.interface import EncodeRow
from batched_whisper.engines.merged_padding import Layout, with_silence
from batched_whisper.models.dimensions import Dimensions
from batched_whisper.types import Samples

_IN_FULL_WINDOWS = (1 / 3, 2 / 3, 1, 4 / 3, 2, 3, 4, 5, 6, 7, 8)
"""Recorded numbers of positions, the last the most of a batch: eight full windows fill a GPU."""


def recorded_positions(full: int) -> list[int]:
    """For which numbers of positions a batch is recorded; the last is the most that it has."""
    return [round(full * n) for n in _IN_FULL_WINDOWS]


class Encodings:
    """Runs batches.

    Args:
        encoder: hears windows.
        decoder: keeps what was heard.
        tables: where.
        sizes: of the model.
        from_samples: whether windows come as samples, whose features are computed here.
        places: where to record CUDA graphs.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        tables: Tables,
        sizes: Dimensions,
        *,
        from_samples: bool,
        places: Sequence[Place] = (),
    ) -> None:
        device = tables.own.device
        self._full = sizes.n_audio_ctx
        recorded = recorded_positions(self._full)
        self._most = recorded[-1]
        self._on_device = _OnDevice(encoder, decoder, tables, sizes, from_samples, self._most)
        self.recordings = Recordings(self._on_device.run, recorded)
        """The device's part of a batch, on what was sent last, by its number of positions."""
        n_staged = 2 if device.type == "cuda" else 1
        self._staged = cycle([_Staged(self._on_device, device) for _ in range(n_staged)])
        self.why = "encoding is not recorded"
        if places:
            self.record(places)

    def run(self, rows: Sequence[EncodeRow], layouts: Sequence[Layout], place: int = 0) -> None:
        """Encode windows into their slots, in as few batches as hold them."""
        for each in companies([len(laid_out) for laid_out in layouts], self._most):
            self._run([rows[i] for i in each], [layouts[i] for i in each], place)

    def record(self, places: Sequence[Place]) -> None:
        """As CUDA graphs, if that can be. Raises torch.OutOfMemoryError."""
        self.why = try_to_record("encoding", [self.recordings], places)

    def _run(self, rows: Sequence[EncodeRow], layouts: Sequence[Layout], place: int) -> None:
        n_positions = self.recordings.size(sum(len(each) for each in layouts))
        extent, staged = self._on_device.extent(n_positions), next(self._staged)
        staged.wait()
        describe([row.slot for row in rows], layouts, extent, staged.numbers)
        heard = staged.heard[: self._on_device.n_heard(extent)]
        for row, laid_out, start in zip(rows, layouts, frame_starts(layouts), strict=True):
            self._lay(row, laid_out, start, heard)
        staged.send(extent.n_numbers, len(heard))
        self.recordings.play(n_positions, place)

    def _lay(self, row: EncodeRow, laid_out: Layout, start: int, heard: Samples) -> None:
        """Write one window where its frames are."""
        if self._on_device.from_samples:
            lay_samples(row.features, start, laid_out.n_frames, heard)
            return
        features = with_silence(row.features, self._full)
        heard.reshape(len(features), -1)[:, start : start + laid_out.n_frames] = features


class _OnDevice:
    """What the device does, on memory that stays where it is.

    It knows nothing of how it is recorded: of two that know each other neither is gone, nor its
    memory, when nobody needs them any more.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        tables: Tables,
        sizes: Dimensions,
        from_samples: bool,
        most: int,
    ) -> None:
        device = tables.own.device
        self._encoder, self._decoder, self._tables = encoder, decoder, tables
        self._full, self._n_mels = sizes.n_audio_ctx, sizes.n_mels
        self._spectrogram = Spectrogram(sizes.n_mels, device) if from_samples else None
        largest = self.extent(most)
        self.numbers = torch.zeros(largest.n_numbers, dtype=torch.int32, device=device)
        """Where the windows lie, see `packed_batch`."""
        self.heard = torch.zeros(self.n_heard(largest), device=device)
        """Features or samples of all of them."""

    @property
    def from_samples(self) -> bool:
        """Which of both."""
        return self._spectrogram is not None

    def run(self, n_positions: int) -> None:
        """Encode a batch of so many positions, which was sent."""
        extent = self.extent(n_positions)
        company = Company.of(self.numbers, extent)
        heard = self.heard[: self.n_heard(extent)]
        features = (
            heard.view(self._n_mels, -1)
            if self._spectrogram is None
            else self._spectrogram(heard, company)
        )
        self._decoder.hear(self._tables, self._encoder(features, company), company)

    def n_heard(self, extent: Extent) -> int:
        """Numbers that a batch's windows come as."""
        if self._spectrogram is not None:
            return n_samples(extent.n_frames)
        return self._n_mels * extent.n_frames

    def extent(self, n_positions: int) -> Extent:
        """Of a batch of so many."""
        return Extent(n_positions, self._full, self._tables.nobody)


class _Staged:
    """Memory of the host's that the device copies from by itself."""

    def __init__(self, target: _OnDevice, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._target = target
        self._numbers = torch.zeros(
            target.numbers.shape, dtype=target.numbers.dtype, pin_memory=on_gpu
        )
        self._heard = torch.zeros(target.heard.shape, pin_memory=on_gpu)
        self._sent = waited_for() if on_gpu else None
        self.numbers = self._numbers.numpy()
        """The same memory as NumPy sees it; and so what is heard."""
        self.heard = self._heard.numpy()

    def wait(self) -> None:
        """Until it may be written to."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self, n_numbers: int, n_heard: int) -> None:
        """Begin to copy so much of it to the device."""
        self._target.numbers[:n_numbers].copy_(self._numbers[:n_numbers], non_blocking=True)
        self._target.heard[:n_heard].copy_(self._heard[:n_heard], non_blocking=True)
        if self._sent is not None:
            self._sent.record()
