"""Selects Triton kernels or plain PyTorch for each operation that dominates the run time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch

from batched_whisper.engines.cuda.kv_cache import LayerKV
from batched_whisper.engines.cuda.model import attention, layers, token_choice
from batched_whisper.engines.cuda.model.attention import (
    DecoderAttention,
    EncoderAttention,
    MergedPositions,
    WriteCrossKV,
    WriteSelfKV,
)
from batched_whisper.engines.cuda.model.decode_inputs import Field, float_bits
from batched_whisper.engines.cuda.model.layers import Normalise
from batched_whisper.engines.cuda.model.token_choice import Choose
from batched_whisper.engines.cuda.packed_batch import BatchShape, PackedBatch, write_batch
from batched_whisper.engines.merged_padding import layout

log = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Above the rounding of bfloat16, and below the error of any mistake."""

MATRIX_UNITS = (8, 0)
"""The first compute capability whose matrix units Triton uses; on older GPUs its encoder attention
is slower than PyTorch's own (triton-lang/triton, pull request 5066)."""


class Heads(NamedTuple):
    """The number of attention heads and their width."""

    n: int
    width: int


@dataclass(frozen=True)
class Operations:
    """The implementation of each operation, and why it was selected."""

    decoder_attention: DecoderAttention
    encoder_attention: EncoderAttention
    write_cross_kv: WriteCrossKV
    write_self_kv: WriteSelfKV
    normalise: Normalise
    choose: Choose
    why: str

    @property
    def syncs_host(self) -> bool:
        """Whether the host reads numbers from the device while windows are encoded.

        That cannot be recorded as a CUDA graph, and trying is risky: PyTorch's allocator does not
        recover from every aborted recording (pytorch/pytorch, issue 180395).
        """
        return self.encoder_attention is attention.encoder_attention


PYTORCH = Operations(
    attention.decoder_attention,
    attention.encoder_attention,
    attention.write_cross_kv,
    attention.write_self_kv,
    layers.normalise,
    token_choice.choose,
    "attention in plain PyTorch",
)


def best_operations(device: torch.device, dtype: torch.dtype, heads: Heads) -> Operations:
    """Return Triton's kernels on a GPU if they are installed, fit the model and work.

    A kernel that does not work is replaced alone: without any of them, all is many times slower.
    """
    if device.type != "cuda":
        return PYTORCH
    if find_spec("triton") is None:
        return with_warning("Triton is not installed")
    if heads.width < 16 or heads.width & (heads.width - 1):
        return with_warning(
            f"heads are {heads.width} wide, which is not a power of two of 16 or more"
        )
    try:
        kernels = triton_operations()
    except Exception as error:  # an incomplete installation of Triton
        return with_warning(f"Triton does not work here: {_short(error)}")
    unsupported = {}
    if torch.cuda.get_device_capability(device) < MATRIX_UNITS:
        unsupported["encoder_attention"] = (
            "Triton supports the matrix units of GPUs of 2020 and later"
        )
    return working_operations(kernels, device, dtype, heads, unsupported)


def working_operations(
    kernels: Operations,
    device: torch.device,
    dtype: torch.dtype,
    heads: Heads,
    unsupported: Mapping[str, str] | None = None,
) -> Operations:
    """Check each kernel alone, and replace those that fail by plain PyTorch.

    ``unsupported`` maps operations that are not to be tried to the reason.
    """
    working, failed = kernels, dict(unsupported or {})
    for name in (each.name for each in fields(Operations) if each.name != "why"):
        alone = replace(PYTORCH, **{name: getattr(kernels, name)})
        if name not in failed:
            try:
                check_operations(alone, device, dtype, heads)
            except Exception as error:  # such as a machine without a C compiler, which Triton needs
                failed[name] = _short(error)
        if name in failed:
            working = replace(working, **{name: getattr(PYTORCH, name)})
    if not failed:
        return working
    if len(set(failed.values())) == 1:
        return with_warning(f"{', '.join(failed)} ({next(iter(failed.values()))})", working)
    return with_warning(", ".join(f"{name} ({why})" for name, why in failed.items()), working)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def triton_operations() -> Operations:
    """Return all operations by Triton kernels, whether or not they work here."""
    from batched_whisper.engines.cuda.kernels import decoder_kernels, encoder_kernels

    return Operations(
        decoder_kernels.decoder_attention,
        encoder_kernels.encoder_attention,
        encoder_kernels.write_cross_kv,
        decoder_kernels.write_self_kv,
        encoder_kernels.normalise,
        decoder_kernels.choose,
        "attention by Triton kernels",
    )


