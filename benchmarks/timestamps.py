"""What timed segments cost: `timestamps` on against off, in words, tokens, steps and time.

    python -m benchmarks.timestamps [--model base --model tiny.en] [--precision int8] [--rounds 7]

Words: the clips of `benchmarks.gate` in all its variants, and the long recordings. Time: 200 short
calls, as samples, by `map`; and the long recordings as files. Both options have the same `Whisper`
and take turns, in the other order every other round; figures are medians. On a machine that others
use too, the processor's time says more than the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from batched_whisper import DecodingOptions, Transcript, Whisper, evaluation
from batched_whisper.audio.decode import decode
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.evaluation import ErrorCounts
from benchmarks import machine, report
from benchmarks.gate import Spoken, speech, variants
from benchmarks.workloads import SpeechMissing, Workload, speech_folder, standard_workload

RESULTS = Path(__file__).resolve().parent / "results" / "extra"
KINDS = {"plain": DecodingOptions(), "timed": DecodingOptions(timestamps=True)}
PACKAGES = ("batched-whisper", "openvino", "jiwer", "whisper-normalizer")


@dataclass(frozen=True)
class Turn:
    """One kind of options, one workload, once; `foreign_share` is of all processors."""

    wall_s: float
    cpu_s: float
    foreign_share: float | None
    n_steps: int
    n_tokens: int  # rows of all steps
    n_windows: int
    n_decoded_again: int
    n_segments: int


# --- words ----------------------------------------------------------------------------------------


def words(whisper: Whisper, spoken: Mapping[str, Sequence[Spoken]]) -> list[dict[str, Any]]:
    """A row for each variant: the errors of both kinds."""
    rows = []
    for variant, clips in spoken.items():
        row: dict[str, Any] = {"variant": variant, "n_clips": len(clips)}
        for kind, options in KINDS.items():
            futures = [
                whisper.submit(clip.samples, options=options, language=clip.language, vad=False)
                for clip in clips
            ]
            found = [future.result() for future in futures]
            told = zip((clip.text for clip in clips), found, strict=True)
            row[kind] = asdict(sum((_errors(*each) for each in told), ErrorCounts()))
        rows.append(row)
    return rows


def _errors(text: str, transcript: Transcript) -> ErrorCounts:
    return evaluation.count_errors(text, transcript.text, transcript.language or None)


# --- time -----------------------------------------------------------------------------------------


def turn(whisper: Whisper, audios: Sequence[Any], options: DecodingOptions) -> Turn:
    """All of a workload, once."""
    before, busy, cpu_s = whisper.stats, machine.BusyTime.now(), time.process_time()
    began_s = time.perf_counter()
    found = list(whisper.transcribe.map(audios, options=options, language="en"))
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    all_s, after = machine.BusyTime.now().since(busy), whisper.stats
    foreign_s = None if all_s is None else max(0.0, all_s - cpu_s)
    windows = [window for transcript in found for window in transcript.windows]
    return Turn(
        wall_s=wall_s,
        cpu_s=cpu_s,
        foreign_share=None if foreign_s is None else foreign_s / wall_s / machine.n_processors(),
        n_steps=after.n_batches - before.n_batches,
        n_tokens=after.n_rows - before.n_rows,
        n_windows=len(windows),
        n_decoded_again=sum(window.decodes > 1 for window in windows),
        n_segments=sum(len(transcript.segments) for transcript in found),
    )


def turns(whisper: Whisper, audios: Sequence[Any], n_rounds: int) -> dict[str, list[Turn]]:
    """Those of both kinds, which take turns; the first round is not counted."""
    found: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    for i in range(n_rounds + 1):
        for kind in list(KINDS) if i % 2 else reversed(list(KINDS)):
            one = turn(whisper, audios, KINDS[kind])
            if i:
                found[kind].append(one)
    return found


def summary(of: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Medians of both kinds, and of the rounds' ratios: what the timed one costs more."""
    medians = {
        kind: {
            name: median(getattr(each, name) for each in some)
            for name in ("wall_s", "cpu_s", "n_steps", "n_tokens", "n_windows", "n_segments")
        }
        for kind, some in of.items()
    }
    ratios = {
        name: median(
            getattr(b, name) / getattr(a, name)
            for a, b in zip(of["plain"], of["timed"], strict=True)
        )
        for name in ("wall_s", "cpu_s", "n_steps", "n_tokens")
    }
    return {"medians": medians, "timed_over_plain": ratios}


# --- the program ----------------------------------------------------------------------------------


def measure(model: str, precision: str, folder: Path, workload: Workload, n: int) -> dict[str, Any]:
    """Everything of one engine."""
    with Whisper(model, precision=precision) as whisper:  # type: ignore[arg-type]
        long = [
            Spoken(clip.collection, decode(Path(clip.audio)).samples, clip.text, "en")
            for clip in workload.long
        ]
        spoken = {**variants(speech(folder, model), whisper), "long": long}
        result: dict[str, Any] = {"model": model, "precision": whisper.info.precision}
        result["words"] = words(whisper, spoken)
        samples = [decode(Path(clip.audio)).samples for clip in workload.clips]
        for name, audios in (
            ("short", [samples[i] for i in workload.order]),
            ("long", [clip.audio for clip in workload.long]),
        ):
            found = turns(whisper, audios, n)
            result[name] = {
                **summary(found),
                "turns": {kind: [asdict(each) for each in some] for kind, some in found.items()},
            }
    return result


def show(result: Mapping[str, Any]) -> None:
    """The figures, for reading."""
    print(f"{result['model']}, {result['precision']}")
    for row in result["words"]:
        rates = [100 * (ErrorCounts(**row[kind]).rate or 0.0) for kind in KINDS]
        print(f"  {row['variant']} ({row['n_clips']}): {rates[0]:.2f} %, timed {rates[1]:.2f} %")
    for name in ("short", "long"):
        print(f"  {name}: {result[name]['medians']}")
        print(f"  {name}, timed over plain: {result[name]['timed_over_plain']}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timestamps", description=__doc__)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--precision", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    results = []
    try:
        evaluation.require()
        folder = speech_folder()
        workload = standard_workload(folder)
        for model in given.model or ["base"]:
            for precision in given.precision or ["auto"]:
                results.append(measure(model, precision, folder, workload, given.rounds))
                show(results[-1])
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = given.output / f"timestamps-{machine.machine_slug()}-{machine.today()}.json"
    versions = machine.versions(PACKAGES)
    report.write(path, {**machine.certificate(), "versions": versions, "results": results})
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
