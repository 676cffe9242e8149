"""Measures the gain from batching: many callers with one clip each, concurrent and sequential.

The same engine, clips and options both ways, in alternation; medians of the rounds. One after
another means that each call begins when the one before it has been answered, so every batch is of
one window; the engine's own limit stays as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from batched_whisper.audio.decode import decode
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.types import Samples
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.compare import RESULTS
from benchmarks.peer_models import MODEL
from benchmarks.systems.ours import settings_and_options
from benchmarks.workloads import SpeechMissing, speech_folder, standard_workload

N_CALLERS = 64


@dataclass(frozen=True)
class Pass:
    """All callers, once, one way."""

    wall_s: float
    cpu_s: float
    n_batches: int
    n_rows: int
    encode_s: float
    step_s: float
    texts: tuple[str, ...]

    @property
    def mean_batch_size(self) -> float:
        """Windows in a step of the decoder."""
        return self.n_rows / self.n_batches if self.n_batches else 0.0


@dataclass(frozen=True)
class Gain:
    """What the rounds come to; figures are medians."""

    n_callers: int
    n_rounds: int
    together_s: float
    alone_s: float
    ratio: float
    together_batch: float
    alone_batch: float
    together_step_s: float
    alone_step_s: float
    n_different_texts: int

    @property
    def decoder_share(self) -> float:
        """The decoder's share of the time when every call is alone."""
        return self.alone_step_s / self.alone_s

    @property
    def ceiling(self) -> float:
        """How many times faster together would be if the decoder's steps then cost nothing at all.

        What is more than that comes from elsewhere: while one call is decoded, others' audio is
        prepared. Windows are encoded one by one either way.
        """
        return 1 / (1 - self.decoder_share)


def gain(together: Sequence[Pass], alone: Sequence[Pass]) -> Gain:
    """Compare the passes of both ways; a text is different if it is so in any round."""
    together_s, alone_s = median(p.wall_s for p in together), median(p.wall_s for p in alone)
    rounds = [*together, *alone]
    return Gain(
        n_callers=len(alone[0].texts),
        n_rounds=len(alone),
        together_s=together_s,
        alone_s=alone_s,
        ratio=alone_s / together_s,
        together_batch=median(p.mean_batch_size for p in together),
        alone_batch=median(p.mean_batch_size for p in alone),
        together_step_s=median(p.step_s for p in together),
        alone_step_s=median(p.step_s for p in alone),
        n_different_texts=sum(
            len(set(texts)) > 1 for texts in zip(*(p.texts for p in rounds), strict=True)
        ),
    )


def _together(transcribe: Callable[[Samples], str], clips: Sequence[Samples]) -> list[str]:
    """Every caller a thread; all begin when the last one is there."""
    start = threading.Barrier(len(clips))

    def call(clip: Samples) -> str:
        start.wait()
        return transcribe(clip)

    with ThreadPoolExecutor(len(clips)) as callers:
        return list(callers.map(call, clips))


def _alone(transcribe: Callable[[Samples], str], clips: Sequence[Samples]) -> list[str]:
    return [transcribe(clip) for clip in clips]


def _timed(
    whisper: Whisper, way: Callable[..., list[str]], clips: Sequence[Samples], options: Any
) -> Pass:
    def transcribe(clip: Samples) -> str:
        return str(whisper.transcribe(clip, **options).text)

    before, cpu_s, began_s = whisper.stats, time.process_time(), time.perf_counter()
    texts = way(transcribe, clips)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return _pass(before, whisper.stats, wall_s, cpu_s, texts)


def _pass(
    before: LoopStats, after: LoopStats, wall_s: float, cpu_s: float, texts: Sequence[str]
) -> Pass:
    return Pass(
        wall_s=wall_s,
        cpu_s=cpu_s,
        n_batches=after.n_batches - before.n_batches,
        n_rows=after.n_rows - before.n_rows,
        encode_s=after.encode_s - before.encode_s,
        step_s=after.step_s - before.step_s,
        texts=tuple(texts),
    )


def measure(
    clips: Sequence[Samples], n_rounds: int, options: dict[str, Any], say: Callable[[str], None]
) -> tuple[list[Pass], list[Pass]]:
    """Both ways, in alternation, after a warm-up of each."""
    settings, decoding = settings_and_options({"model": MODEL, **options})
    decoding = {"language": "en", **decoding}
    together: list[Pass] = []
    alone: list[Pass] = []
    with Whisper(**settings) as whisper:
        _timed(whisper, _together, clips, decoding)
        _timed(whisper, _alone, clips[:8], decoding)
        for number in range(1, n_rounds + 1):
            together.append(_timed(whisper, _together, clips, decoding))
            alone.append(_timed(whisper, _alone, clips, decoding))
            say(
                f"round {number}: together {together[-1].wall_s:.2f} s, "
                f"one after another {alone[-1].wall_s:.2f} s"
            )
    return together, alone


def table(found: Gain) -> Table:
    """Both ways side by side."""
    shown = Table(box=SIMPLE_HEAD)
    shown.add_column(f"{found.n_callers} calls, median of {found.n_rounds}")
    for heading in ("wall s", "calls/s", "mean batch", "decoder s"):
        shown.add_column(heading, justify="right")
    for name, wall_s, batch, step_s in (
        ("at once", found.together_s, found.together_batch, found.together_step_s),
        ("one after another", found.alone_s, found.alone_batch, found.alone_step_s),
    ):
        rate = found.n_callers / wall_s
        shown.add_row(name, f"{wall_s:.2f}", f"{rate:.2f}", f"{batch:.1f}", f"{step_s:.2f}")
    return shown


def option(pair: str) -> tuple[str, Any]:
    """``name=value`` of the command line; the value is JSON's where it can be, else a word."""
    name, _, text = pair.partition("=")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--callers", type=int, default=N_CALLERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 callers, one round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of this package"
    )
    parser.add_argument("--name", default="batching")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    n_callers, n_rounds = (16, 1) if given.quick else (given.callers, given.rounds)
    options = dict(map(option, given.option))
    try:
        workload = standard_workload(speech_folder(), n_calls=n_callers, seed=given.seed)
        sounds = [decode(Path(clip.audio)).samples for clip in workload.clips]
        clips = [sounds[i] for i in workload.order]
        together, alone = measure(clips, n_rounds, options, lambda line: print(line, flush=True))
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = gain(together, alone)
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(table(found))
    print(f"{found.ratio:.2f} times faster together; {found.n_different_texts} texts differ")
    print(
        f"alone, {100 * found.decoder_share:.0f} % of the time is the decoder's: "
        f"without it everything would be {found.ceiling:.2f} times faster"
    )
    path = given.output / f"{given.name}-{machine.machine_slug()}-{machine.today()}.json"
    content = {
        **machine.certificate(),
        "versions": machine.versions(("batched-whisper", "openvino")),
        "seed": given.seed,
        "options": options,
        "gain": {
            **asdict(found),
            "decoder_share": found.decoder_share,
            "ceiling": found.ceiling,
        },
        "together": [asdict(each) for each in together],
        "alone": [asdict(each) for each in alone],
    }
    report.write(path, content)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
