"""The engine for NVIDIA GPUs, in PyTorch: `interface.Engine` over tables of slots.

It runs on a processor too, slowly and in float32: that is how its correctness is tested where
there is no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.checks import CallChecks
from batched_whisper.engines.cuda.arithmetic import choose_arithmetic
from batched_whisper.engines.cuda.choosing import MaskTable
from batched_whisper.engines.cuda.company import Company, companies, to_device
from batched_whisper.engines.cuda.decoder import Decoder
from batched_whisper.engines.cuda.eight_bits import make_eight_bit_linear
from batched_whisper.engines.cuda.encoder import Encoder
from batched_whisper.engines.cuda.layers import Weights
from batched_whisper.engines.cuda.memory import Room, count_slots, take_what_fits
from batched_whisper.engines.cuda.operations import best_operations
from batched_whisper.engines.cuda.passes import Passes
from batched_whisper.engines.cuda.steps import MASKS_A_TOKEN, Steps
from batched_whisper.engines.cuda.tables import Move, move, slot_bytes, take_tables
from batched_whisper.engines.interface import (
    Alignment,
    AlignRow,
    CopyRow,
    EncodeRow,
    EngineInfo,
    StepResult,
    StepRow,
)
from batched_whisper.engines.stand_ins import Layout, layout, own_weights, with_silence
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint

ENCODE_TOGETHER = 8
"""Full windows that fill a GPU; shorter ones go together in larger numbers."""
ENCODE_POSITIONS = ENCODE_TOGETHER * 1500
"""The most encoder positions of one batch."""
ENCODE_A_CALL = 64
"""Windows of one call, so that enough of them are alike."""
MOST_TOKENS = 64
"""A pass holds at least so many tokens, so that a prompt is few passes also with few slots."""
MASK_ROWS = 64
"""The least rows of the mask table."""
TOKENS_A_CALL = 8
"""Passes without the host, so that the device seldom waits for it (docs/lab-log.md)."""


class CudaEngine:
    """Runs one checkpoint on a GPU, or for tests on the processor.

    Args:
        checkpoint: the weights.
        ids: the special tokens that it needs to know.
        max_slots: the most windows that may be decoded at once; fewer where memory is short.
        precision: float32, float16, bfloat16, fp8 (the encoder's linear layers), or auto.
        threads: of the processor, where that computes; None leaves PyTorch's own number.
        cache_dir: not used, there is nothing to keep.
        device: PyTorch's name of the device; a GPU without a number is the calling thread's own.
        memory_fraction: the share of the GPU's memory that may be used.
        tokens_a_call: the most tokens of a row in one call of `step`.
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
        device: str = "cuda",
        memory_fraction: float = 0.9,
        tokens_a_call: int = TOKENS_A_CALL,
    ) -> None:
        self._ids, self._sizes = ids, checkpoint.dimensions
        self._device = _numbered(torch.device(device))
        self._tokens_a_call = tokens_a_call
        self._heads = checkpoint.alignment_heads
        self._arithmetic = choose_arithmetic(precision, self._device)
        if threads is not None and self._device.type == "cpu":
            torch.set_num_threads(threads)
        with self._failures("loading the model"):
            weights = Weights(checkpoint.weights, self._device, self._arithmetic.dtype)
            head_width = self._sizes.n_text_state // self._sizes.n_text_head
            self._operations = best_operations(self._device, weights.dtype, head_width)
            self._encoder = Encoder(self._encoder_weights(weights), self._sizes)
            self._decoder = Decoder(weights, self._sizes, self._operations.attend)
            why = self._take_slots(max_slots, memory_fraction)
        self._texts: dict[int, int] = {}  # the tokens that each encoded slot knows
        self._layouts: dict[int, Layout] = {}
        self._audios: dict[int, int] = {}  # equal numbers: the same audio
        self._audio_numbers = count()
        self._checks = CallChecks(self._tables.nobody, self._sizes)
        self.info = EngineInfo(
            engine="cuda",
            device=self._device_name(),
            precision=self._arithmetic.precision,
            threads=torch.get_num_threads(),
            max_slots=self._tables.nobody,
            why=(
                f"PyTorch {torch.__version__} on {self._device.type}",
                self._arithmetic.why,
                self._operations.why,
                self._passes.why,
                why,
            ),
            encode_together=ENCODE_A_CALL if self._device.type == "cuda" else 1,
            tokens_a_call=tokens_a_call,
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Windows of similar contexts go together, as many as fill the device."""
        for row in rows:
            self._checks.encode(row)
        latest = list({row.slot: row for row in rows}.values())  # of two for one slot the later one
        layouts = [layout(row.audio_context, self._sizes.n_audio_ctx) for row in latest]
        for together in companies([len(each) for each in layouts], ENCODE_POSITIONS):
            self._encode([latest[i] for i in together], [layouts[i] for i in together])

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """All rows' tokens in one pass, or as few as hold them, and passes of what they say."""
        self._checks.step(rows, self._texts)
        with self._failures("decoding"):
            found = self._steps.run(rows)
        for row, result in zip(rows, found, strict=True):
            n_more = 0 if result is None else len(result.more)
            self._texts[row.slot] = row.position + len(row.tokens) + n_more
        return found

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """All together; the audio only of those who have another."""
        self._checks.copy(rows, self._texts)
        if not rows:
            return
        with self._failures("copying slots"):
            move(self._tables, [self._move(row) for row in rows])
        for row in rows:
            self._texts[row.target] = self._texts[row.source]
            self._layouts[row.target] = self._layouts[row.source]
            self._audios[row.target] = self._audios[row.source]

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """One text at a time, in one pass each."""
        for row in rows:
            self._checks.align(row, self._layouts)
        with self._failures("aligning words"):
            return [self._align(row) for row in rows]

    def release(self, slots: Sequence[int]) -> None:
        """Their memory stays, for the next ones."""
        for slot in slots:
            self._texts.pop(slot, None)
            self._layouts.pop(slot, None)
            self._audios.pop(slot, None)

    def close(self) -> None:
        """Forget weights and tables, and give their memory back to the device."""
        with self._failures("closing"):
            del self._encoder, self._decoder, self._passes, self._steps, self._tables
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _take_slots(self, wanted: int, fraction: float) -> str:
        """Take the tables and record the passes; says how many slots, and why."""
        dtype = self._arithmetic.dtype
        self._warm_encoder()
        count = count_slots(wanted, slot_bytes(self._sizes, dtype), self._room(fraction))

        def take(n_slots: int) -> Passes:
            tables = take_tables(self._sizes, n_slots, dtype, self._device)
            most = max(n_slots, MOST_TOKENS)
            n_masks = max(MASKS_A_TOKEN * most, MASK_ROWS)
            masks = MaskTable(n_masks, self._ids.timestamp_begin, self._device)
            return Passes(
                self._decoder,
                self._operations.choose,
                tables,
                masks,
                self._ids,
                most=most,
                in_a_row=self._tokens_a_call,
                record=self._device.type == "cuda",
            )

        taken = take_what_fits(take, count)
        self._passes = taken.thing
        self._tables = taken.thing.tables
        self._steps = Steps(taken.thing, self._ids.eot)
        return taken.count.why

    def _encoder_weights(self, weights: Weights) -> Weights:
        if not self._arithmetic.eight_bits:
            return weights
        return replace(weights, make_linear=make_eight_bit_linear)

    def _warm_encoder(self) -> None:
        """Its largest batch once, so that the memory for it is taken before the slots are."""
        if self._device.type != "cuda":
            return
        full, dtype = self._sizes.n_audio_ctx, self._arithmetic.dtype
        shape = (max(1, ENCODE_POSITIONS // full), self._sizes.n_mels, 2 * full)
        silence = torch.zeros(shape, dtype=dtype, device=self._device)
        for shortest in (full, full // 2):  # without a mask, and with one
            layouts = [layout(full, full)] * (shape[0] - 1) + [layout(shortest, full)]
            self._encoder(silence, Company.of(layouts, self._device, dtype))

    def _room(self, fraction: float) -> Room | None:
        if self._device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self._device)
        return Room(total, free, fraction)

    def _encode(self, rows: Sequence[EncodeRow], layouts: Sequence[Layout]) -> None:
        device, dtype = self._device, self._arithmetic.dtype
        with self._failures("encoding"):
            slots = to_device(np.array([row.slot for row in rows], np.int32), device)
            features = to_device(self._side_by_side(rows), device).to(dtype)
            company = Company.of(layouts, device, dtype)
            self._decoder.hear(self._tables, slots, self._encoder(features, company), company)
        for row, laid_out in zip(rows, layouts, strict=True):
            self._layouts[row.slot], self._texts[row.slot] = laid_out, 0
            self._audios[row.slot] = next(self._audio_numbers)

    def _side_by_side(self, rows: Sequence[EncodeRow]) -> NDArray[np.float32]:
        """The windows' features with silence behind, and nothing behind that."""
        each = [with_silence(row.features, self._sizes.n_audio_ctx) for row in rows]
        n_frames = max(features.shape[1] for features in each)
        side_by_side = np.zeros((len(rows), self._sizes.n_mels, n_frames), np.float32)
        for into, features in zip(side_by_side, each, strict=True):
            into[:, : features.shape[1]] = features
        return side_by_side

    def _move(self, row: CopyRow) -> Move:
        source, target = row.source, row.target
        same = self._audios.get(target) == self._audios[source]
        audio = None if same else self._layouts[source]
        return Move(source, target, audio, self._texts[source])

    def _align(self, row: AlignRow) -> Alignment:
        tokens, laid_out = torch.tensor(row.tokens, device=self._device), self._layouts[row.slot]
        read = self._decoder.whole_text(self._tables, row.slot, laid_out, tokens, self._heads)
        said = read.logits.log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
        logprobs = np.zeros(len(row.tokens), np.float32)
        logprobs[row.n_prompt :] = said[row.n_prompt - 1 :].cpu().numpy()
        return Alignment(own_weights(read.seen.cpu().numpy(), laid_out.n_own), logprobs)

    def _device_name(self) -> str:
        if self._device.type != "cuda":
            return str(self._device)
        return f"{torch.cuda.get_device_name(self._device)} (GPU {self._device.index})"

    @property
    def _where(self) -> str:
        """What error messages call the device."""
        return f"GPU {self._device.index}" if self._device.type == "cuda" else "the processor"

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """PyTorch's errors as ours, on this engine's device whatever the thread's own is.

        Streams, graphs and kernels are made and run on the thread's current device, so all work on
        a GPU happens in here.
        """
        try:
            if self._device.type == "cuda":
                with torch.cuda.device(self._device):
                    yield
            else:
                yield
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self._where} ran out of memory while {doing}: lower max_batch_size or "
                f"gpu_memory_fraction ({_first_line(error)})"
            ) from error
        except RuntimeError as error:
            raise EngineError(
                f"PyTorch failed on {self._where} while {doing}: {_first_line(error)}"
            ) from error


def _numbered(device: torch.device) -> torch.device:
    """A GPU by its number: which one ``cuda`` is depends on the thread that asks."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
