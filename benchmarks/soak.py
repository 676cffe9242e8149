"""Whether memory stays level: many short calls in a row, from many callers at once.

    python -m benchmarks.soak [--calls 20000] [--callers 64]

The calls are the first 1 to 2 s of the short clips, each of another length, so that no two have
the same shape by design. Resident memory is read after every 500 answers; what counts is how much
more there is at the end than after the first 1,000. Nothing here is about speed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from batched_whisper.audio.decode import decode
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.types import SAMPLING_RATE, Samples
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.batching import option
from benchmarks.workloads import SpeechMissing, speech_folder, standard_workload

RESULTS = Path(__file__).resolve().parent / "results"
EVERY = 500
SETTLED = 1000


@dataclass(frozen=True)
class Reading:
    """Resident memory after a number of calls, and of seconds."""

    n_calls: int
    resident_bytes: int
    seconds: float


def pieces(clips: Sequence[Samples], n: int, seed: int) -> Iterator[Samples]:
    """The first 1 to 2 s of the clips; what begins in a word is mostly decoded more than once."""
    random = np.random.default_rng(seed)
    for clip in itertools.islice(itertools.cycle(clips), n):
        yield clip[: int(random.uniform(1, 2) * SAMPLING_RATE)]


def resident_bytes() -> int:
    """What this process has in memory now, from Linux's /proc."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def soak(whisper: Whisper, calls: Iterator[Samples], n_callers: int) -> Iterator[Reading]:
    """A reading after every `EVERY` calls, the last ones included."""
    began, n_calls = time.perf_counter(), 0
    with ThreadPoolExecutor(n_callers) as callers:
        while some := list(itertools.islice(calls, EVERY)):
            for _ in callers.map(lambda each: whisper.transcribe(each, language="en"), some):
                n_calls += 1
            yield Reading(n_calls, resident_bytes(), round(time.perf_counter() - began, 1))


def growth(readings: Sequence[Reading]) -> float:
    """How much more memory there is at the end than after `SETTLED` calls, as a share."""
    settled = next(each for each in readings if each.n_calls >= SETTLED)
    return readings[-1].resident_bytes / settled.resident_bytes - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help=f"at least {SETTLED}")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--model", default="base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the engine"
    )
    parser.add_argument("--name", default="soak")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    if given.calls < SETTLED:
        parser.error(f"--calls {given.calls}: memory is compared with that after {SETTLED}")
    readings = []
    settings = dict(map(option, given.option))
    try:
        workload = standard_workload(speech_folder(), seed=given.seed)
        clips = [decode(Path(clip.audio)).samples for clip in workload.clips]
        with Whisper(given.model, **settings) as whisper:
            for reading in soak(whisper, pieces(clips, given.calls, given.seed), given.callers):
                readings.append(reading)
                megabytes = reading.resident_bytes / 1e6
                print(f"{reading.n_calls:6} calls  {megabytes:8.1f} MB", flush=True)
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{100 * growth(readings):+.2f} % since the first {SETTLED} calls")
    path = given.output / f"{given.name}-{machine.machine_slug()}-{machine.today()}.json"
    content = {
        **machine.certificate(),
        "versions": machine.versions(("batched-whisper", "openvino")),
        "model": given.model,
        "settings": settings,
        "callers": given.callers,
        "seed": given.seed,
        "growth": growth(readings),
        "readings": [asdict(each) for each in readings],
    }
    report.write(path, content)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
