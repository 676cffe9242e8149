"""The engine for NVIDIA GPUs, in PyTorch: `interface.Engine` over tables of slots.

It runs on a processor too, slowly and in float32: that is how its correctness is tested where
there is no GPU.
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
from batched_whisper.engines.cuda.kernels.fp8_linear import make_eight_bit_linear
from batched_whisper.engines.cuda.kv_cache import Move, Tables, move, slot_bytes, take_tables
from batched_whisper.engines.cuda.memory import (
    Room,
    count_slots,
    reserve_bytes,
    take_what_fits,
)
from batched_whisper.engines.cuda.model.decoder import Decoder
from batched_whisper.engines.cuda.model.encoder import Encoder
from batched_whisper.engines.cuda.model.layers import Weights
from batched_whisper.engines.cuda.model.token_choice import MaskTable
from batched_whisper.engines.cuda.precision import choose_arithmetic
from batched_whisper.engines.cuda.runners.decoder_runner import Passes
from batched_whisper.engines.cuda.runners.encoder_runner import Encodings, recorded_positions
from batched_whisper.engines.cuda.runners.step_rows import MASKS_A_TOKEN, Steps
from batched_whisper.engines.cuda.streams import ALONE, BESIDE, Streams
from batched_whisper.engines.interface import (
    Alignment,
    AlignRow,
    CopyRow,
    EncodeRow,
    EngineInfo,
    StepResult,
    StepRow,
)
from batched_whisper.engines.merged_padding import Layout, layout, own_weights
from batched_whisper.engines.validation import CallChecks
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint

ENCODE_A_CALL = 64
"""Windows of one call, so that enough of them are alike."""
MOST_TOKENS = 64
"""More tokens of a pass than there are slots, so that a prompt is few passes."""
MASK_ROWS = 64
"""The least rows of the mask table."""
N_FOR_STEPS = 0
"""Multiprocessors."""
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
        kv_cache_dtype: in what the keys and values of the audio are kept: int8, same (as the
            precision), or auto: int8 where the precision has 16 bits.
        from_samples: whether windows come as samples, whose log-mel spectrogram the device makes.
        tokens_a_call: the most tokens of a row in one call of `step`.
        n_for_steps: how many of the GPU's multiprocessors steps have for themselves while windows
            are encoded at the same time.
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
        tokens_a_call: int = TOKENS_A_CALL,
        n_for_steps: int = N_FOR_STEPS,
    ) -> None:
        self._ids, self._sizes = ids, checkpoint.dimensions
        self._tokens_a_call, self._from_samples = tokens_a_call, from_samples
        self._heads = checkpoint.alignment_heads
        with _as_ours(device, "starting"):
            self._device = _numbered(torch.device(device))
            self._arithmetic = choose_arithmetic(precision, self._device, kv_cache_dtype)
            self._streams = Streams(self._device, n_for_steps)
        if threads is not None and self._device.type == "cpu":
            torch.set_num_threads(threads)
        self._encoding_lately = self._step_going_on = False
        with self._failures("loading the model"):
            heads = Heads(
                self._sizes.n_text_head, self._sizes.n_text_state // self._sizes.n_text_head
            )
            operations = best_operations(self._device, self._arithmetic.dtype, heads)
            weights = Weights(
                checkpoint.weights,
                self._device,
                self._arithmetic.dtype,
                normalise=operations.normalise,
            )
            self._encoder = Encoder(self._encoder_weights(weights), self._sizes, operations.listen)
            self._decoder = Decoder(
                weights, self._sizes, operations.attend, operations.keep, operations.say
            )
            why = self._take_slots(max_slots, memory_fraction, operations)
            self._streams.settle()
        self._texts: dict[int, int] = {}  # the tokens that each encoded slot knows
        self._layouts: dict[int, Layout] = {}
        self._audios: dict[int, int] = {}  # equal numbers: the same audio
        self._audio_numbers = count()
        self._checks = CallChecks(self._tables.nobody, self._sizes, from_samples)
        self.info = EngineInfo(
            engine="cuda",
            device=self._device_name(),
            precision=self._arithmetic.precision,
            threads=torch.get_num_threads(),
            max_slots=self._tables.nobody,
            why=(
                f"PyTorch {torch.__version__} on {self._device.type}",
                self._arithmetic.why,
                operations.why,
                self._passes.why,
                self._encodings.why,
                self._streams.why,
                why,
            ),
            encode_together=ENCODE_A_CALL if self._device.type == "cuda" else 1,
            tokens_a_call=tokens_a_call,
            works_ahead=True,
            takes_samples=from_samples,
        )

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        """Laid end to end, as many as fill the device; the host does not wait for it."""
        for row in rows:
            self._checks.encode(row)
        latest = list({row.slot: row for row in rows}.values())  # of two for one slot the later one
        layouts = [layout(row.audio_context, self._sizes.n_audio_ctx) for row in latest]
        place = BESIDE if self._divided and self._step_going_on else ALONE
        with self._failures("encoding"), self._streams.encoding_windows(place):
            self._encodings.run(latest, layouts, place)
        self._encoding_lately = True
        for row, laid_out in zip(latest, layouts, strict=True):
            self._layouts[row.slot], self._texts[row.slot] = laid_out, 0
            self._audios[row.slot] = next(self._audio_numbers)

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        """`start`, and wait."""
        return self.start(rows)()

    def start(self, rows: Sequence[StepRow]) -> Callable[[], list[StepResult | None]]:
        """All rows' tokens in one pass, or as few as hold them, and passes of what they say."""
        self._checks.step(rows, self._texts)
        # Where windows came in before this step, others will while it is going on.
        place = BESIDE if self._divided and self._encoding_lately else ALONE
        with self._failures("decoding", place):
            self._streams.await_encoding()
            finish = self._steps.start(rows, place)
        self._encoding_lately, self._step_going_on = False, True

        def finished() -> list[StepResult | None]:
            self._step_going_on = False
            with self._failures("decoding"):
                found = finish()
            for row, result in zip(rows, found, strict=True):
                n_more = 0 if result is None else len(result.more)
                self._texts[row.slot] = row.position + len(row.tokens) + n_more
            return found

        return finished

    def copy(self, rows: Sequence[CopyRow]) -> None:
        """All together; the audio only of those who have another."""
        self._checks.copy(rows, self._texts)
        if not rows:
            return
        with self._failures("copying slots"):
            self._streams.await_encoding()
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
            self._streams.await_encoding()
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
            self._streams.settle()
            del self._encoder, self._decoder, self._passes, self._steps, self._tables
            del self._encodings
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _take_slots(self, wanted: int, fraction: float, operations: Operations) -> str:
        """Take the tables and record what runs over them; says how many slots, and why."""
        dtype, kept = self._arithmetic.dtype, self._arithmetic.kept
        n_positions = recorded_positions(self._sizes.n_audio_ctx)[-1]
        n_places = len(self._streams.encoding)
        reserve = reserve_bytes(self._sizes, dtype, n_positions, _most_tokens(wanted), n_places)
        room = self._room(fraction)
        count = count_slots(wanted, slot_bytes(self._sizes, dtype, kept), room, reserve)

        def take(n_slots: int) -> tuple[Tables, Passes, Encodings]:
            tables = take_tables(self._sizes, n_slots, dtype, self._device, kept)
            most = _most_tokens(n_slots)
            n_masks = max(MASKS_A_TOKEN * most, MASK_ROWS)
            passes = Passes(
                self._decoder,
                operations.choose,
                tables,
                MaskTable(n_masks, self._ids.timestamp_begin, self._device),
                self._ids,
                most=most,
                in_a_row=self._tokens_a_call,
                places=self._streams.steps,
            )
            encodings = Encodings(
                self._encoder,
                self._decoder,
                tables,
                self._sizes,
                from_samples=self._from_samples,
                places=() if operations.host_looks else self._streams.encoding,
            )
            return tables, passes, encodings

        taken = take_what_fits(take, count)
        self._tables, self._passes, self._encodings = taken.thing
        self._steps = Steps(self._passes, self._ids.eot)
        recorded = (self._passes.recordings, self._encodings.recordings)
        self._divided = all(each.n_places > BESIDE for each in recorded)
        return taken.count.why

    def _encoder_weights(self, weights: Weights) -> Weights:
        if not self._arithmetic.eight_bits:
            return weights
        return replace(weights, make_linear=make_eight_bit_linear)

    def _room(self, fraction: float) -> Room | None:
        if self._device.type != "cuda":
            return None
        torch.cuda.empty_cache()  # of pieces that weights were made of
        free, total = torch.cuda.mem_get_info(self._device)
        return Room(total, free, fraction)

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
    def _failures(self, doing: str, place: int = ALONE) -> Iterator[None]:
        """PyTorch's errors as ours, on this engine's device whatever the thread's own is.

        Streams, graphs and kernels are made and run on the thread's current device, so all work on
        a GPU happens in here.
        """
        with _as_ours(self._where, doing):
            if self._device.type == "cuda":
                with torch.cuda.device(self._device), self._streams.stepping(place):
                    yield
            else:
                yield


@contextmanager
def _as_ours(where: str, doing: str) -> Iterator[None]:
    """PyTorch's errors as an EngineError that says where, and what was done."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"{where} ran out of memory while {doing}: lower max_batch_size or "
            f"gpu_memory_fraction ({_first_line(error)})"
        ) from error
    except RuntimeError as error:
        raise EngineError(
            f"PyTorch failed on {where} while {doing}: {_first_line(error)}"
        ) from error


def _most_tokens(n_slots: int) -> int:
    """Of one pass: a token of every slot, and the prompts of those that came in meanwhile."""
    return n_slots + max(MOST_TOKENS, n_slots // 2)


def _numbered(device: torch.device) -> torch.device:
    """A GPU by its number: which one ``cuda`` is depends on the thread that asks."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
