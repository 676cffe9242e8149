"""Everything about the GPU engine in one run: correct, how fast, against what, and the limits.

    python -m benchmarks.cuda_bench --out results        on a machine with a GPU
    python -m benchmarks.cuda_bench --quick              a tiny shape on the processor, to try it

The weights are random, of exactly large-v3's shape (or ``--shape``). With ``--speech`` and a
tokenizer the windows are real speech, and each says as many tokens as its true transcript has
(`benchmarks.gpu.speech_windows`); else they are noise of drawn sizes (`benchmarks.gpu.mix`).
Each part may fail alone; results are written after every one, so that a run cut short has what it
measured, and ``--budget-s`` leaves out what would start too late. It needs NumPy, PyTorch and
tokenizers; with ``--speech`` and ``--models`` it also measures word errors of real weights, with
transformers installed it is measured beside it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batched_whisper.errors import ModelError
from batched_whisper.formats.atomic_write import write_atomically
from batched_whisper.models.checkpoint import random_checkpoint
from batched_whisper.models.dimensions import Dimensions
from batched_whisper.tokens.tokenizer import Tokenizer
from benchmarks import machine
from benchmarks.gpu import accuracy, mix, parts, peers
from benchmarks.gpu.laws import laws
from benchmarks.gpu.rig import Rig, make_noises, run_windows, shape_of
from benchmarks.gpu.speech_windows import SpeechWorkload

RESULTS = Path(__file__).parent / "results"
WAYS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "float16": {"precision": "float16"},
    "bfloat16": {"precision": "bfloat16"},
    "float16, 16-bit cross KV": {"precision": "float16", "kv_cache_dtype": "model"},
    "float16, from samples": {"precision": "float16", "from_samples": True},
    "fp8": {"precision": "fp8"},
}
"""In which word errors are counted; the first is what the others are held against."""

NOISE_DB = (10.0, 5.0)
"""Signal-to-noise ratios, in dB, of the noisy copies of every clip."""

BEST = "best"
"""What ``--for-steps`` may be instead of a number."""

Part = Callable[[], dict[str, Any]]


class Report:
    """The figures so far, on disk after every part; none is begun after ``deadline_s``.

    A part that takes longer than ``part_s`` ends the program, wherever it is stuck: on a lent
    machine the time of all others is worth more. Where it was is told.
    """

    def __init__(
        self,
        path: Path,
        head: dict[str, Any],
        deadline_s: float | None = None,
        part_s: float | None = None,
    ) -> None:
        self.path, self._part_s = path, part_s
        self.content: dict[str, Any] = {**head, "left_out": [], "parts": {}}
        self._deadline_s = deadline_s

    def add(self, name: str, part: Part) -> None:
        """Run a part; its failure is its result."""
        began_s = time.perf_counter()
        if self._deadline_s is not None and began_s > self._deadline_s:
            self.content["left_out"].append(name)
            self._write()
            print(f"{name}: left out, the time is over", flush=True)
            return
        if self._part_s is not None:
            self.content["parts"][name] = {"failed": f"not done after {self._part_s:g} s"}
            self._write()
            faulthandler.dump_traceback_later(self._part_s, exit=True)
        try:
            figures = part()
        except Exception as error:
            figures = {"failed": f"{type(error).__name__}: {error}"}
            print(f"--- {name} failed\n{traceback.format_exc()}", flush=True)
        finally:
            faulthandler.cancel_dump_traceback_later()
        took_s = time.perf_counter() - began_s
        self.content["parts"][name] = {"took_s": took_s, **figures}
        self._write()
        print(f"{name}: {took_s:.1f} s", flush=True)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.content, indent=1) + "\n")

    def figures(self, name: str) -> dict[str, Any]:
        """Of a part that ran; else none."""
        found: dict[str, Any] = self.content["parts"].get(name, {})
        return found

    def limits(self) -> parts.Limits | None:
        """What the device can, if that was measured."""
        found = self.figures("limits")
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
    if given.windows:
        numbers = dict.fromkeys(("n_windows", "n_packed", "n_short"), given.windows)
        scale = replace(scale, **numbers)
    name = "quick" if given.quick else given.shape
    began_s = time.perf_counter()
    rig = _make_rig(given, name)
    head = {**_head(rig, scale, name), "weights_s": time.perf_counter() - began_s}
    slug = "-".join(head["gpu"].lower().split())
    report = Report(
        _unused(given.out / f"cuda-{slug}-{name}-{machine.today()}.json"),
        head,
        None if given.budget_s is None else began_s + given.budget_s,
        given.part_s,
    )
    print(f"workload: {rig.workload.what}", flush=True)
    listed = _parts(given, rig, scale, report)
    names = [each.strip() for each in given.parts.split(",")] if given.parts else list(listed)
    if unknown := ", ".join(each for each in names if each not in listed):
        print(f"no such part: {unknown}; there are {', '.join(listed)}")
        return 2
    if given.for_steps == BEST:
        rig = _divided_best(rig, scale, report)
        listed = _parts(given, rig, scale, report)
    for part_name in names:
        report.add(part_name, listed[part_name])
    print(report.table())
    print(f"\nwritten to {report.path.name}")
    return 0


def _unused(path: Path) -> Path:
    """The path, or the next like it that no earlier run has written."""
    others = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in count(2))
    return next(each for each in chain([path], others) if not each.exists())


def _divided_best(rig: Rig, scale: parts.Scale, report: Report) -> Rig:
    """The rig whose engines share the device the faster way, which is measured first."""
    report.add("overlap", lambda: parts.overlap(rig, scale))
    found = report.figures("overlap")
    return replace(rig, options={"n_step_sms": found["best"]}) if "best" in found else rig


def _head(rig: Rig, scale: parts.Scale, name: str) -> dict[str, Any]:
    """What all figures hold for."""
    mixes = (mix.SHORT, mix.PACKED, mix.FULL_LENGTH)
    return {
        **machine.certificate(),
        "gpu": "cpu" if rig.device == "cpu" else torch.cuda.get_device_name(),
        "shape": name,
        "precision": rig.precision,
        "max_slots": rig.max_slots,
        "workload": rig.workload.what,
        "mixes": {
            each: mix.describe(rig.workload.windows(each, scale.n_windows)) for each in mixes
        },
        "seed": 0,
        "versions": machine.versions(("torch", "triton", "transformers", "numpy")),
    }


def _parts(
    given: argparse.Namespace, rig: Rig, scale: parts.Scale, report: Report
) -> dict[str, Part]:
    """The most telling first: a run may be cut short."""
    listed: dict[str, Part] = {
        "laws": lambda: laws(rig.device),
        "limits": lambda: parts.limits(rig, scale),
        "throughput": lambda: parts.throughput(rig, scale),
        "one by one": lambda: parts.one_by_one(rig, scale, report.figures("throughput")),
        "latency": lambda: parts.latency(rig, scale),
        "transformers": lambda: peers.beside_transformers(rig, scale.n_windows),
        "variants": lambda: parts.variants(rig, scale),
        "overlap": lambda: parts.overlap(rig, scale),
        "step": lambda: parts.step(rig, scale, report.limits()),
        "encoder": lambda: parts.encoder(rig, scale, report.limits()),
        "determinism": lambda: parts.determinism(rig, scale),
        "precisions": lambda: parts.precisions(rig, scale),
    }
    if rig.device != "cpu":
        from benchmarks.gpu.kernels import kernels
        from benchmarks.gpu.where import where

        listed["kernels"] = lambda: kernels(rig, scale)
        listed["where"] = lambda: where(rig, scale)
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
    clips = accuracy.with_noise(accuracy.clips_of(speech), NOISE_DB)
    return accuracy.word_errors(folder, clips, WAYS, device)


def _make_rig(given: argparse.Namespace, name: str) -> Rig:
    on_gpu = torch.cuda.is_available() and not given.quick
    sizes = shape_of(name)
    return Rig(
        checkpoint=random_checkpoint(sizes, 0, np.float16, large=True)
        if on_gpu
        else random_checkpoint(sizes, 0),
        device="cuda" if on_gpu else "cpu",
        precision=given.precision,
        max_slots=given.slots if on_gpu else 4,
        memory_fraction=0.9,
        noises=make_noises(sizes),
        workload=_workload(given, sizes),
        options={} if given.for_steps in (None, BEST) else {"n_step_sms": given.for_steps},
    )


def _workload(given: argparse.Namespace, sizes: Dimensions) -> mix.Workload:
    """Real speech, if there is some and what counts its tokens."""
    if not given.speech:
        return mix.DrawnWorkload("no --speech")
    tokenizer = _tokenizer(given)
    if tokenizer is None:
        return mix.DrawnWorkload("no tokenizer of a multilingual model among --models")
    return SpeechWorkload(
        accuracy.clips_of(given.speech), lambda text: len(tokenizer.encode(" " + text)), sizes
    )


def _tokenizer(given: argparse.Namespace) -> Tokenizer | None:
    """The one that was asked for, or the first multilingual one among the models."""
    if given.tokenizer:
        return Tokenizer.from_folder(given.tokenizer)
    for folder in sorted(given.models.iterdir()) if given.models else ():
        try:
            found = Tokenizer.from_folder(folder)
        except ModelError:
            continue
        if found.multilingual:
            return found
    return None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny shape on the processor")
    parser.add_argument("--shape", default="large-v3", help="a short name, such as large-v3-turbo")
    parser.add_argument("--precision", default="auto", help="of the engine; auto: float16")
    parser.add_argument("--slots", type=int, default=320, help="largest batch, in windows")
    parser.add_argument(
        "--for-steps",
        type=lambda text: text if text == BEST else int(text),
        help=f"multiprocessors of their own for steps, or {BEST}: as many as `overlap` finds best",
    )
    parser.add_argument("--parts", help="only these, in this order, separated by commas")
    parser.add_argument("--windows", type=int, help="of each mix, where it is not said otherwise")
    parser.add_argument(
        "--manifest", type=Path, help="JSON lines with duration_s and n_tokens or text"
    )
    parser.add_argument("--speech", type=Path, help="a folder of WAV files with manifest.jsonl")
    parser.add_argument("--models", type=Path, help="a folder of model folders")
    parser.add_argument("--tokenizer", type=Path, help="a model folder, if not one of --models")
    parser.add_argument("--budget-s", type=float, help="start no part after this time")
    parser.add_argument("--part-s", type=float, help="stop if one part takes longer")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
