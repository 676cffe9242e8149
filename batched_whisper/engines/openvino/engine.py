"""The engine for every CPU, on OpenVINO: `interface.Engine` over graphs and a set of pools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper._openvino import ov
from batched_whisper.decoding.rules import TokenIds, TokenMask
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
from batched_whisper.engines.merged_padding import Layout, layout, with_silence
from batched_whisper.engines.openvino import malloc_trim
from batched_whisper.engines.openvino.aligner import Aligner
from batched_whisper.engines.openvino.decoder import OUTPUTS, DecoderGraph, cache_input
from batched_whisper.engines.openvino.encoder import build_encoder
from batched_whisper.engines.openvino.pool_batches import (
    UNASKED,
    Block,
    Fed,
    fed_together,
    no_rows,
    some_rows,
    whole_pool,
)
from batched_whisper.engines.openvino.pools import CacheShape, Pool
from batched_whisper.engines.openvino.runtime import Runtime, choose_arithmetic, shared_core
from batched_whisper.engines.openvino.token_choice import Found
from batched_whisper.engines.validation import CallChecks
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.types import Features

POOL_SHARES = (0.25, 0.45, 0.7, 1.0)
"""The positions of the pools, as shares of the full audio context.

Four pools read at most about a third more than each row's own context, and cost little where
they are empty.
"""


WINDOWS_OF_A_BURST = 256
"""After so many, and as soon as nobody is left, memory that they freed is given back."""

_NO_TIMESTAMPS = range(1, 1)


@dataclass(frozen=True)
class _Place:
    """Where a slot lies."""

    pool: int
    row: int


class OpenVinoEngine:
    """Runs one checkpoint on the CPU.

    Args:
        checkpoint: the weights.
        ids: the special tokens that the graph needs to know.
        max_slots: how many windows may be decoded at once.
        precision: float32, bfloat16, int8 (linear layers only), or auto.
        threads: processor threads; None takes all.
        cache_dir: where compiled graphs are kept; None keeps none.
        runtime: instead of the three before, one that is shared with engines of the same model.
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
            arithmetic = choose_arithmetic(precision, shared_core())
            runtime = Runtime(arithmetic, threads, cache_dir, width=sizes.n_text_state)
        arithmetic = runtime.arithmetic
        kind = arithmetic.cache_type
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
        self._pools = [Pool(context, shape) for context in contexts]
        self._shape = shape
        key = f"{checkpoint.sha256} {len(contexts)}"
        try:
            encoder = runtime.compile(
                f"encoder {key}",
                lambda: build_encoder(checkpoint, kind, eight_bits=arithmetic.eight_bits),
            )
            decoder = runtime.compile(
                f"decoder {key}",
                lambda: DecoderGraph(
                    checkpoint, ids, len(contexts), kind, eight_bits=arithmetic.eight_bits
                ).build(),
            )
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot build the model: {_last_line(error)}") from error
        self._encoder = encoder.create_infer_request()
        self._prime_encoder(sizes.n_mels)
        self._checks = CallChecks(max_slots, sizes)
        self._decoder = decoder.create_infer_request()
        self._aligner = Aligner(checkpoint, runtime, key, ids.eot)
        self._places: dict[int, _Place] = {}
        self._n_encoded = 0  # since memory was given back
        self._masks = _MaskTable(ids)
        self._bound: dict[str, object] = {}  # what the decoder's inputs hold now
        self._memory: dict[str, object] = {}
        self.info = EngineInfo(
            engine="openvino",
            device="cpu",
            precision=arithmetic.precision,
            threads=runtime.threads,
            max_slots=max_slots,
            why=(
                f"OpenVINO {ov.__version__.split('-')[0]} on the CPU",
                arithmetic.why,
                *runtime.why,
            ),
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """One window at a time: on a CPU the encoder gains nothing from company."""
        self._n_encoded += len(rows)
        for row in rows:
            self._checks.encode(row)
            laid_out = layout(row.audio_context, self._full_context)
            with _failures("encoding"):
                self._encode(with_silence(row.features, self._full_context), laid_out)
            encoded = [self._numbers(tensor)[0] for tensor in self._encoder.output_tensors]
            place = self._make_place(row.slot, len(laid_out))
            self._pools[place.pool].hear(place.row, encoded, laid_out)

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """Rows with one token go together, and so do neighbours that are fed the same number."""
        self._checks.step(rows, self._lengths())
        results: dict[int, StepResult | None] = {}
        together = [row for row in rows if len(row.tokens) == 1]
        if together:
            results.update(self._pass([self._fed(row) for row in together]))
        for alike in fed_together(self._fed(row) for row in rows if len(row.tokens) > 1):
            results.update(self._pass(alike))
        return [results[row.slot] for row in rows]

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Within the source's pool; of a window's own beams the text alone moves."""
        self._checks.copy(rows, self._places)
        for row in rows:
            source = self._places[row.source]
            target = self._place_in(source.pool, row.target)
            # Taking the target out of another pool moves no row of this one.
            self._pools[source.pool].copy(source.row, target.row)

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """One text at a time: its tokens fill the processor, and company gains a tenth."""
        for row in rows:
            self._checks.align(row, self._places)
        alignments = []
        for row in rows:
            place = self._places[row.slot]
            pool = self._pools[place.pool]
            cross = pool.cross[:, place.row : place.row + 1]
            with _failures("aligning words"):
                alignments.append(self._aligner.align(row, cross, pool.layouts[place.row]))
        return alignments

    def release(self, slots: Sequence[int]) -> None:
        """Pack the rows that stay."""
        for slot in slots:
            place = self._places.pop(slot, None)
            if place is not None:
                self._leave(place)
        if not self._places and self._n_encoded >= WINDOWS_OF_A_BURST:
            self._n_encoded = 0
            malloc_trim.give_back()

    def close(self) -> None:
        """Forget the graphs and the caches."""
        self._pools.clear()
        self._places.clear()
        del self._encoder, self._decoder, self._aligner

    def _encode(self, features: Features, laid_out: Layout) -> None:
        scores = laid_out.scores[None, None, None]
        inputs = (features[None], laid_out.frames, laid_out.positions, scores)
        self._encoder.infer(dict(enumerate(inputs)), share_inputs=True)

    def _prime_encoder(self, n_mels: int) -> None:
        """Run it once on next to nothing, two positions of it.

        Where the first window ever is of a single position, OpenVINO (2026.4 at least) goes on to
        compute wrongly for all later ones of other lengths.
        """
        with _failures("encoding"):
            self._encode(np.zeros((n_mels, 4), np.float32), layout(2, 2))

    def _lengths(self) -> dict[int, int]:
        """How many tokens each slot knows that was encoded."""
        return {
            slot: int(self._pools[place.pool].lengths[place.row])
            for slot, place in self._places.items()
        }

    def _leave(self, place: _Place) -> None:
        moved = self._pools[place.pool].remove(place.row)
        if moved is not None:
            self._places[moved] = place

    def _make_place(self, slot: int, n_positions: int) -> _Place:
        pool = next(g for g, pool in enumerate(self._pools) if pool.context >= n_positions)
        return self._place_in(pool, slot)

    def _place_in(self, pool: int, slot: int) -> _Place:
        """The slot's row in that pool; one that it has in another is given up."""
        place = self._places.get(slot)
        if place is not None and place.pool != pool:
            self._leave(self._places.pop(slot))
            place = None
        if place is None:
            place = _Place(pool, self._pools[pool].add(slot))
            self._places[slot] = place
        return place

    def _fed(self, row: StepRow) -> Fed:
        place = self._places[row.slot]
        return Fed(place.pool, place.row, row)

    def _pass(self, fed: list[Fed]) -> dict[int, StepResult | None]:
        """One run of the decoder's graph: every row is fed the same number of tokens."""
        blocks = self._blocks(fed)
        self._set_inputs(blocks)
        with _failures("decoding"):
            self._decoder.infer()
        columns = [self._decoder.get_tensor(name).data[:, 0].tolist() for name in OUTPUTS]
        found = [Found(*numbers) for numbers in zip(*columns, strict=True)]
        new = self._numbers(self._decoder.get_tensor("new_cache"))
        results: dict[int, StepResult | None] = {}
        start = 0
        for block in blocks:
            for i, (row, asked) in enumerate(zip(block.rows, block.asked, strict=True)):
                if asked:
                    results[row.slot] = self._result(row, start + i, found[start + i])
            block.keep(new[:, start : start + len(block)])
            start += len(block)
        return results

    def _blocks(self, fed: list[Fed]) -> list[Block]:
        length, eot = len(fed[0].row.tokens), self._ids.eot
        blocks = []
        for g, pool in enumerate(self._pools):
            here = [each for each in fed if each.pool == g]
            if not here:
                blocks.append(no_rows(g, self._shape, length, eot))
            elif length == 1:
                blocks.append(whole_pool(g, pool, [each.row for each in here], eot))
            else:
                blocks.append(some_rows(g, pool, here))
        return blocks

    def _set_inputs(self, blocks: list[Block]) -> None:
        fed = [row for block in blocks for row in block.rows]
        length = len(fed[0].tokens)
        allowed = [row.allowed or UNASKED for row in fed]
        spans = [each.timestamps or _NO_TIMESTAMPS for each in allowed]
        self._masks.make_room()
        text_mask = np.array([self._masks.index(each.mask) for each in allowed], np.int32)
        first = np.array([row.position for row in fed], np.int32)[:, None]
        inputs: dict[str, NDArray[Any]] = {
            "tokens": np.array([row.tokens for row in fed], np.int32),
            "positions": first + np.arange(length, dtype=np.int32),
            "pool_rows": np.array([len(block) for block in blocks], np.int64),
            "text_mask": text_mask,
            "time_first": np.array([[span.start] for span in spans], np.float32),
            "time_last": np.array([[span.stop - 1] for span in spans], np.float32),
        }
        for block in blocks:
            inputs[f"self_mask.{block.number}"] = block.own_mask(length)
            inputs[f"cross_mask.{block.number}"] = block.cross_mask()
        for name, array in inputs.items():
            self._decoder.set_tensor(name, ov.Tensor(array))
        if self._bound.get("text_masks") is not self._masks.table:
            self._decoder.set_tensor("text_masks", ov.Tensor(self._masks.table))
            self._bound["text_masks"] = self._masks.table
        for block in blocks:
            self._bind(block)

    def _bind(self, block: Block) -> None:
        """Show the graph the rows' caches where they lie; nothing is copied."""
        name = f"pool {block.number}"
        if self._bound.get(name) == block.binding:
            return
        for i in range(self._shape.n_layers):
            for j, part in enumerate(("key", "value")):
                for kind, array in (("self", block.own), ("cross", block.cross)):
                    view = array[2 * i + j]
                    tensor = ov.Tensor(view, list(view.shape), self._cache_type)
                    self._decoder.set_tensor(cache_input(kind, i, part, block.number), tensor)
        self._bound[name] = block.binding
        self._memory[name] = (block.own, block.cross)  # the graph's tensors do not keep it alive

    def _result(self, row: StepRow, index: int, found: Found) -> StepResult | None:
        if row.allowed is None and row.probe is None:
            return None
        is_greedy = row.sampling.temperature == 0
        if is_greedy and row.probe is None and not row.n_best:
            choice = found.greedy()
            return StepResult(choice.token, choice.logprob)
        logits = self._decoder.get_tensor("logits").data[index]
        probed = None if row.probe is None else probability(logits, row.probe)
        choice = found.greedy()
        best: tuple[Choice, ...] = ()
        if row.allowed is not None:
            if not is_greedy:
                begin, at = self._ids.timestamp_begin, row.position + len(row.tokens)
                choice = choose(logits, row.allowed, begin, row.sampling, at)
            if row.n_best:
                mask = self._masks.row(row.allowed.mask)
                best = found.best(logits, mask, row.allowed.timestamps, row.n_best)
        return StepResult(choice.token, choice.logprob, probed, best)

    def _numbers(self, tensor: Any) -> NDArray[Any]:
        """A tensor as the pools keep it: float32, or the bits of bfloat16."""
        data: NDArray[Any] = tensor.data
        return data if self._cache_type == ov.Type.f32 else data.view(np.uint16)


_MOST_MASKS = 64  # 13 MB; rows of one step may bring more


class _MaskTable:
    """The token masks in use, as rows to add to the logits; timestamps are not for them."""

    def __init__(self, ids: TokenIds) -> None:
        self._begin = ids.timestamp_begin
        self._index: dict[TokenMask, int] = {}
        self.table = np.zeros((0, ids.n_vocab), np.float32)

    def make_room(self) -> None:
        """Forget the masks of long ago: callers may bring ever new lists of suppressed tokens."""
        if len(self.table) > _MOST_MASKS:
            self._index.clear()
            self.table = self.table[:0]

    def row(self, mask: TokenMask) -> NDArray[np.float32]:
        """What the mask adds to the logits below the first timestamp, ``[timestamp_begin]``."""
        row: NDArray[np.float32] = self.table[self.index(mask), : self._begin]
        return row

    def index(self, mask: TokenMask) -> int:
        """The number of the mask's row, which is made if it is new."""
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
    """Where OpenVINO names the cause, after the places in its source that noticed it."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
