"""The engine for NVIDIA GPUs in PyTorch: `interface.Engine` over a cache of keys and values.

It also runs on a CPU, slowly and in float32: that is how it is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.cuda.kernels.dispatch import Heads, Operations, best_operations
from batched_whisper.engines.cuda.kernels.fp8_linear import make_fp8_linear
from batched_whisper.engines.cuda.kv_cache import (
    KVCache,
    SlotCopy,
    allocate_kv_cache,
    copy_slots,
    slot_bytes,
)
from batched_whisper.engines.cuda.memory import (
    MemoryBudget,
    allocate_slots,
    count_slots,
    reserve_bytes,
)
from batched_whisper.engines.cuda.model.decoder import Decoder
from batched_whisper.engines.cuda.model.encoder import Encoder
from batched_whisper.engines.cuda.model.layers import Weights
from batched_whisper.engines.cuda.model.token_choice import MaskTable
from batched_whisper.engines.cuda.precision import choose_precision
from batched_whisper.engines.cuda.runners.decoder_runner import DecoderRunner
from batched_whisper.engines.cuda.runners.encoder_runner import EncoderRunner, recorded_positions
from batched_whisper.engines.cuda.runners.step_rows import MASKS_PER_TOKEN, StepRunner
from batched_whisper.engines.cuda.streams import EXCLUSIVE, SHARED, Streams
from batched_whisper.engines.interface import (
    Alignment,
    AlignRow,
    CopyRow,
    EncodeRow,
    EngineInfo,
    StepResult,
    StepRow,
)
from batched_whisper.engines.merged_padding import Layout, layout, renormalise_own
from batched_whisper.engines.validation import CallValidator
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint

ENCODE_BATCH_SIZE = 64
"""Windows per call of `encode`, enough to fill several batches of similar windows."""
EXTRA_TOKENS = 64
"""The least number of tokens per pass beyond one per slot, so that a prompt needs few passes."""
MASK_ROWS = 64
"""The least number of rows of the mask table."""
N_STEP_SMS = 0
"""Multiprocessors reserved for steps; 0 shares all of them."""
TOKENS_PER_STEP = 8
"""Passes without the host, so that the device seldom waits for it (docs/lab-log.md)."""


class CudaEngine:
    """Runs one checkpoint on a GPU, or for tests on a CPU.

    Args:
        checkpoint: the weights.
        ids: the special tokens that the engine needs.
        max_slots: the most windows that can be decoded at once; fewer if memory is short.
        precision: float32, float16, bfloat16, fp8 (the encoder's linear layers), or auto.
        threads: CPU threads, if the device is a CPU; None keeps PyTorch's setting.
        cache_dir: not used; nothing is stored on disk.
        device: PyTorch's name of the device; ``cuda`` without an index is the calling thread's
            current device.
        memory_fraction: the fraction of the GPU's memory that may be used.
        kv_cache_dtype: the type of the cached keys and values of the audio, one of
            `precision.KV_CACHE_DTYPES`; auto is int8 if the precision has 16 bits or fewer.
        from_samples: whether windows are given as samples, whose log-mel spectrogram the device
            computes.
        tokens_per_step: the most tokens per row in one call of `step`.
        n_step_sms: multiprocessors reserved for steps while windows are encoded; 0 for none.
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
        kv_cache_dtype: str = "auto",
        from_samples: bool = False,
        tokens_per_step: int = TOKENS_PER_STEP,
        n_step_sms: int = N_STEP_SMS,
    ) -> None:
        self._ids, self._sizes = ids, checkpoint.dimensions
        self._tokens_per_step, self._from_samples = tokens_per_step, from_samples
        self._heads = checkpoint.alignment_heads
        with _as_engine_error(device, "starting"):
            self._device = _with_index(torch.device(device))
            self._precision = choose_precision(precision, self._device, kv_cache_dtype)
            self._streams = Streams(self._device, n_step_sms)
        if threads is not None and self._device.type == "cpu":
            torch.set_num_threads(threads)
        self._encoded_recently = self._step_in_progress = False
        with self._on_device("loading the model"):
            heads = Heads(
                self._sizes.n_text_head, self._sizes.n_text_state // self._sizes.n_text_head
            )
            operations = best_operations(self._device, self._precision.dtype, heads)
            weights = Weights(
                checkpoint.weights,
                self._device,
                self._precision.dtype,
                normalise=operations.normalise,
            )
            self._encoder = Encoder(
                self._encoder_weights(weights), self._sizes, operations.encoder_attention
            )
            self._decoder = Decoder(
                weights,
                self._sizes,
                operations.decoder_attention,
                operations.write_cross_kv,
                operations.write_self_kv,
            )
            why = self._allocate(max_slots, memory_fraction, operations)
            self._streams.synchronize()
        self._texts: dict[int, int] = {}  # the number of tokens in each encoded slot
        self._layouts: dict[int, Layout] = {}
        self._audio_ids: dict[int, int] = {}  # slots with equal ids hold the same audio
        self._next_audio_id = count()
        self._validator = CallValidator(self._cache.padding_slot, self._sizes, from_samples)
        self.info = EngineInfo(
            engine="cuda",
            device=self._device_name(),
            precision=self._precision.precision,
            threads=torch.get_num_threads(),
            max_slots=self._cache.padding_slot,
            why=(
                f"PyTorch {torch.__version__} on {self._device.type}",
                self._precision.why,
                operations.why,
                self._decoder_runner.why,
                self._encoder_runner.why,
                self._streams.why,
                why,
            ),
            encode_batch_size=ENCODE_BATCH_SIZE if self._device.type == "cuda" else 1,
            tokens_per_step=tokens_per_step,
            async_steps=True,
            takes_samples=from_samples,
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Pack the windows into as few batches as hold them, without waiting for the device."""
        for row in rows:
            self._validator.encode(row)
        rows = list({row.slot: row for row in rows}.values())  # the last row of each slot
        layouts = [layout(row.audio_context, self._sizes.n_audio_ctx) for row in rows]
        stream_slot = SHARED if self._is_split and self._step_in_progress else EXCLUSIVE
        with self._on_device("encoding"), self._streams.encoder_stream(stream_slot):
            self._encoder_runner.run(rows, layouts, stream_slot)
        self._encoded_recently = True
        for row, window_layout in zip(rows, layouts, strict=True):
            self._layouts[row.slot], self._texts[row.slot] = window_layout, 0
            self._audio_ids[row.slot] = next(self._next_audio_id)

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """Start a step and wait for it."""
        return self.start(rows)()

    def start(self, rows: Sequence[StepRow]) -> Callable[[], list[StepResult | None]]:
        """Start a step: all rows' tokens in as few passes as hold them, then further passes."""
        self._validator.step(rows, self._texts)
        # If windows were encoded before this step, expect more during it.
        stream_slot = SHARED if self._is_split and self._encoded_recently else EXCLUSIVE
        with self._on_device("decoding", stream_slot):
            self._streams.wait_for_encoder()
            finish = self._step_runner.start(rows, stream_slot)
        self._encoded_recently, self._step_in_progress = False, True

        def finished() -> list[StepResult | None]:
            self._step_in_progress = False
            with self._on_device("decoding"):
                results = finish()
            for row, result in zip(rows, results, strict=True):
                n_more = 0 if result is None else len(result.more)
                self._texts[row.slot] = row.position + len(row.tokens) + n_more
            return results

        return finished

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """Copy all rows at once; audio only where the target holds another."""
        self._validator.copy(rows, self._texts)
        if not rows:
            return
        with self._on_device("copying slots"):
            self._streams.wait_for_encoder()
            copy_slots(self._cache, [self._slot_copy(row) for row in rows])
        for row in rows:
            self._texts[row.target] = self._texts[row.source]
            self._layouts[row.target] = self._layouts[row.source]
            self._audio_ids[row.target] = self._audio_ids[row.source]

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        """Align one text at a time, in one pass each."""
        for row in rows:
            self._validator.align(row, self._layouts)
        with self._on_device("aligning words"):
            self._streams.wait_for_encoder()
            return [self._align(row) for row in rows]

    def release(self, slots: Sequence[int]) -> None:
        """Free slots; their memory is reused."""
        for slot in slots:
            self._texts.pop(slot, None)
            self._layouts.pop(slot, None)
            self._audio_ids.pop(slot, None)

    def close(self) -> None:
        """Release weights and cache, and return their memory to the device."""
        with self._on_device("closing"):
            self._streams.synchronize()
            del self._encoder, self._decoder, self._decoder_runner, self._step_runner, self._cache
            del self._encoder_runner
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _allocate(self, wanted: int, fraction: float, operations: Operations) -> str:
        """Allocate the cache and record graphs over it; returns the number of slots in words."""
        dtype, cross_dtype = self._precision.dtype, self._precision.cross_dtype
        n_positions = recorded_positions(self._sizes.n_audio_ctx)[-1]
        n_stream_slots = len(self._streams.encoding)
        reserve = reserve_bytes(
            self._sizes, dtype, n_positions, _max_tokens(wanted), n_stream_slots
        )
        budget = self._memory_budget(fraction)
        count = count_slots(wanted, slot_bytes(self._sizes, dtype, cross_dtype), budget, reserve)

        def allocate(n_slots: int) -> tuple[KVCache, DecoderRunner, EncoderRunner]:
            cache = allocate_kv_cache(self._sizes, n_slots, dtype, self._device, cross_dtype)
            max_tokens = _max_tokens(n_slots)
            n_masks = max(MASKS_PER_TOKEN * max_tokens, MASK_ROWS)
            passes = DecoderRunner(
                self._decoder,
                operations.choose,
                cache,
                MaskTable(n_masks, self._ids.timestamp_begin, self._device),
                self._ids,
                max_tokens=max_tokens,
                max_passes=self._tokens_per_step,
                stream_slots=self._streams.steps,
            )
            encodings = EncoderRunner(
                self._encoder,
                self._decoder,
                cache,
                self._sizes,
                from_samples=self._from_samples,
                stream_slots=() if operations.syncs_host else self._streams.encoding,
            )
            return cache, passes, encodings

        allocation = allocate_slots(allocate, count)
        self._cache, self._decoder_runner, self._encoder_runner = allocation.value
        self._step_runner = StepRunner(self._decoder_runner, self._ids.eot)
        recorded = (self._decoder_runner.graphs, self._encoder_runner.graphs)
        self._is_split = all(each.n_stream_slots > SHARED for each in recorded)
        return allocation.count.why

    def _encoder_weights(self, weights: Weights) -> Weights:
        if not self._precision.is_fp8:
            return weights
        return replace(weights, make_linear=make_fp8_linear)

    def _memory_budget(self, fraction: float) -> MemoryBudget | None:
        if self._device.type != "cuda":
            return None
        torch.cuda.empty_cache()  # temporary memory of loading weights
        free, total = torch.cuda.mem_get_info(self._device)
        return MemoryBudget(total, free, fraction)

    def _slot_copy(self, row: CopyRow) -> SlotCopy:
        source, target = row.source, row.target
        same = self._audio_ids.get(target) == self._audio_ids[source]
        audio = None if same else self._layouts[source]
        return SlotCopy(source, target, audio, self._texts[source])

    def _align(self, row: AlignRow) -> Alignment:
        tokens, window_layout = (
            torch.tensor(row.tokens, device=self._device),
            self._layouts[row.slot],
        )
        scores = self._decoder.teacher_forced(
            self._cache, row.slot, window_layout, tokens, self._heads
        )
        chosen = scores.logits.log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
        logprobs = np.zeros(len(row.tokens), np.float32)
        logprobs[row.n_prompt :] = chosen[row.n_prompt - 1 :].cpu().numpy()
        return Alignment(
            renormalise_own(scores.attention_weights.cpu().numpy(), window_layout.n_own), logprobs
        )

    def _device_name(self) -> str:
        if self._device.type != "cuda":
            return str(self._device)
        return f"{torch.cuda.get_device_name(self._device)} (GPU {self._device.index})"

    @property
    def _where(self) -> str:
        """The device's name in error messages."""
        return f"GPU {self._device.index}" if self._device.type == "cuda" else "the CPU"

    @contextmanager
    def _on_device(self, doing: str, stream_slot: int = EXCLUSIVE) -> Iterator[None]:
        """Run on this engine's device, and raise PyTorch's errors as EngineError.

        Streams, graphs and kernels use the thread's current device, so all work on a GPU must
        happen within this context.
        """
        with _as_engine_error(self._where, doing):
            if self._device.type == "cuda":
                with torch.cuda.device(self._device), self._streams.step_stream(stream_slot):
                    yield
            else:
                yield


@contextmanager
def _as_engine_error(where: str, doing: str) -> Iterator[None]:
    """Raise PyTorch's errors as EngineError, with the device and the operation."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"{where} ran out of memory while {doing}: lower max_batch_size or "
            f"gpu_memory_utilization ({_first_line(error)})"
        ) from error
    except RuntimeError as error:
        raise EngineError(
            f"PyTorch failed on {where} while {doing}: {_first_line(error)}"
        ) from error


def _max_tokens(n_slots: int) -> int:
    """Return the most tokens of one pass: one per slot, and the prompts of new windows."""
    return n_slots + max(EXTRA_TOKENS, n_slots // 2)


def _with_index(device: torch.device) -> torch.device:
    """Return a GPU with its index: what ``cuda`` means depends on the calling thread."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
