"""Which code does what the time is spent on: kernels, or plain PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch

from batched_whisper.engines.cuda.kv_cache import Kept
from batched_whisper.engines.cuda.model import attention, layers, token_choice
from batched_whisper.engines.cuda.model.attention import Attend, Crowd, Keep, Listen, Say
from batched_whisper.engines.cuda.model.decode_inputs import Field, float_bits
from batched_whisper.engines.cuda.model.layers import Normalise
from batched_whisper.engines.cuda.model.token_choice import Choose
from batched_whisper.engines.cuda.packed_batch import Company, Extent, describe
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

    attend: Attend
    listen: Listen
    keep: Keep
    say: Say
    normalise: Normalise
    choose: Choose
    why: str

    @property
    def host_looks(self) -> bool:
        """Whether the host looks at the device's numbers while windows are encoded.

        That cannot be recorded as a CUDA graph, and trying to is not without danger: PyTorch's
        allocator does not get over every recording that breaks off (pytorch/pytorch, issue 180395).
        """
        return self.listen is attention.listen


PLAIN = Operations(
    attention.attend,
    attention.listen,
    attention.keep,
    attention.say,
    layers.normalise,
    token_choice.choose,
    "attention in plain PyTorch",
)


def best_operations(device: torch.device, dtype: torch.dtype, heads: Heads) -> Operations:
    """Triton's kernels on a GPU, where they are installed, fit the model, and work.

    One that does not work is left out alone: without all of them everything is many times slower.
    """
    if device.type != "cuda":
        return PLAIN
    if find_spec("triton") is None:
        return slower("Triton is not installed")
    if heads.width < 16 or heads.width & (heads.width - 1):
        return slower(f"heads are {heads.width} wide, which is no power of two")
    try:
        kernels = by_kernels()
    except Exception as error:  # an installation of Triton that is not whole
        return slower(f"Triton does not work here: {_short(error)}")
    of_no_use = {}
    if torch.cuda.get_device_capability(device) < MATRIX_UNITS:
        of_no_use["listen"] = "Triton knows the matrix units of GPUs of 2020 and later"
    return those_that_work(kernels, device, dtype, heads, of_no_use)


def those_that_work(
    kernels: Operations,
    device: torch.device,
    dtype: torch.dtype,
    heads: Heads,
    of_no_use: Mapping[str, str] | None = None,
) -> Operations:
    """Each of them alone is tried; where one fails, plain PyTorch takes its place.

    ``of_no_use`` are those that need not be tried, and why.
    """
    found, failed = kernels, dict(of_no_use or {})
    for name in (each.name for each in fields(Operations) if each.name != "why"):
        alone = replace(PLAIN, **{name: getattr(kernels, name)})
        if name not in failed:
            try:
                try_out(alone, device, dtype, heads)
            except Exception as error:  # such as a machine without a C compiler, which Triton needs
                failed[name] = _short(error)
        if name in failed:
            found = replace(found, **{name: getattr(PLAIN, name)})
    if not failed:
        return found
    if len(set(failed.values())) == 1:
        return slower(f"{', '.join(failed)} ({next(iter(failed.values()))})", found)
    return slower(", ".join(f"{name} ({why})" for name, why in failed.items()), found)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def by_kernels() -> Operations:
    """All of them by Triton's kernels, whether or not those work here."""
    from batched_whisper.engines.cuda.kernels import decoder_kernels, encoder_kernels

    return Operations(
        decoder_kernels.attend,
        encoder_kernels.listen,
        encoder_kernels.keep,
        decoder_kernels.say,
        encoder_kernels.normalise,
        decoder_kernels.choose,
        "attention by Triton kernels",
    )


def slower(why: str, operations: Operations = PLAIN) -> Operations:
    """What is, in part at least, plain PyTorch on a GPU; and the reason for it."""
    log.warning("slower than this GPU could be, in plain PyTorch: %s", why)
    return replace(operations, why=f"slower in plain PyTorch: {why}")


def try_out(operations: Operations, device: torch.device, dtype: torch.dtype, heads: Heads) -> None:
    """Run each on a little, as the model has it. Raises what they do, ValueError for wrong numbers.

    The numbers are of such size that rounding them to bfloat16 is far below `TOLERANCE`.
    """
    for trial in _trials(device, dtype, heads):
        found, right = trial(operations), trial(PLAIN)
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

    company = _company(device)
    n = len(company.windows)
    pair, each = some(n, 2, n_heads, width), some(n, 3, n_heads, width)
    x = some(3, n_heads * width)
    owed, weight, bias = (0.3 * some(3, n_heads * width)).float().unbind()
    logits = some(2, 90).float()
    hidden = torch.zeros((1, 70), dtype=torch.bool, device=device)
    feed = torch.zeros((len(Field), 2), dtype=torch.int64, device=device)
    feed[Field.TEMPERATURE, 1] = float_bits(0.5)
    asked, rows = some(2, n_heads, width), torch.tensor([1, 0], device=device)
    lengths = torch.tensor([130, 3], device=device)
    crowd = Crowd(torch.tensor([70, 3], device=device), torch.tensor([2.5, 0], device=device))

    def kept(operations: Operations, kind: torch.dtype) -> torch.Tensor:
        scales = torch.ones((2, 3, n_heads, width), device=device) if kind is torch.int8 else None
        table = Kept(torch.zeros((2, 3, n_heads, 150, width), dtype=kind, device=device), scales)
        operations.keep(pair, company, table)
        heard = [operations.attend(asked, table, rows, lengths, of) for of in (None, crowd)]
        return torch.cat(heard)

    def said(operations: Operations) -> torch.Tensor:
        table = Kept(torch.zeros((2, 3, n_heads, 150, width), dtype=dtype, device=device))
        operations.say(each[:2], table, rows, lengths - 1)
        return table.numbers

    return [
        said,
        lambda of: kept(of, dtype),
        lambda of: kept(of, torch.int8),
        lambda of: of.listen(each, company)[: int(company.lengths.sum())],
        lambda of: of.normalise(x, weight, bias, None),
        lambda of: of.normalise(x, weight, bias, owed),
        lambda of: of.choose(logits, hidden, feed),
    ]


def _company(device: torch.device) -> Company:
    """Two windows in slots 1 and 0, one with positions that stand for several."""
    layouts = [layout(150, 150), layout(70, 300)]
    extent = Extent(sum(len(each) for each in layouts) + 5, 300, nobody=2)
    numbers = np.zeros(extent.n_numbers, np.int32)
    describe([1, 0], layouts, extent, numbers)
    return Company.of(torch.from_numpy(numbers).to(device), extent)
