"""Whether keys and values of the audio in 8 bits cost words: the GPU engine, on the processor.

    python -m benchmarks.kv_cache [--model base --model tiny.en] [--context fit --context full]

The engine for GPUs computes in float32 here, and keeps the cross-attention keys and values in
float32 or in 8 bits; all else is the same. The clips and their variants are those of
`benchmarks.gate`. It measures word errors, not speed, so it may run on a busy machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from batched_whisper import evaluation
from batched_whisper.engines import factory
from batched_whisper.engines.interface import Engine
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.gate import RESULTS, Measured, Spoken, _rate, figures, measure, speech, variants
from benchmarks.workloads import SpeechMissing, speech_folder

KINDS = ("model", "int8")


def make_engine(
    kind: str, checkpoint: Any, ids: Any, *, streams: int | None, **options: Any
) -> list[Engine]:
    """In place of the processor's own engine."""
    from batched_whisper.engines.cuda.engine import CudaEngine

    return [CudaEngine(checkpoint, ids, device="cpu", kv_cache_dtype=kind, **options)]


make_same, make_int8 = (partial(make_engine, kind) for kind in KINDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kv_cache", description=__doc__)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--context", action="append", default=[], choices=("fit", "full"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    try:
        evaluation.require()
        folder = speech_folder()
        rows = [
            row
            for model in given.model or ["base", "tiny.en"]
            for row in _of_model(folder, model, given.context or ["fit", "full"])
        ]
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = given.output / f"kv-cache-{machine.machine_slug()}-{machine.today()}.json"
    versions = machine.versions(("batched-whisper", "torch", "jiwer", "whisper-normalizer"))
    report.write(path, {**machine.certificate(), "versions": versions, "rows": rows})
    print(f"written: {path}")
    return 0


def _of_model(folder: Path, model: str, contexts: Sequence[str]) -> list[dict[str, Any]]:
    with Whisper(model) as whisper:
        spoken = variants(speech(folder, model), whisper)
    found = {kind: _of_kind(model, kind, spoken, contexts) for kind in KINDS}
    rows = []
    for variant, context in found["model"]:
        same, small = (found[kind][variant, context] for kind in KINDS)
        differ = sum(a != b for a, b in zip(same.texts, small.texts, strict=True))
        rates = [_rate(each.errors) for each in (same, small)]
        rows.append(
            {
                "model": model,
                "variant": variant,
                "context": context,
                "n_clips": len(spoken[variant]),
                "n_other_texts": differ,
                "difference": rates[1] - rates[0],
                **{kind: figures(found[kind][variant, context]) for kind in KINDS},
            }
        )
        print(
            f"{model} {context} {variant}: {100 * rates[0]:.2f} % and in 8 bits "
            f"{100 * rates[1]:.2f} %, {differ} of {len(same.texts)} texts differ",
            flush=True,
        )
    return rows


def _of_kind(
    model: str, kind: str, spoken: dict[str, list[Spoken]], contexts: Sequence[str]
) -> dict[tuple[str, str], Measured]:
    usual = factory.ON_CPU
    factory.ON_CPU = f"benchmarks.kv_cache:make_{kind}"
    try:
        with Whisper(model, precision="float32") as whisper:
            return {
                (variant, context): measure(whisper, clips, context)
                for variant, clips in spoken.items()
                for context in contexts
            }
    finally:
        factory.ON_CPU = usual


if __name__ == "__main__":
    sys.exit(main())
