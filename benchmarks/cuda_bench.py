"""Everything about the GPU engine in one run: correct, how fast, against what, and the limits.

    python -m benchmarks.cuda_bench --out results        on a machine with a GPU
    python -m benchmarks.cuda_bench --quick              a tiny shape on the processor, to try it

The weights are random, of exactly large-v3's shape (or ``--shape``), and a window says as many
tokens as its mix tells: `benchmarks.gpu.mix`. Each part may fail alone; results are written after
every one, so that a run cut short has what it measured. It needs NumPy, PyTorch and tokenizers;
with ``--speech`` and ``--models`` it also measures word errors of real weights, with transformers
installed it is measured beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batched_whisper.formats.whole_file import write_whole
from batched_whisper.models.checkpoint import random_checkpoint
from benchmarks import machine
from benchmarks.gpu import accuracy, mix, parts, peers
from benchmarks.gpu.laws import laws
from benchmarks.gpu.rig import Rig, make_noises, run_windows, shape_of

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("float32", "float16", "bfloat16")

Part = Callable[[], dict[str, Any]]


class Report:
    """The figures so far, on disk after every part."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {**head, "parts": {}}

    def add(self, name: str, part: Part) -> None:
        """Run a part; its failure is its result."""
        began_s = time.perf_counter()
        try:
            figures = part()
        except Exception as error:
            figures = {"failed": f"{type(error).__name__}: {error}"}
            print(f"--- {name} failed\n{traceback.format_exc()}", flush=True)
        took_s = time.perf_counter() - began_s
        self.content["parts"][name] = {"took_s": took_s, **figures}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(self.content, indent=1) + "\n")
        print(f"{name}: {took_s:.1f} s", flush=True)

    def limits(self) -> parts.Limits | None:
        """What the device can, if that was measured."""
        found = self.content["parts"].get("limits", {})
        if "copy_bytes_per_s" not in found:
            return None
        return parts.Limits(found["copy_bytes_per_s"], found["matrix_flops_per_s"])

    def table(self) -> str:
        """Every number, one a line, under its part."""
        lines = []
        for name, figures in self.content["parts"].items():
            lines.append(f"\n{name}")
            lines += [f"  {path:<58} {value}" for path, value in _leaves(figures)]
        return "\n".join(lines)


def _leaves(figures: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(figures, dict):
        found = []
        for key, value in figures.items():
            if key not in ("texts", "took_s", "rounds"):
                found += _leaves(value, f"{path}; {key}" if path else str(key))
        return found
    return [(path, f"{figures:.4g}" if isinstance(figures, float) else str(figures))]


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that were asked for."""
    given = _parse(arguments)
    scale = parts.QUICK if given.quick else parts.FULL
    name = "quick" if given.quick else given.shape
    began_s = time.perf_counter()
    rig = _make_rig(given, name)
    device = "cpu" if rig.device == "cpu" else torch.cuda.get_device_name()
    slug = "-".join(device.lower().split())
    report = Report(
        given.out / f"cuda-{slug}-{name}-{machine.today()}.json",
        {
            **machine.certificate(),
            "gpu": device,
            "shape": name,
            "precision": given.precision,
            "max_slots": rig.max_slots,
            "seed": 0,
            "versions": machine.versions(("torch", "triton", "transformers", "numpy")),
            "weights_s": time.perf_counter() - began_s,
        },
    )
    wanted = given.parts.split(",") if given.parts else None
    for part_name, part in _parts(given, rig, scale, report).items():
        if wanted is None or part_name in wanted:
            report.add(part_name, part)
    print(report.table())
    print(f"\nwritten to {report.path.name}")
    return 0


def _parts(
    given: argparse.Namespace, rig: Rig, scale: parts.Scale, report: Report
) -> dict[str, Part]:
    """The most telling first: a run may be cut short."""
    windows = mix.mlperf_like(scale.n_windows)
    listed: dict[str, Part] = {
        "laws": lambda: laws(rig.device),
        "limits": lambda: parts.limits(rig, scale),
        "step": lambda: parts.step(rig, scale, report.limits()),
        "encoder": lambda: parts.encoder(rig, scale, report.limits()),
        "throughput": lambda: parts.throughput(rig, scale),
        "one by one": lambda: parts.one_by_one(rig, scale),
        "latency": lambda: parts.latency(rig, scale),
        "transformers": lambda: peers.transformers_rate(rig, windows[: 4 * peers.BATCH]),
        "determinism": lambda: parts.determinism(rig, scale),
        "precisions": lambda: parts.precisions(rig, scale),
    }
    if rig.device != "cpu":
        listed["kernels"] = lambda: parts.kernels(rig, scale)
    if given.manifest:
        listed["manifest"] = partial(_of_manifest, rig, given.manifest)
    if given.speech and given.models:
        for folder in sorted(given.models.iterdir()):
            listed[f"word errors of {folder.name}"] = partial(
                _word_errors, folder, given.speech, rig.device
            )
    listed["endurance"] = lambda: parts.endurance(rig, scale)
    return listed


def _of_manifest(rig: Rig, manifest: Path) -> dict[str, Any]:
    windows = mix.of_file(manifest)
    with rig.engine() as engine:
        return {
            key: parts.rates(run_windows(rig, engine, windows, fitted=fitted), windows)
            for key, fitted in (("full", False), ("fitted", True))
        }


def _word_errors(folder: Path, speech: Path, device: str) -> dict[str, Any]:
    return accuracy.word_errors(folder, accuracy.clips_of(speech), PRECISIONS, device)


def _make_rig(given: argparse.Namespace, name: str) -> Rig:
    on_gpu = torch.cuda.is_available() and not given.quick
    sizes = shape_of(name)
    return Rig(
        checkpoint=random_checkpoint(sizes, 0, np.float16 if on_gpu else np.float32),
        device="cuda" if on_gpu else "cpu",
        precision=given.precision,
        max_slots=given.slots if on_gpu else 4,
        memory_fraction=0.9,
        noises=make_noises(sizes),
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny shape on the processor")
    parser.add_argument("--shape", default="large-v3", help="a short name, such as large-v3-turbo")
    parser.add_argument("--precision", default="auto", help="of the engine; auto: float16")
    parser.add_argument("--slots", type=int, default=256, help="the most windows together")
    parser.add_argument("--parts", help="only these, separated by commas")
    parser.add_argument("--manifest", type=Path, help="lines of duration_s and n_tokens or text")
    parser.add_argument("--speech", type=Path, help="a folder of WAV files with manifest.jsonl")
    parser.add_argument("--models", type=Path, help="a folder of model folders")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
