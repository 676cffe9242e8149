"""The CPU engine on OpenVINO: `interface.Engine` over graphs and a set of pools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper._openvino import ov
from batched_whisper.decoding.rules import NO_REQUEST, TokenIds, TokenMask
from batched_whisper.decoding.sampling import Choice, choose, mask_row, probability
from batched_whisper.engines.interface import (
    Alignment,
    AlignRow,
    CopyRow,
    EncodeRow,
    EngineInfo,
    StepResult,
    StepRow,
)
from batched_whisper.engines.merged_padding import Layout, append_silence, layout
from batched_whisper.engines.openvino import malloc_trim
from batched_whisper.engines.openvino.aligner import Aligner
from batched_whisper.engines.openvino.decoder import OUTPUTS, DecoderGraph, cache_input
from batched_whisper.engines.openvino.encoder import build_encoder
from batched_whisper.engines.openvino.pool_batches import (
    PoolBatch,
    PooledRow,
    empty_pool_batch,
    group_by_length,
    partial_pool_batch,
    whole_pool_batch,
)
from batched_whisper.engines.openvino.pools import CacheShape, SlotPool
from batched_whisper.engines.openvino.runtime import Runtime, choose_precision, shared_core
from batched_whisper.engines.openvino.token_choice import RowScores
from batched_whisper.engines.validation import CallValidator
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.types import Features

POOL_SHARES = (0.25, 0.45, 0.7, 1.0)
"""The positions of the pools, as shares of the full audio context.

With four pools a row reads at most about a third more than its own context. Empty pools cost
little.
"""


WINDOWS_PER_TRIM = 256
"""After this many windows, and when no slot is in use, freed memory is returned to the system."""

_NO_TIMESTAMPS = range(1, 1)


@dataclass(frozen=True)
class _Location:
    """Where a slot's caches are."""

    pool: int
    row: int


