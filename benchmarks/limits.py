"""How near this machine's own limits the engine runs, both measured in one run.

Limits: the rate of matrix products at the encoder's shapes, through the same runtime, and the rate
at which all processors together read memory. Work: what a window's encoding and a decoder's step
need by the formulas below, over the seconds that the engine's loop counts (`LoopStats`). A share is
of useful work: what the engine does besides (padding to a pool's context, features, sampling) takes
time and counts for nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from batched_whisper.audio.decode import decode
from batched_whisper.engines.merged_padding import layout
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.models.checkpoint import load_checkpoint
from batched_whisper.models.dimensions import Dimensions
from batched_whisper.models.sources import find
from batched_whisper.types import DecodedWindow, Samples
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.batching import option
from benchmarks.compare import RESULTS
from benchmarks.peer_models import MODEL
from benchmarks.systems.ours import settings_and_options
from benchmarks.work_of_a_model import Spoken, decoder_bytes, encoder_flops
from benchmarks.workloads import SpeechMissing, speech_folder, standard_workload

READ_BYTES = 512 << 20
"""Far more than any cache."""


# --- what the machine can -------------------------------------------------------------------------


def matrix_rate(sizes: Dimensions, precision: str, threads: int, context: int) -> float:
    """Floating-point operations a second of an encoder layer's linear products alone.

    A chain [T, d] x [d, 4 d] x [4 d, d], 8 times, weights constant: the shapes that most of the
    encoder's work has. The best of some runs.
    """
    import openvino as ov
    import openvino.opset13 as op

    generator, d, repeats = np.random.default_rng(0), sizes.n_audio_state, 8
    kind = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[precision]
    x = given = op.parameter([context, d], ov.Type.f32)
    for _ in range(repeats):
        for shape in ((d, 4 * d), (4 * d, d)):
            weights = generator.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
            x = op.matmul(x, op.constant(weights), False, False)
    options = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads}
    graph = ov.Core().compile_model(
        ov.Model([x], [given]), "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"}
    )
    request, array = graph.create_infer_request(), np.ones((context, d), np.float32)
    best_s = best_of(lambda: request.infer({0: array}, share_inputs=True))
    return repeats * 2 * 2 * context * d * 4 * d / best_s


def memory_rate(threads: int) -> float:
    """Bytes per second that all processors together read, of an array larger than every cache.

    The better of two readers, each in ``threads`` threads at once: NumPy's maximum and its
    dot product.
    """
    array = np.ones(READ_BYTES // 4, np.float32)
    parts = np.array_split(array, threads)
    with ThreadPoolExecutor(threads) as pool:

        def read_with(reader: Callable[[NDArray[np.float32]], object]) -> float:
            return best_of(lambda: list(pool.map(reader, parts)))

        best_s = min(read_with(np.max), read_with(lambda part: np.dot(part, part)))
    return READ_BYTES / best_s


def best_of(work: Callable[[], object], n: int = 7) -> float:
    """Seconds of the quickest of some runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(n):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return min(seconds)


# --- what the engine reaches ----------------------------------------------------------------------


def attention_rate(
    sizes: Dimensions, precision: str, threads: int, context: int, n_rows: int = 64
) -> float:
    """Bytes per second of keys and values that the engine's cross-attention reads, on its own.

    Every layer's, as a step of ``n_rows`` rows reads them; the best of some runs.
    """
    import openvino as ov
    import openvino.opset13 as op

    from batched_whisper.engines.openvino.graph import attention_of_few

    kind = ov.Type.f32 if precision == "float32" else ov.Type.bf16
    heads = sizes.n_text_head
    width, length = sizes.n_text_state // heads, context
    mask = op.parameter([-1, 1, 1, -1], ov.Type.f32)
    given, heard = [mask], []
    for _ in range(sizes.n_text_layer):
        queries = op.parameter([-1, heads, -1, width], ov.Type.f32)
        caches = [op.parameter([-1, heads, -1, width], kind) for _ in range(2)]
        keys, values = (each if kind == ov.Type.f32 else op.convert(each, "f32") for each in caches)
        heard.append(attention_of_few(queries, keys, values, mask))
        given += [queries, *caches]
    options = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads}
    graph = ov.Core().compile_model(
        ov.Model(heard, given), "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"}
    )
    request, read = graph.create_infer_request(), 0
    for i, port in enumerate(graph.inputs):
        is_cache = i > 0 and (i - 1) % 3 > 0
        shape = [n_rows, heads, length if is_cache else 1, width] if i else [n_rows, 1, 1, length]
        tensor = ov.Tensor(port.element_type, shape)
        # all of it written once, or the reads would be of one page of zeros
        tensor.data.view(np.uint8)[:] = 0
        request.set_tensor(port, tensor)
        read += tensor.byte_size if is_cache else 0
    return read / best_of(request.infer)


@dataclass(frozen=True)
class Reached:
    """The engine's work in one round, and its shares of the limits."""

    n_windows: int
    mean_context: float
    mean_batch_size: float
    encode_s: float
    step_s: float
    wall_s: float
    encoder_flops_per_s: float
    decoder_bytes_per_s: float
    attention_bytes_per_s: float


@dataclass(frozen=True)
class Limits:
    """What the machine can."""

    bfloat16_flops_per_s: float | None
    float32_flops_per_s: float
    memory_bytes_per_s: float

    def flops_per_s(self, precision: str) -> float:
        """The limit that belongs to a precision: int8 is held against bfloat16's."""
        if precision == "float32" or self.bfloat16_flops_per_s is None:
            return self.float32_flops_per_s
        return self.bfloat16_flops_per_s


