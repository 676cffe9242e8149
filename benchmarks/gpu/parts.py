"""Measurements of the GPU engine: each part takes a rig and returns results as JSON types.

A part prints nothing, and may fail without the others: `benchmarks.cuda_bench` sees to that.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from batched_whisper.decoding.rules import EVERYTHING, Allowed
from batched_whisper.engines.cuda.precision import DTYPES
from batched_whisper.engines.interface import EncodeRow, StepRow
from batched_whisper.engines.merged_padding import layout
from benchmarks.gpu.mix import PACKED, SHORT, WindowSize, with_mean_tokens
from benchmarks.gpu.rig import Rig, Run, ids_of, rules_of, run_windows
from benchmarks.work_of_a_model import decoder_weight_bytes, encoder_flops, row_bytes

Figures = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    n_windows: int
    n_packed: int
    n_short: int
    n_alone: int
    n_endurance: int
    batches: tuple[int, ...]
    copy_bytes: int
    repeats: int = 5


FULL = Scale(768, 1633, 2048, 32, 10_000, (1, 8, 64), 4 << 30)
"""As many packed windows as the dataset of MLPerf Inference has. Of the other mixes, enough windows
that the beginning and the end, with their small batches, are a small part."""
QUICK = Scale(8, 8, 8, 2, 24, (1, 4), 16 << 20, repeats=2)

ALLOWED = Allowed(EVERYTHING)


@dataclass(frozen=True)
class Limits:
    """What the device can, measured."""

    copy_bytes_per_s: float
    matrix_flops_per_s: float


def limits(rig: Rig, scale: Scale) -> Figures:
    """Memory: a large copy, bytes read and written. Arithmetic: the encoder's largest product."""
    dtype = _dtype(rig)
    source = torch.randint(0, 255, (scale.copy_bytes,), dtype=torch.uint8, device=rig.device)
    target = torch.empty_like(source)
    copy_s = rig.seconds(lambda: target.copy_(source), scale.repeats)
    d, rows = rig.sizes.n_audio_state, 8 * rig.sizes.n_audio_ctx
    products = {}
    for name, n_in, n_out in (("d x 4d", d, 4 * d), ("4d x d", 4 * d, d), ("d x 3d", d, 3 * d)):
        a = torch.randn((rows, n_in), device=rig.device).to(dtype)
        b = torch.randn((n_in, n_out), device=rig.device).to(dtype)
        n = 20 if rig.device != "cpu" else 1
        spent_s = rig.seconds(lambda a=a, b=b, n=n: [a @ b for _ in range(n)], scale.repeats)
        products[name] = n * 2 * rows * n_in * n_out / spent_s
    return {
        "copy_bytes_per_s": 2 * scale.copy_bytes / copy_s,
        "matrix_flops_per_s": max(products.values()),
        "products_flops_per_s": products,
    }


