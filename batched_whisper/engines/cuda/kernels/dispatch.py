"""Which code does what the time is spent on: kernels, or plain PyTorch."""

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
"""More than rounding to bfloat16, and less than any mistake."""

MATRIX_UNITS = (8, 0)
"""The first compute capability for whose matrix units Triton makes code; without them attention
within windows is slower than PyTorch's own (triton-lang/triton, pull request 5066)."""


class Heads(NamedTuple):
    """How many, and how wide."""

    n: int
    width: int


@dataclass(frozen=True)
class Operations:
    """How queries meet keys, what is kept, how norms are taken and tokens chosen; why so."""

    decoder_attention: DecoderAttention
    encoder_attention: EncoderAttention
    write_cross_kv: WriteCrossKV
    write_self_kv: WriteSelfKV
    normalise: Normalise
    choose: Choose
    why: str

    @property
    def syncs_host(self) -> bool:
        """Whether the host looks at the device's numbers while windows are encoded.

        That cannot be recorded as a CUDA graph, and trying to is not without danger: PyTorch's
        allocator does not get over every recording that breaks off (pytorch/pytorch, issue 180395).
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
    """Triton's kernels on a GPU, where they are installed, fit the model, and work.

    One that does not work is left out alone: without all of them everything is many times slower.
    """
    if device.type != "cuda":
        return PYTORCH
    if find_spec("triton") is None:
        return with_warning("Triton is not installed")
    if heads.width < 16 or heads.width & (heads.width - 1):
        return with_warning(f"heads are {heads.width} wide, which is no power of two")
    try:
        kernels = triton_operations()
    except Exception as error:  # an installation of Triton that is not whole
        return with_warning(f"Triton does not work here: {_short(error)}")
    unsupported = {}
    if torch.cuda.get_device_capability(device) < MATRIX_UNITS:
        unsupported["encoder_attention"] = "Triton knows the matrix units of GPUs of 2020 and later"
    return working_operations(kernels, device, dtype, heads, unsupported)


def working_operations(
    kernels: Operations,
    device: torch.device,
    dtype: torch.dtype,
    heads: Heads,
    unsupported: Mapping[str, str] | None = None,
) -> Operations:
    """Each of them alone is tried; where one fails, plain PyTorch takes its place.

    ``unsupported`` are those that need not be tried, and why.
    """
    found, failed = kernels, dict(unsupported or {})
    for name in (each.name for each in fields(Operations) if each.name != "why"):
        alone = replace(PYTORCH, **{name: getattr(kernels, name)})
        if name not in failed:
            try:
                check_operations(alone, device, dtype, heads)
            except Exception as error:  # such as a machine without a C compiler, which Triton needs
                failed[name] = _short(error)
        if name in failed:
            found = replace(found, **{name: getattr(PYTORCH, name)})
    if not failed:
        return found
    if len(set(failed.values())) == 1:
        return with_warning(f"{', '.join(failed)} ({next(iter(failed.values()))})", found)
    return with_warning(", ".join(f"{name} ({why})" for name, why in failed.items()), found)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def triton_operations() -> Operations:
    """All of them by Triton's kernels, whether or not those work here."""
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
    """What is, in part at least, plain PyTorch on a GPU; and the reason for it."""
    log.warning("slower than this GPU could be, in plain PyTorch: %s", why)
    return replace(operations, why=f"slower in plain PyTorch: {why}")


def check_operations(
    operations: Operations, device: torch.device, dtype: torch.dtype, heads: Heads
) -> None:
    """Run each on a little, as the model has it. Raises what they do, ValueError for wrong numbers.

    The numbers are of such size that rounding them to bfloat16 is far below `TOLERANCE`.
    """
    for trial in _trials(device, dtype, heads):
        found, right = trial(operations), trial(PYTORCH)
        off = float((found.float() - right.float()).abs().max())  # NaN where one is
        if not off < TOLERANCE:
            raise ValueError(f"their numbers are off by {off:.2g}")


def _trials(
    device: torch.device, dtype: torch.dtype, heads: Heads
) -> list[Callable[[Operations], torch.Tensor]]:
    """What each operation makes of some numbers."""
    random, (n_heads, width) = torch.Generator().manual_seed(0), heads

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    batch = _example_batch(device)
    n = len(batch.windows)
    pair, each = some(n, 2, n_heads, width), some(n, 3, n_heads, width)
    x = some(3, n_heads * width)
    deferred_bias, weight, bias = (0.3 * some(3, n_heads * width)).float().unbind()
    logits = some(2, 90).float()
    hidden = torch.zeros((1, 70), dtype=torch.bool, device=device)
    inputs = torch.zeros((len(Field), 2), dtype=torch.int64, device=device)
    inputs[Field.TEMPERATURE, 1] = float_bits(0.5)
    asked, rows = some(2, n_heads, width), torch.tensor([1, 0], device=device)
    lengths = torch.tensor([130, 3], device=device)
    merged = MergedPositions(
        torch.tensor([70, 3], device=device), torch.tensor([2.5, 0], device=device)
    )

    def kept(operations: Operations, kind: torch.dtype) -> torch.Tensor:
        scales = torch.ones((2, 3, n_heads, width), device=device) if kind is torch.int8 else None
        table = LayerKV(torch.zeros((2, 3, n_heads, 150, width), dtype=kind, device=device), scales)
        operations.write_cross_kv(pair, batch, table)
        acc = [
            operations.decoder_attention(asked, table, rows, lengths, of) for of in (None, merged)
        ]
        return torch.cat(acc)

    def said(operations: Operations) -> torch.Tensor:
        table = LayerKV(torch.zeros((2, 3, n_heads, 150, width), dtype=dtype, device=device))
        operations.write_self_kv(each[:2], table, rows, lengths - 1)
        return table.numbers

    return [
        said,
        lambda of: kept(of, dtype),
        lambda of: kept(of, torch.int8),
        lambda of: of.encoder_attention(each, batch)[: int(batch.lengths.sum())],
        lambda of: of.normalise(x, weight, bias, None),
        lambda of: of.normalise(x, weight, bias, deferred_bias),
        lambda of: of.choose(logits, hidden, inputs),
    ]


def _example_batch(device: torch.device) -> PackedBatch:
    """Two windows in slots 1 and 0, one with positions that stand for several."""
    layouts = [layout(150, 150), layout(70, 300)]
    batch_shape = BatchShape(sum(len(each) for each in layouts) + 5, 300, padding_slot=2)
    numbers = np.zeros(batch_shape.n_numbers, np.int32)
    write_batch([1, 0], layouts, batch_shape, numbers)
    return PackedBatch.of(torch.from_numpy(numbers).to(device), batch_shape)