def with_warning(why: str, operations: Operations = PYTORCH) -> Operations:
    """Log why operations are in part plain PyTorch, and return them with that reason."""
    log.warning("slower than this GPU could be, in plain PyTorch: %s", why)
    return replace(operations, why=f"slower in plain PyTorch: {why}")


def check_operations(
    operations: Operations, device: torch.device, dtype: torch.dtype, heads: Heads
) -> None:
    """Run each operation on a small example, and compare with plain PyTorch.

    Raises what they raise, and ValueError for wrong numbers. The example's numbers are small enough
    that rounding them to bfloat16 is far below `TOLERANCE`.
    """
    for trial in _trials(device, dtype, heads):
        actual, expected = trial(operations), trial(PYTORCH)
        off = float((actual.float() - expected.float()).abs().max())  # NaN if any is
        if not off < TOLERANCE:
            raise ValueError(f"results are off by {off:.2g}")


def _trials(
    device: torch.device, dtype: torch.dtype, heads: Heads
) -> list[Callable[[Operations], torch.Tensor]]:
    """Return functions that run each operation on some numbers."""
    random, (n_heads, width) = torch.Generator().manual_seed(0), heads

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    batch = _example_batch(device)
    n = len(batch.windows)
    pair, each = some(n, 2, n_heads, width), some(n, 3, n_heads, width)
    x = some(3, n_heads * width)
    deferred_bias, weight, bias = (0.3 * some(3, n_heads * width)).float().unbind()
    logits = some(2, 90).float()
    mask_table = torch.zeros((1, 70), dtype=torch.bool, device=device)
    inputs = torch.zeros((len(Field), 2), dtype=torch.int64, device=device)
    inputs[Field.TEMPERATURE, 1] = float_bits(0.5)
    queries, rows = some(2, n_heads, width), torch.tensor([1, 0], device=device)
    lengths = torch.tensor([130, 3], device=device)
    merged = MergedPositions(
        torch.tensor([70, 3], device=device), torch.tensor([2.5, 0], device=device)
    )

    def cross_attention(operations: Operations, kind: torch.dtype) -> torch.Tensor:
        scales = torch.ones((2, 3, n_heads, width), device=device) if kind is torch.int8 else None
        layer_kv = LayerKV(
            torch.zeros((2, 3, n_heads, 150, width), dtype=kind, device=device), scales
        )
        operations.write_cross_kv(pair, batch, layer_kv)
        attended = [
            operations.decoder_attention(queries, layer_kv, rows, lengths, of)
            for of in (None, merged)
        ]
        return torch.cat(attended)

    def written_self_kv(operations: Operations) -> torch.Tensor:
        layer_kv = LayerKV(torch.zeros((2, 3, n_heads, 150, width), dtype=dtype, device=device))
        operations.write_self_kv(each[:2], layer_kv, rows, lengths - 1)
        return layer_kv.numbers

    return [
        written_self_kv,
        lambda of: cross_attention(of, dtype),
        lambda of: cross_attention(of, torch.int8),
        lambda of: of.encoder_attention(each, batch)[: int(batch.lengths.sum())],
        lambda of: of.normalise(x, weight, bias, None),
        lambda of: of.normalise(x, weight, bias, deferred_bias),
        lambda of: of.choose(logits, mask_table, inputs),
    ]


def _example_batch(device: torch.device) -> PackedBatch:
    """Return two windows in slots 1 and 0, the second with merged positions."""
    layouts = [layout(150, 150), layout(70, 300)]
    batch_shape = BatchShape(sum(len(each) for each in layouts) + 5, 300, padding_slot=2)
    numbers = np.zeros(batch_shape.n_numbers, np.int32)
    write_batch([1, 0], layouts, batch_shape, numbers)
    return PackedBatch.of(torch.from_numpy(numbers).to(device), batch_shape)