class OpenVinoEngine:
    """Runs one checkpoint on the CPU.

    Args:
        checkpoint: the weights.
        ids: the special tokens that the graph needs.
        max_slots: the most windows that can be decoded at once.
        precision: float32, bfloat16, int8 (linear layers only), or auto.
        threads: CPU threads; None uses all processors.
        cache_dir: the folder for compiled graphs; None stores none.
        runtime: in place of the three before, a runtime shared with engines of the same model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ids: TokenIds,
        *,
        max_slots: int,
        precision: str = "auto",
        threads: int | None = None,
        cache_dir: Path | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        sizes = checkpoint.dimensions
        if runtime is None:
            chosen = choose_precision(precision, shared_core())
            runtime = Runtime(chosen, threads, cache_dir, width=sizes.n_text_state)
        chosen = runtime.precision
        kind = chosen.cache_type
        self._ids = ids
        self._full_context = sizes.n_audio_ctx
        self._cache_type = kind
        element = np.float32 if kind == ov.Type.f32 else np.uint16  # bfloat16 as its bits
        shape = CacheShape(
            max_slots,
            sizes.n_text_layer,
            sizes.n_text_head,
            sizes.n_text_state // sizes.n_text_head,
            sizes.n_text_ctx,
            element,
        )
        contexts = sorted({round(sizes.n_audio_ctx * share) for share in POOL_SHARES})
        self._pools = [SlotPool(context, shape) for context in contexts]
        self._shape = shape
        key = f"{checkpoint.sha256} {len(contexts)}"
        try:
            encoder = runtime.compile(
                f"encoder {key}",
                lambda: build_encoder(checkpoint, kind, int8=chosen.int8),
            )
            decoder = runtime.compile(
                f"decoder {key}",
                lambda: DecoderGraph(
                    checkpoint, ids, len(contexts), kind, int8=chosen.int8
                ).build(),
            )
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot build the model: {_last_line(error)}") from error
        self._encoder = encoder.create_infer_request()
        self._warm_up_encoder(sizes.n_mels)
        self._validator = CallValidator(max_slots, sizes)
        self._decoder = decoder.create_infer_request()
        self._aligner = Aligner(checkpoint, runtime, key, ids.eot)
        self._locations: dict[int, _Location] = {}
        self._n_encoded = 0  # since freed memory was returned
        self._masks = _LogitMaskTable(ids)
        self._bound: dict[str, object] = {}  # current contents of the decoder's inputs
        self._memory: dict[str, object] = {}
        self.info = EngineInfo(
            engine="openvino",
            device="cpu",
            precision=chosen.precision,
            threads=runtime.threads,
            max_slots=max_slots,
            why=(
                f"OpenVINO {ov.__version__.split('-')[0]} on the CPU",
                chosen.why,
                *runtime.why,
            ),
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Encode one window at a time: batching the encoder gains nothing on a CPU."""
        self._n_encoded += len(rows)
        for row in rows:
            self._validator.encode(row)
            window_layout = layout(row.audio_context, self._full_context)
            with _failures("encoding"):
                self._encode(append_silence(row.features, self._full_context), window_layout)
            encoded = [self._as_stored(tensor)[0] for tensor in self._encoder.output_tensors]
            location = self._locate(row.slot, len(window_layout))
            self._pools[location.pool].write_cross_kv(location.row, encoded, window_layout)

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """Run rows with one token as one batch; group rows with more by their number of tokens."""
        self._validator.step(rows, self._lengths())
        results: dict[int, StepResult | None] = {}
        single = [row for row in rows if len(row.tokens) == 1]
        if single:
            results.update(self._run_pass([self._pooled(row) for row in single]))
        for group in group_by_length(self._pooled(row) for row in rows if len(row.tokens) > 1):
            results.update(self._run_pass(group))
        return [results[row.slot] for row in rows]

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Copy within the source's pool; between beams of one window copy only the text."""
        self._validator.copy(rows, self._locations)
        for row in rows:
            source = self._locations[row.source]
            target = self._locate_in(source.pool, row.target)
            # Removing the target from another pool moves no row of this one.
            self._pools[source.pool].copy(source.row, target.row)

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """Align one text at a time: its tokens fill the processor, so batching gains a tenth."""
        for row in rows:
            self._validator.align(row, self._locations)
        alignments = []
        for row in rows:
            location = self._locations[row.slot]
            pool = self._pools[location.pool]
            cross_kv = pool.cross_kv[:, location.row : location.row + 1]
            with _failures("aligning words"):
                alignments.append(self._aligner.align(row, cross_kv, pool.layouts[location.row]))
        return alignments

    def release(self, slots: Sequence[int]) -> None:
        """Free slots; the remaining rows are packed."""
        for slot in slots:
            location = self._locations.pop(slot, None)
            if location is not None:
                self._remove(location)
        if not self._locations and self._n_encoded >= WINDOWS_PER_TRIM:
            self._n_encoded = 0
            malloc_trim.trim()

    def close(self) -> None:
        """Release the graphs and the caches."""
        self._pools.clear()
        self._locations.clear()
        del self._encoder, self._decoder, self._aligner

    def _encode(self, features: Features, window_layout: Layout) -> None:
        scores = window_layout.scores[None, None, None]
        inputs = (features[None], window_layout.frames, window_layout.positions, scores)
        self._encoder.infer(dict(enumerate(inputs)), share_inputs=True)

    def _warm_up_encoder(self, n_mels: int) -> None:
        """Run the encoder once on a window of two positions.

        If the first window has a single position, OpenVINO (at least 2026.4) computes wrong results
        for all later windows of other lengths.
        """
        with _failures("encoding"):
            self._encode(np.zeros((n_mels, 4), np.float32), layout(2, 2))

    def _lengths(self) -> dict[int, int]:
        """Return the number of tokens in each encoded slot."""
        return {
            slot: int(self._pools[location.pool].lengths[location.row])
            for slot, location in self._locations.items()
        }

    def _remove(self, location: _Location) -> None:
        moved = self._pools[location.pool].remove(location.row)
        if moved is not None:
            self._locations[moved] = location

    def _locate(self, slot: int, n_positions: int) -> _Location:
        pool = next(g for g, pool in enumerate(self._pools) if pool.context >= n_positions)
        return self._locate_in(pool, slot)

    def _locate_in(self, pool: int, slot: int) -> _Location:
        """Return the slot's row in that pool; a row that it has in another pool is removed."""
        location = self._locations.get(slot)
        if location is not None and location.pool != pool:
            self._remove(self._locations.pop(slot))
            location = None
        if location is None:
            location = _Location(pool, self._pools[pool].add(slot))
            self._locations[slot] = location
        return location

    def _pooled(self, row: StepRow) -> PooledRow:
        location = self._locations[row.slot]
        return PooledRow(location.pool, location.row, row)

    def _run_pass(self, rows: list[PooledRow]) -> dict[int, StepResult | None]:
        """Run the decoder's graph once; every row has the same number of tokens."""
        batches = self._pool_batches(rows)
        self._set_inputs(batches)
        with _failures("decoding"):
            self._decoder.infer()
        columns = [self._decoder.get_tensor(name).data[:, 0].tolist() for name in OUTPUTS]
        scores = [RowScores(*numbers) for numbers in zip(*columns, strict=True)]
        new = self._as_stored(self._decoder.get_tensor("new_cache"))
        results: dict[int, StepResult | None] = {}
        start = 0
        for batch in batches:
            for i, (row, requested) in enumerate(zip(batch.rows, batch.requested, strict=True)):
                if requested:
                    results[row.slot] = self._result(row, start + i, scores[start + i])
            batch.store(new[:, start : start + len(batch)])
            start += len(batch)
        return results

    def _pool_batches(self, rows: list[PooledRow]) -> list[PoolBatch]:
        length, eot = len(rows[0].row.tokens), self._ids.eot
        batches = []
        for g, pool in enumerate(self._pools):
            here = [each for each in rows if each.pool == g]
            if not here:
                batches.append(empty_pool_batch(g, self._shape, length, eot))
            elif length == 1:
                batches.append(whole_pool_batch(g, pool, [each.row for each in here], eot))
            else:
                batches.append(partial_pool_batch(g, pool, here))
        return batches

    def _set_inputs(self, batches: list[PoolBatch]) -> None:
        rows = [row for batch in batches for row in batch.rows]
        length = len(rows[0].tokens)
        allowed = [row.allowed or NO_REQUEST for row in rows]
        spans = [each.timestamps or _NO_TIMESTAMPS for each in allowed]
        self._masks.make_room()
        text_mask = np.array([self._masks.index(each.mask) for each in allowed], np.int32)
        first = np.array([row.position for row in rows], np.int32)[:, None]
        inputs: dict[str, NDArray[Any]] = {
            "tokens": np.array([row.tokens for row in rows], np.int32),
            "positions": first + np.arange(length, dtype=np.int32),
            "pool_rows": np.array([len(batch) for batch in batches], np.int64),
            "text_mask": text_mask,
            "time_first": np.array([[span.start] for span in spans], np.float32),
            "time_last": np.array([[span.stop - 1] for span in spans], np.float32),
        }
        for batch in batches:
            inputs[f"self_mask.{batch.number}"] = batch.self_mask(length)
            inputs[f"cross_mask.{batch.number}"] = batch.cross_mask()
        for name, array in inputs.items():
            self._decoder.set_tensor(name, ov.Tensor(array))
        if self._bound.get("text_masks") is not self._masks.table:
            self._decoder.set_tensor("text_masks", ov.Tensor(self._masks.table))
            self._bound["text_masks"] = self._masks.table
        for batch in batches:
            self._bind(batch)

    def _bind(self, batch: PoolBatch) -> None:
        """Bind the rows' caches to the graph's inputs without a copy."""
        name = f"pool {batch.number}"
        if self._bound.get(name) == batch.binding:
            return
        for i in range(self._shape.n_layers):
            for j, part in enumerate(("key", "value")):
                for kind, array in (("self", batch.self_kv), ("cross", batch.cross_kv)):
                    view = array[2 * i + j]
                    tensor = ov.Tensor(view, list(view.shape), self._cache_type)
                    self._decoder.set_tensor(cache_input(kind, i, part, batch.number), tensor)
        self._bound[name] = batch.binding
        self._memory[name] = (
            batch.self_kv,
            batch.cross_kv,
        )  # the graph's tensors do not keep the arrays alive

    def _result(self, row: StepRow, index: int, scores: RowScores) -> StepResult | None:
        if row.allowed is None and row.probe is None:
            return None
        is_greedy = row.sampling.temperature == 0
        if is_greedy and row.probe is None and not row.n_best:
            choice = scores.greedy()
            return StepResult(choice.token, choice.logprob)
        logits = self._decoder.get_tensor("logits").data[index]
        probed = None if row.probe is None else probability(logits, row.probe)
        choice = scores.greedy()
        best: tuple[Choice, ...] = ()
        if row.allowed is not None:
            if not is_greedy:
                begin, at = self._ids.timestamp_begin, row.position + len(row.tokens)
                choice = choose(logits, row.allowed, begin, row.sampling, at)
            if row.n_best:
                mask = self._masks.row(row.allowed.mask)
                best = scores.best(logits, mask, row.allowed.timestamps, row.n_best)
        return StepResult(choice.token, choice.logprob, probed, best)

    def _as_stored(self, tensor: Any) -> NDArray[Any]:
        """View a tensor as the pools store it: float32, or the bits of bfloat16."""
        data: NDArray[Any] = tensor.data
        return data if self._cache_type == ov.Type.f32 else data.view(np.uint16)