def measure_limits(sizes: Dimensions, threads: int, context: int) -> Limits:
    """All of them, now."""
    import openvino as ov

    has_bfloat16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return Limits(
        matrix_rate(sizes, "bfloat16", threads, context) if has_bfloat16 else None,
        matrix_rate(sizes, "float32", threads, context),
        memory_rate(threads),
    )


def reach(
    whisper: Whisper, clips: Sequence[Samples], options: dict[str, Any], sizes: Dimensions
) -> Reached:
    """Transcribe the clips once, together; then cross-attention alone, at their mean context."""
    before, began_s = whisper.stats, time.perf_counter()
    transcripts = whisper.transcribe_batch(clips, **options)
    wall_s, after = time.perf_counter() - began_s, whisper.stats
    windows: list[DecodedWindow] = [w for t in transcripts for w in t.windows]
    full = sizes.n_audio_ctx
    spoken = [Spoken(len(layout(w.audio_context, full)), len(w.tokens) + 1) for w in windows]
    encode_s, step_s = after.encode_s - before.encode_s, after.step_s - before.step_s
    n_batches, n_rows = after.n_batches - before.n_batches, after.n_rows - before.n_rows
    mean_context = sum(each.context for each in spoken) / len(spoken)
    about = whisper.info
    flops = sum(encoder_flops(sizes, each.context) for each in spoken)
    read = decoder_bytes(sizes, spoken, n_batches, n_rows, about.precision)
    return Reached(
        n_windows=len(windows),
        mean_context=mean_context,
        mean_batch_size=n_rows / n_batches,
        encode_s=encode_s,
        step_s=step_s,
        wall_s=wall_s,
        encoder_flops_per_s=flops / encode_s,
        decoder_bytes_per_s=read / step_s,
        attention_bytes_per_s=attention_rate(
            sizes, about.precision, about.threads, round(mean_context)
        ),
    )


@dataclass(frozen=True)
class Shares:
    """Of the limits, from 0 to 1: medians over the rounds, each held against its own limits."""

    encoder: float
    decoder: float
    cross_attention: float  # alone, of 64 rows
    engine_of_wall: float  # the time in which the engine computed, of all


def shares(rounds: Sequence[tuple[Limits, Reached]], precision: str) -> Shares:
    """What share of the limits was reached."""
    return Shares(
        median(r.encoder_flops_per_s / limits.flops_per_s(precision) for limits, r in rounds),
        median(r.decoder_bytes_per_s / limits.memory_bytes_per_s for limits, r in rounds),
        median(r.attention_bytes_per_s / limits.memory_bytes_per_s for limits, r in rounds),
        median((r.encode_s + r.step_s) / r.wall_s for _, r in rounds),
    )


def table(rounds: Sequence[tuple[Limits, Reached]], precision: str) -> Table:
    """Limits, what was reached, and the shares; medians."""
    found = shares(rounds, precision)
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("", "limit", "reached", "share"):
        shown.add_column(heading, justify="left" if not heading else "right")
    limit = median(limits.flops_per_s(precision) for limits, _ in rounds)
    reached = median(r.encoder_flops_per_s for _, r in rounds)
    against = " against bfloat16" if precision == "int8" else ""
    name = f"encoder, {precision}{against}, GFLOP/s"
    shown.add_row(name, f"{limit / 1e9:.0f}", f"{reached / 1e9:.0f}", f"{found.encoder:.0%}")
    limit = median(limits.memory_bytes_per_s for limits, _ in rounds)
    for name, reached, share in (
        ("decoder", median(r.decoder_bytes_per_s for _, r in rounds), found.decoder),
        (
            "cross-attention alone, 64 rows",
            median(r.attention_bytes_per_s for _, r in rounds),
            found.cross_attention,
        ),
    ):
        name = f"{name}, memory read, GB/s"
        shown.add_row(name, f"{limit / 1e9:.1f}", f"{reached / 1e9:.1f}", f"{share:.0%}")
    shown.add_row("engine, of the wall time", "", "", f"{found.engine_of_wall:.0%}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The program: limits and work in alternation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--calls", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 calls, one round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of this package"
    )
    parser.add_argument("--name", default="limits")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    options = {"model": MODEL, **dict(map(option, given.option))}
    n_calls, n_rounds = (16, 1) if given.quick else (given.calls, given.rounds)
    rounds: list[tuple[Limits, Reached]] = []
    try:
        settings, decoding = settings_and_options(options)
        decoding = {"language": "en", **decoding}
        workload = standard_workload(speech_folder(), n_calls=n_calls, seed=given.seed)
        sounds = [decode(Path(clip.audio)).samples for clip in workload.clips]
        clips = [sounds[i] for i in workload.order]
        sizes = load_checkpoint(find(settings["model"])).dimensions
        with Whisper(**settings) as whisper:
            about = whisper.info
            context = round(reach(whisper, clips[: len(sounds)], decoding, sizes).mean_context)
            for _ in range(n_rounds):
                limits = measure_limits(sizes, about.threads, context)
                rounds.append((limits, reach(whisper, clips, decoding, sizes)))
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(table(rounds, about.precision))
    path = given.output / f"{given.name}-{machine.machine_slug()}-{machine.today()}.json"
    content = {
        **machine.certificate(),
        "versions": machine.versions(("batched-whisper", "openvino", "numpy")),
        "seed": given.seed,
        "options": options,
        "engine": asdict(about),
        "shares": asdict(shares(rounds, about.precision)),
        "rounds": [{"limits": asdict(a), "reached": asdict(b)} for a, b in rounds],
    }
    report.write(path, content)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
