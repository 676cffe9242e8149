"""Where the device's time goes: the kernels of a batch and of a pass, by PyTorch's profiler.

What it says of one kernel includes no gaps between kernels, so the sum over all of them beside the
time that playing them took says how long the device waited.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from batched_whisper.engines.interface import EncodeRow, StepRow
from benchmarks.gpu.mix import SHORT
from benchmarks.gpu.parts import ALLOWED, Figures, Scale
from benchmarks.gpu.rig import Rig

LISTED = 14
"""Kernels of each case; the rest is one sum."""
POSITION = 35


def where(rig: Rig, scale: Scale) -> Figures:
    """Batches of full and of short windows; passes of one slot and of all."""
    figures: Figures = {}
    full = rig.sizes.n_audio_ctx
    with rig.engine() as engine:
        short = [
            (i, size.context(full, fitted=True))
            for i, size in enumerate(rig.workload.windows(SHORT, 64))
        ]
        for name, asked in (
            ("8 full windows", [(i, full) for i in range(8)]),
            ("1 full window", [(0, full)]),
            ("64 short windows", short),
        ):
            rows = [
                EncodeRow(i, rig.features(i, context), context)
                for i, context in asked
                if i < engine.info.max_slots
            ]
            encode = partial(engine.encode, rows)
            figures[name] = {"host_us": _host_us(encode), **kernels_of(rig, scale, encode)}
        n_slots = engine.info.max_slots
        engine.encode([EncodeRow(i, rig.features(i, full), full) for i in range(n_slots)])
        for slot in range(n_slots):
            engine.step([StepRow(slot, (1,) * POSITION, 0, None)])
        for n in (1, n_slots):
            engine.step([StepRow(slot, (1,), POSITION, ALLOWED) for slot in range(n)])
            passes = engine._decoder_runner.graphs
            size = passes.size(n)
            figures[f"a pass of {n} slots"] = kernels_of(rig, scale, partial(passes.replay, size))
    return figures


def _host_us(work: Callable[[], object]) -> float:
    """Until the host may go on."""
    began_s = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began_s)


def kernels_of(rig: Rig, scale: Scale, work: Callable[[], object]) -> Figures:
    """What some work is made of, in microseconds: each kernel's time, and how often it ran."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    wall_us = 1e6 * rig.seconds(work, scale.repeats)
    if rig.device == "cpu":
        return {"wall_us": wall_us}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    spent_us: dict[str, float] = defaultdict(float)
    times: dict[str, int] = defaultdict(int)
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            name = _short(event.name)
            spent_us[name] += event.time_range.elapsed_us()
            times[name] += 1
    most = sorted(spent_us, key=lambda name: -spent_us[name])
    figures: dict[str, Any] = {
        "wall_us": wall_us,
        "kernels_us": sum(spent_us.values()),
        "n_kernels": sum(times.values()),
    }
    for name in most[:LISTED]:
        figures[name] = f"{spent_us[name]:.0f} us in {times[name]}"
    figures["others"] = f"{sum(spent_us[name] for name in most[LISTED:]):.0f} us"
    return figures


def _short(name: str) -> str:
    """A kernel's name without what its templates are filled with."""
    plain = re.sub(r"^void ", "", name)
    if "elementwise" in plain or "reduce_kernel" in plain or "index" in plain:
        found = re.findall(
            r"(\w+(?:Functor|Ops|_kernel_impl|_kernel_cuda|kernel_nocast)\w*)", plain
        )
        return f"{plain.split('<')[0].split('::')[-1]} {' '.join(dict.fromkeys(found))[:70]}"
    return plain.split("(")[0][:90]