_MAX_MASKS = 64  # 13 MB; a single step may need more


class _LogitMaskTable:
    """The token masks in use, as rows to add to the logits; -inf at all timestamps."""

    def __init__(self, ids: TokenIds) -> None:
        self._begin = ids.timestamp_begin
        self._index: dict[TokenMask, int] = {}
        self.table = np.zeros((0, ids.n_vocab), np.float32)

    def make_room(self) -> None:
        """Clear a large table: callers may use ever new lists of suppressed tokens."""
        if len(self.table) > _MAX_MASKS:
            self._index.clear()
            self.table = self.table[:0]

    def row(self, mask: TokenMask) -> NDArray[np.float32]:
        """Return the mask's values below the first timestamp, ``[timestamp_begin]``."""
        row: NDArray[np.float32] = self.table[self.index(mask), : self._begin]
        return row

    def index(self, mask: TokenMask) -> int:
        """Return the index of the mask's row, which is added if it is new."""
        if mask not in self._index:
            self._index[mask] = len(self.table)
            row = np.full((1, self.table.shape[1]), -np.inf, np.float32)
            row[0, : self._begin] = mask_row(mask, self._begin)
            self.table = np.vstack([self.table, row])
        return self._index[mask]


@contextmanager
def _failures(doing: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise EngineError(f"OpenVINO failed while {doing}: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    """Return the last line, in which OpenVINO names the cause, after its source locations."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
