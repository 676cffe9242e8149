"""How much memory a long recording takes: the most that a process ever had, by length.

    python -m benchmarks.memory [--minutes 10 --minutes 120] [--model base] [--no-vad]

Each length is measured in a process of its own, so that none starts from another's memory. The
recording is a WAV file of the collection's long readings, again and again, and is written and read
as a stream. What counts is how much more the longer ones take than the first. Nothing here is
about speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from batched_whisper.audio.decode import open_audio
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.types import SAMPLING_RATE, Samples
from batched_whisper.whisper import Whisper
from benchmarks import machine, report
from benchmarks.workloads import SpeechMissing, read_clips, speech_folder

RESULTS = Path(__file__).resolve().parent / "results"
FULL_SCALE = 2**15 - 1


@dataclass(frozen=True)
class Reading:
    """What one recording took; ``loaded_bytes`` is the most before it began."""

    minutes: float
    loaded_bytes: int
    peak_bytes: int
    n_windows: int
    n_words: int


def endless(files: Iterable[Path]) -> Iterator[Samples]:
    """The recordings' sound in blocks, one after another and from the first one again."""
    for file in cycle(files):
        with open_audio(file) as stream:
            yield from stream


def write_wav(path: Path, blocks: Iterable[Samples], n_samples: int) -> None:
    """The first samples of the blocks as a file, 16 bits, mono, 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        for block in blocks:
            part = block[:n_samples]
            file.writeframes((np.clip(part, -1, 1) * FULL_SCALE).astype("<i2").tobytes())
            n_samples -= len(part)
            if not n_samples:
                return


def transcribe(file: Path, minutes: float, settings: dict[str, Any], vad: bool) -> Reading:
    """Load, transcribe, and read this process's memory."""
    with Whisper(**settings) as whisper:
        loaded = machine.peak_memory_bytes()
        found = whisper.transcribe(file, language="en", vad=vad)
    n_words = len(found.text.split())
    return Reading(minutes, loaded, machine.peak_memory_bytes(), len(found.windows), n_words)


def in_a_process_of_its_own(arguments: argparse.Namespace, minutes: float, file: Path) -> Reading:
    """The same, by this program started anew."""
    command = [sys.executable, "-m", "benchmarks.memory", "--only-file", str(file)]
    command += ["--minutes", str(minutes), "--model", arguments.model]
    command += ["--vad" if arguments.vad else "--no-vad"]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    ran = subprocess.run(command, cwd=machine.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return Reading(**json.loads(ran.stdout))


def measure(arguments: argparse.Namespace) -> list[Reading]:
    """Every length in turn."""
    folder = speech_folder()
    long = [folder / clip.audio for clip in read_clips(folder, ["long"])]
    readings = []
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "long.wav"
        for minutes in arguments.minutes:
            write_wav(file, endless(long), int(minutes * 60 * SAMPLING_RATE))
            readings.append(in_a_process_of_its_own(arguments, minutes, file))
            print(described(readings[-1], readings[0]), file=sys.stderr)
    return readings


def described(reading: Reading, first: Reading) -> str:
    """One line about a reading."""
    more = (reading.peak_bytes - first.peak_bytes) / 1e6
    return (
        f"{reading.minutes:g} minutes: {reading.peak_bytes / 1e6:,.0f} MB at most, "
        f"{more:+,.0f} MB against {first.minutes:g} minutes; {reading.n_windows} windows, "
        f"{reading.n_words} words"
    )


def document(arguments: argparse.Namespace, readings: Sequence[Reading]) -> dict[str, Any]:
    """Everything that was measured, as JSON types."""
    first = readings[0]
    return {
        **machine.certificate(),
        "versions": machine.versions(("openvino", "numpy", "av")),
        "options": {"model": arguments.model, "threads": arguments.threads, "vad": arguments.vad},
        "readings": [
            {**asdict(each), "more_bytes": each.peak_bytes - first.peak_bytes} for each in readings
        ],
    }


def main(words: Sequence[str] | None = None) -> int:
    """The program; gives its exit code."""
    arguments = _parser().parse_args(words)
    arguments.minutes = arguments.minutes or [10.0, 120.0]
    settings = {"model": arguments.model, "threads": arguments.threads}
    try:
        if arguments.only_file:
            reading = transcribe(arguments.only_file, arguments.minutes[0], settings, arguments.vad)
            print(json.dumps(asdict(reading)))
            return 0
        readings = measure(arguments)
    except (SpeechMissing, BatchedWhisperError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    name = f"memory-{machine.machine_slug()}-{machine.today()}.json"
    path = arguments.output or RESULTS / name
    report.write(path, document(arguments, readings))
    print(f"written to {path}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--minutes", type=float, action="append", help="again for more")
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--vad", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only-file", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
