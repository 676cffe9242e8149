"""The kernels one by one, in several launches, beside PyTorch's own and what the device can.

Attention over tables and what is kept of windows are a matter of bytes, attention within windows
and products of operations. Each figure is a share of what a copy or a product reaches in this run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.kv_cache import LayerKV
from batched_whisper.engines.cuda.model import attention
from batched_whisper.engines.cuda.model.layers import normalise
from batched_whisper.engines.cuda.packed_batch import BatchShape, PackedBatch, write_batch
from batched_whisper.engines.merged_padding import layout
from benchmarks.gpu.parts import Figures, Scale, _dtype
from benchmarks.gpu.rig import Rig

TOGETHER = 8


def kernels(rig: Rig, scale: Scale) -> Figures:
    """All of them; one that fails says so in its place."""
    figures: Figures = {}
    for group in (over_tables, within_windows, passes_over_memory):
        for name, measure in group(rig, scale):
            try:
                figures[name] = measure()
            except Exception as error:
                figures[name] = {"failed": str(error).splitlines()[0]}
    return figures


Measured = Iterator[tuple[str, Callable[[], Figures]]]


def over_tables(rig: Rig, scale: Scale) -> Measured:
    """One query a slot over full windows, kept in 8 and in 16 bits."""
    from batched_whisper.engines.cuda.kernels import decoder_kernels as ours
    from batched_whisper.engines.cuda.kernels import launch_config

    heads, context = rig.sizes.n_text_head, rig.sizes.n_audio_ctx
    width = rig.sizes.n_text_state // heads
    for kind, tried in ((torch.int8, _LAUNCHES), (_dtype(rig), _LAUNCHES[4:5])):
        for n in _SLOTS:
            case = _tables(rig, kind, n, heads, context, width)
            for block, n_warps, n_stages in tried:
                launch = launch_config.DecoderAttentionLaunch(
                    block=block, n_warps=n_warps, n_stages=n_stages
                )
                name = f"{_name(kind)}, {n} slots, {_name(launch)}"
                yield (
                    name,
                    partial(
                        _heard, rig, scale, case, partial(ours.decoder_attention, launch=launch)
                    ),
                )


_SLOTS = (1, 256)
_LAUNCHES = ((32, 2, 2), (32, 2, 3), (32, 4, 2), (32, 4, 3), (64, 4, 2), (64, 4, 3), (64, 8, 3))


def _tables(rig: Rig, kind: torch.dtype, n: int, *shape: int) -> tuple[Any, ...]:
    """Several tables, so that the cache does not hold what is read next; their queries."""
    heads, context, width = shape
    tables = [_table(rig, kind, n, *shape) for _ in range(4)]
    queries = torch.randn((n, heads, width), device=rig.device).to(_dtype(rig))
    rows = torch.arange(n, device=rig.device)
    lengths = torch.full((n,), context, dtype=torch.int32, device=rig.device)
    return tables, queries, rows, lengths


def _table(rig: Rig, kind: torch.dtype, n: int, *shape: int) -> LayerKV:
    heads, _, width = shape
    if kind is torch.int8:
        numbers = torch.randint(-127, 128, (2, n, *shape), dtype=kind, device=rig.device)
        return LayerKV(numbers, torch.rand((2, n, heads, width), device=rig.device) / 40)
    return LayerKV(torch.randn((2, n, *shape), dtype=kind, device=rig.device))


def _heard(rig: Rig, scale: Scale, case: tuple[Any, ...], decoder_attention: Any) -> Figures:
    tables, queries, rows, lengths = case
    moved = sum(each.numbers.numel() * each.numbers.element_size() for each in tables)

    def run() -> None:
        for table in tables:
            decoder_attention(queries, table, rows, lengths)

    figures = {"bytes_per_s": 8 * moved / _of_eight(rig, scale, run)}
    if len(queries) <= 64:
        exact = attention.decoder_attention(queries.double(), tables[0], rows, lengths)
        figures["error"] = _off(decoder_attention(queries, tables[0], rows, lengths), exact)
    return figures


def within_windows(rig: Rig, scale: Scale) -> Measured:
    """Positions over their windows: full ones, and of many lengths; PyTorch's own for the first."""
    from batched_whisper.engines.cuda.kernels import encoder_kernels as ours
    from batched_whisper.engines.cuda.kernels import launch_config

    full, heads = rig.sizes.n_audio_ctx, rig.sizes.n_audio_head
    width = rig.sizes.n_audio_state // heads
    for mix, contexts in (
        ("full windows", [full] * TOGETHER),
        ("of 2 to 15 s", np.linspace(full / 15, full / 2, 30).astype(int).tolist()),
    ):
        packed, lengths = _packed(rig, contexts)
        qkv = torch.randn((sum(lengths), 3, heads, width), device=rig.device).to(_dtype(rig))
        n_operations = sum(4 * n * n * heads * width for n in lengths)
        for block, n_warps, n_stages in ((64, 4, 2), (64, 4, 3), (64, 8, 3), (128, 8, 2)):
            launch = launch_config.EncoderAttentionLaunch(block, n_warps, n_stages)
            work = partial(ours.encoder_attention, qkv, packed, launch)
            yield f"{mix}, {_name(launch)}", partial(_rate, rig, scale, work, n_operations)
        if mix == "full windows":
            batch = qkv.view(TOGETHER, full, 3, heads, width).permute(2, 0, 3, 1, 4)
            for backend in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
                work = partial(_by_pytorch, backend, batch)
                yield f"{mix}, {backend.lower()}", partial(_rate, rig, scale, work, n_operations)