def encoder(rig: Rig, scale: Scale, found: Limits | None) -> Figures:
    """Windows encoded together: on the full context, on a third of it, and of many lengths."""
    figures: Figures = {}

    def measure(engine: Any, name: str, rows: list[EncodeRow]) -> None:
        lengths = [len(layout(row.audio_context, rig.sizes.n_audio_ctx)) for row in rows]
        flops = sum(encoder_flops(rig.sizes, n_positions) for n_positions in lengths)
        # Several in a row, as in the loop: the host lays out one while the device has another.
        spent_s = rig.seconds(lambda: [engine.encode(rows) for _ in range(4)], scale.repeats) / 4
        each: Figures = {"s_per_window": spent_s / len(rows), "flops_per_s": flops / spent_s}
        if found is not None:
            each["share"] = each["flops_per_s"] / found.matrix_flops_per_s
        figures[name] = each

    with rig.engine() as engine:
        for context in (rig.sizes.n_audio_ctx, rig.sizes.n_audio_ctx * 3 // 10):
            for batch in (n for n in scale.batches if n <= min(32, rig.max_slots)):
                rows = [EncodeRow(i, rig.features(i, context), context) for i in range(batch)]
                measure(engine, f"{context} positions, {batch} together", rows)
        rows = []
        for i, size in enumerate(rig.workload.windows(SHORT, min(64, engine.info.max_slots))):
            context = size.context(rig.sizes.n_audio_ctx, fitted=True)
            rows.append(EncodeRow(i, rig.heard(i, size, context), context))
        measure(engine, f"short mix, {len(rows)} together", rows)
    return figures


def step(rig: Rig, scale: Scale, found: Limits | None) -> Figures:
    """A call for many slots, of one token and of several, and the device's part of a token."""
    figures: Figures = {}
    with rig.engine() as engine:
        n_slots = engine.info.max_slots
        for context in (rig.sizes.n_audio_ctx,):
            for batch in (*(n for n in scale.batches if n < n_slots), n_slots):
                figures[f"{context} positions, {batch} slots"] = _step(
                    rig, engine, context, batch, scale, found
                )
    return figures


def _step(
    rig: Rig, engine: Any, context: int, batch: int, scale: Scale, found: Limits | None
) -> Figures:
    position, warm = 35, (1,) * 35
    engine.encode([EncodeRow(i, rig.features(i, context), context) for i in range(batch)])
    engine.step([StepRow(slot, warm, 0, None) for slot in range(batch)])
    rows = [StepRow(slot, (1,), position, ALLOWED) for slot in range(batch)]
    n = 10 if rig.device != "cpu" else 1
    call_s = rig.seconds(lambda: [engine.step(rows) for _ in range(n)], scale.repeats) / n
    endless, n_tokens = rules_of(ids_of(rig.sizes)), engine.info.tokens_per_step
    asked = {
        "allowed": endless.next((1,)),
        "constraints": endless.constraints((1,)),
        "n_tokens": n_tokens,
    }
    on = [replace(row, **asked) for row in rows]
    n_calls = max(1, n // n_tokens)
    several_s = rig.seconds(lambda: [engine.step(on) for _ in range(n_calls)], scale.repeats)
    several_s /= n_calls
    steps = engine._decoder_runner.graphs  # the device's part alone, on the same tokens again
    size = steps.size(batch)
    device_s = rig.seconds(lambda: [steps.replay(size) for _ in range(n)], scale.repeats) / n
    n_bytes = _number_bytes(rig)
    n_positions = len(layout(context, rig.sizes.n_audio_ctx))
    heard_bytes = engine._precision.cross_dtype.itemsize
    moved = decoder_weight_bytes(rig.sizes, n_bytes) + batch * row_bytes(
        rig.sizes, n_positions, position, n_bytes, heard_bytes
    )
    figures: Figures = {
        "call_s": call_s,
        f"call_of_{n_tokens}_tokens_s": several_s,
        "device_s": device_s,
        "host_share": 1 - n_tokens * device_s / several_s,
        "bytes": moved,
        "device_bytes_per_s": moved / device_s,
    }
    if found is not None:
        figures["share_of_copy"] = moved / device_s / found.copy_bytes_per_s
    return figures


MLPERF_TOKENS = 70
"""Of a window of MLPerf Inference's on average."""
CASES = ((PACKED, False), (SHORT, True))
"""Of full windows on full contexts, and of single utterances on fitted ones."""


def throughput(rig: Rig, scale: Scale) -> Figures:
    """Windows per second through the loop, of two mixes, on full and on fitted contexts.

    And of packed windows of 70 tokens on average, as MLPerf's do: who reads faster than its
    speakers, as those of `benchmarks.gpu.speech_windows`, says more in the same time.
    """
    figures: Figures = {}
    with rig.engine() as engine:
        n_warm = min(scale.n_windows, 2 * engine.info.max_slots)
        run_windows(rig, engine, rig.workload.windows(SHORT, n_warm), fitted=True)
        figures["why"] = "; ".join(engine.info.why)
        for mix, fitted in CASES:
            n_windows = scale.n_short if mix is SHORT else scale.n_windows
            windows = rig.workload.windows(mix, n_windows)
            figures[case_name(mix, fitted)] = rates(
                run_windows(rig, engine, windows, fitted=fitted), windows
            )
        slower = with_mean_tokens(rig.workload.windows(PACKED, scale.n_packed), MLPERF_TOKENS)
        for fitted in (False, True):
            run = run_windows(rig, engine, slower, fitted=fitted)
            figures[case_name(f"{PACKED} at {MLPERF_TOKENS} tokens", fitted)] = rates(run, slower)
    return figures


VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "16-bit cross KV": {"kv_cache_dtype": "model"},
    "one stream": {"one_stream": True},
    "from samples": {"from_samples": True},
    "4 tokens per call": {"tokens_per_step": 4},
    "16 tokens per call": {"tokens_per_step": 16},
}


def variants(rig: Rig, scale: Scale) -> Figures:
    """What each of the engine's ways brings: the packed mix, full, with and without it."""
    figures: Figures = {}
    windows = rig.workload.windows(PACKED, max(1, scale.n_windows // 2))
    for name, options in VARIANTS.items():
        with rig.engine(**options) as engine:
            n_warm = min(len(windows), engine.info.max_slots)
            run_windows(rig, engine, windows[:n_warm], fitted=True)
            found = rates(run_windows(rig, engine, windows, fitted=False), windows)
            figures[name] = {"max_slots": engine.info.max_slots, **found}
    return figures


def overlap(rig: Rig, scale: Scale) -> Figures:
    """Steps with some multiprocessors of their own while windows are encoded beside them.

    ``best`` is that number of `N_FOR_STEPS` with which packed windows are done soonest, of those
    that the device was divided by.
    """
    figures: Figures = {}
    runs: dict[int, Run] = {}
    for n_step_sms in N_FOR_STEPS:
        try:
            found, runs[n_step_sms] = _with_for_steps(rig, scale, n_step_sms)
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
        figures[f"{n_step_sms} for steps"] = found
    for n_step_sms, run in runs.items():
        figures[f"{n_step_sms} for steps"]["share_equal"] = _share_equal(run, runs[min(runs)])
    figures["best"] = max(
        (n for n in runs if not n or figures[f"{n} for steps"]["divided"]),
        key=lambda n: figures[f"{n} for steps"]["packed, full"]["windows_per_s"],
        default=0,
    )
    return figures


N_FOR_STEPS = (0, 40)


def _with_for_steps(rig: Rig, scale: Scale, n_step_sms: int) -> tuple[Figures, Run]:
    """Two mixes, and each part of the device alone; the run is that of the short mix."""
    slower = with_mean_tokens(rig.workload.windows(PACKED, scale.n_windows), MLPERF_TOKENS)
    short = rig.workload.windows(SHORT, scale.n_windows)
    with rig.engine(n_step_sms=n_step_sms) as engine:
        figures: Figures = {"why": "; ".join(engine.info.why), "divided": engine._is_split}
        run_windows(rig, engine, short[: engine.info.max_slots], fitted=True)
        for name, windows, fitted in (("packed, full", slower, False), ("short", short, True)):
            run = run_windows(rig, engine, windows, fitted=fitted)
            figures[name] = rates(run, windows)
        figures["each alone"] = _each_alone(rig, scale, engine)
    return figures, run


def _each_alone(rig: Rig, scale: Scale, engine: Any) -> Figures:
    """Seconds of a pass of all slots and of a batch of eight full windows, at each place."""
    full, position = rig.sizes.n_audio_ctx, 35
    slots = range(engine.info.max_slots)
    engine.encode([EncodeRow(slot, rig.features(slot, full), full) for slot in slots])
    engine.step([StepRow(slot, (1,) * position, 0, None) for slot in slots])
    engine.step([StepRow(slot, (1,), position, ALLOWED) for slot in slots])
    few = slots[:8]
    engine.encode([EncodeRow(slot, rig.features(slot, full), full) for slot in few])
    figures: Figures = {}
    for name, graphs, n in (
        ("pass", engine._decoder_runner.graphs, len(slots)),
        ("batch", engine._encoder_runner.graphs, len(few) * full),
    ):
        for place in range(max(1, graphs.n_stream_slots)):
            work = partial(graphs.replay, graphs.size(n), place)
            figures[f"{name}, place {place}"] = rig.seconds(work, scale.repeats)
    return figures


def one_by_one(rig: Rig, scale: Scale, batched: Figures) -> Figures:
    """The same mixes with one slot, what batching is held against; ``batched`` is `throughput`."""
    figures: Figures = {}
    with rig.engine(max_slots=1) as engine:
        run_windows(rig, engine, rig.workload.windows(SHORT, 1), fitted=False)
        for mix, fitted in CASES:
            windows = rig.workload.windows(mix, scale.n_alone)
            each = rates(run_windows(rig, engine, windows, fitted=fitted), windows)
            name = case_name(mix, fitted)
            if name in batched:
                each["batched_is_so_many_times"] = (
                    batched[name]["windows_per_s"] / each["windows_per_s"]
                )
            figures[name] = each
    return figures


def case_name(mix: str, fitted: bool) -> str:
    """How results call a mix on full or fitted contexts."""
    return f"{mix}, {'fitted' if fitted else 'full'}"


def latency(rig: Rig, scale: Scale) -> Figures:
    """One lone window of about 7 s, from its features to its tokens."""
    some = rig.workload.windows(SHORT, 64)
    window = min(some, key=lambda each: abs(each.duration_s - 7))
    figures: Figures = {"duration_s": window.duration_s, "n_tokens": window.n_tokens}
    with rig.engine(max_slots=8) as engine:
        for fitted in (True, False):
            times = [
                run_windows(rig, engine, [window], fitted=fitted, batch=1).wall_s
                for _ in range(4 * scale.repeats)
            ]
            key = "fitted" if fitted else "full"
            figures[key] = {"median_s": median(times[1:]), "longest_s": max(times[1:])}
    return figures


def endurance(rig: Rig, scale: Scale) -> Figures:
    """What many windows leave behind in memory, on the device and on the host."""
    n_rounds = 4
    each = rig.workload.windows(SHORT, max(1, scale.n_endurance // n_rounds), seed=7)
    seen, runs = [], []
    with rig.engine() as engine:
        run_windows(rig, engine, each[: max(1, len(each) // 10)], fitted=True)
        for _ in range(n_rounds):
            runs.append(rates(run_windows(rig, engine, each, fitted=True), each))
            seen.append({**_device_memory(rig), "host_peak_kib": _host_peak_kib()})
    return {
        "n_windows": n_rounds * len(each),
        "rounds": seen,
        "windows_per_s": median(run["windows_per_s"] for run in runs),
        "times_real_time": median(run["times_real_time"] for run in runs),
        "growth": {key: seen[-1][key] - seen[0][key] for key in seen[0]},
    }


def determinism(rig: Rig, scale: Scale) -> Figures:
    """Whether the same windows say the same: again, in the other order, and alone."""
    windows = rig.workload.windows(SHORT, min(32, scale.n_windows), seed=3)
    figures: Figures = {"n_windows": len(windows)}
    for precision in (rig.precision, "float32"):
        given = {"precision": precision}
        with rig.engine(max_slots=len(windows), **given) as engine:
            first, again = (run_windows(rig, engine, windows, fitted=True) for _ in range(2))
        with rig.engine(max_slots=1, **given) as engine:
            alone = run_windows(rig, engine, windows, fitted=True)
        figures[precision] = {
            "share_equal_again": _share_equal(first, again),
            "share_equal_alone": _share_equal(alone, first),
        }
    note = "random weights, whose tokens are nearer to each other than a real model's"
    return {**figures, "note": note}


def precisions(rig: Rig, scale: Scale) -> Figures:
    """The encoder in every precision: speed, and how far its first tokens' scores are off."""
    context, batch = rig.sizes.n_audio_ctx, min(8, rig.max_slots)
    rows = [EncodeRow(i, rig.features(i, context), context) for i in range(batch)]
    asked = [StepRow(i, (ids_of(rig.sizes).eot + 1,), 0, ALLOWED, probe=i) for i in range(batch)]
    figures: Figures = {}
    exact: list[float] = []
    for precision in ("float32", "float16", "bfloat16", "fp8"):
        try:
            with rig.engine(max_slots=batch, precision=precision) as engine:
                spent_s = rig.seconds(lambda e=engine: e.encode(rows), scale.repeats)
                logprobs = [result.logprob for result in engine.step(asked)]
        except Exception as error:
            figures[precision] = {"failed": str(error)}
            continue
        exact = exact or logprobs
        off = max(abs(a - b) for a, b in zip(logprobs, exact, strict=True))
        figures[precision] = {"s_per_window": spent_s / batch, "largest_logprob_error": off}
    return figures


def _number_bytes(rig: Rig) -> int:
    return int(_dtype(rig).itemsize)


def _dtype(rig: Rig) -> torch.dtype:
    if rig.precision != "auto":
        return DTYPES[rig.precision]
    return torch.float32 if rig.device == "cpu" else torch.float16


def rates(run: Run, windows: list[WindowSize]) -> Figures:
    audio_s = sum(window.duration_s for window in windows)
    n_tokens = sum(len(each.tokens) for each in run.decoded)
    assert n_tokens == sum(window.n_tokens for window in windows)
    return {
        "n_windows": len(windows),
        "mean_audio_s": audio_s / len(windows),
        "mean_tokens": n_tokens / len(windows),
        "wall_s": run.wall_s,
        "windows_per_s": len(windows) / run.wall_s,
        "times_real_time": audio_s / run.wall_s,
        "tokens_per_s": n_tokens / run.wall_s,
        "mean_batch_size": run.stats.mean_batch_size,
        "encode_s": run.stats.encode_s,
        "step_s": run.stats.step_s,
    }


def _share_equal(some: Run, others: Run) -> float:
    pairs = list(zip(some.decoded, others.decoded, strict=False))
    return sum(a.tokens == b.tokens for a, b in pairs) / len(pairs)


def _device_memory(rig: Rig) -> Figures:
    if rig.device == "cpu":
        return {"allocated": 0, "reserved": 0}
    return {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
    }


def _host_peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