def _by_pytorch(backend: str, batch: torch.Tensor) -> torch.Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, backend)):
        return F.scaled_dot_product_attention(*batch)


def passes_over_memory(rig: Rig, scale: Scale) -> Measured:
    """What lies between the products of the encoder, for eight full windows."""
    from batched_whisper.engines.cuda.kernels import encoder_kernels as ours
    from batched_whisper.engines.cuda.kernels import launch_config

    full, d, dtype = rig.sizes.n_audio_ctx, rig.sizes.n_audio_state, _dtype(rig)
    packed, lengths = _packed(rig, [full] * TOGETHER)
    n = sum(lengths)
    x, wide = (torch.randn((n, k * d), device=rig.device).to(dtype) for k in (1, 4))
    weight, bias, deferred_bias = torch.randn((3, d), device=rig.device)
    n_bytes = 2 * x.numel() * x.element_size()
    for name, norm in (("norm, ours", ours.normalise), ("norm, PyTorch", normalise)):
        yield (
            name,
            partial(_moved, rig, scale, partial(norm, x, weight, bias, deferred_bias), n_bytes),
        )
    yield "GELU", partial(_moved, rig, scale, partial(F.gelu, wide), 4 * n_bytes)
    first = torch.randn((4 * d, d), device=rig.device).to(dtype)
    offset = torch.randn(4 * d, device=rig.device).to(dtype)
    for name, layer in (
        ("product and GELU", lambda: F.gelu(F.linear(x, first, offset))),
        (
            "in one, by its tangent",
            lambda: torch._addmm_activation(offset, x, first.T, use_gelu=True),
        ),
    ):
        yield name, partial(_rate, rig, scale, layer, 2 * n * d * 4 * d)
    heads = rig.sizes.n_text_head
    pair = torch.randn((n, 2, heads, d // heads), device=rig.device).to(dtype)
    shape = (2, TOGETHER + 1, heads)
    table = LayerKV(
        torch.zeros((*shape, full, d // heads), dtype=torch.int8, device=rig.device),
        torch.ones((*shape, d // heads), device=rig.device),
    )
    moved = pair.numel() * (pair.element_size() + 1)
    for block, n_warps in ((64, 4), (128, 4), (128, 8), (256, 8)):
        launch = launch_config.WriteCrossKVLaunch(block, n_warps)
        work = partial(ours.write_cross_kv, pair, packed, table, launch)
        yield f"keep in 8 bits, {launch}", partial(_moved, rig, scale, work, moved)


def _packed(rig: Rig, contexts: list[int]) -> tuple[PackedBatch, list[int]]:
    full = rig.sizes.n_audio_ctx
    layouts = [layout(context, full) for context in contexts]
    lengths = [len(each) for each in layouts]
    extent = BatchShape(sum(lengths), full, padding_slot=len(contexts))
    numbers = np.zeros(extent.n_numbers, np.int32)
    write_batch(range(len(contexts)), layouts, extent, numbers)
    return PackedBatch.of(torch.from_numpy(numbers).to(rig.device), extent), lengths


def _rate(rig: Rig, scale: Scale, work: Callable[[], object], n_operations: int) -> Figures:
    return {"operations_per_s": n_operations * 8 / _of_eight(rig, scale, work)}


def _moved(rig: Rig, scale: Scale, work: Callable[[], object], n_bytes: int) -> Figures:
    return {"bytes_per_s": n_bytes * 8 / _of_eight(rig, scale, work)}


def _of_eight(rig: Rig, scale: Scale, work: Callable[[], object]) -> float:
    """Seconds of eight runs, recorded: launching them from Python would take longer."""
    work()
    rig.sync()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(8):
            work()
    return rig.seconds(graph.replay, scale.repeats)


def _off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def _name(what: Any) -> str:
    if isinstance(what, torch.dtype):
        return str(what).removeprefix("torch.")
    return f"block {what.block}, {what.n_warps} warps, {what.n_stages} stages"
