"""The process of one system: it loads the system, and transcribes when told to.

``python -m benchmarks.worker`` reads one JSON object per line and answers each with one. Short
clips are decoded before the measurement; the time of a long recording includes decoding. Memory,
CPU seconds and threads are those of this process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from batched_whisper.audio.decode import decode
from batched_whisper.types import Samples
from benchmarks import machine
from benchmarks.left_out import LeftOut
from benchmarks.peer_models import PeerModels
from benchmarks.systems.interface import Counts, Place, System
from benchmarks.workloads import Workload

Message = dict[str, Any]


class Worker:
    """One system and what it is to transcribe."""

    def __init__(self) -> None:
        self._system: System | None = None
        self._workload: Workload | None = None
        self._sounds: list[Samples] = []

    def answer(self, message: Message) -> Message:
        """Do what a message says; an error is an answer too."""
        try:
            answered: Message = getattr(self, f"_{message.pop('do')}")(**message)
            return answered
        except (LeftOut, ModuleNotFoundError) as error:
            return {"left_out": _reason(error)}
        except Exception as error:
            traceback.print_exc()
            return {"left_out": f"failed: {_reason(error)}"}

    def _load(
        self, system: str, settings: Message, threads: int, model: str, workload: Message
    ) -> Message:
        self._workload = Workload.from_json(workload)
        self._sounds = [decode(Path(clip.audio)).samples for clip in self._workload.clips]
        place = Place(settings, threads, PeerModels(model))
        made: System = import_module(f"benchmarks.systems.{system}").make(place)
        began_s = time.perf_counter()
        made.load()
        load_s = time.perf_counter() - began_s
        self._system = made
        return {"load_s": load_s, "versions": machine.versions(made.packages)}

    def _short(self, n_calls: int) -> Message:
        workload, system = self._ready()
        clips = [self._sounds[i] for i in workload.order[:n_calls]]
        return self._timed(lambda: system.transcribe_short(clips))

    def _long(self, n_recordings: int) -> Message:
        workload, system = self._ready()
        paths = [Path(clip.audio) for clip in workload.long[:n_recordings]]
        return self._timed(lambda: [system.transcribe_long(path) for path in paths])

    def _close(self) -> Message:
        if self._system is not None:
            self._system.close()
        return {}

    def _ready(self) -> tuple[Workload, System]:
        assert self._workload is not None and self._system is not None, "load comes first"
        return self._workload, self._system

    def _timed(self, work: Callable[[], list[str]]) -> Message:
        gc.collect()
        before, cpu_s, began_s = self._counters(), time.process_time(), time.perf_counter()
        texts = work()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        after = self._counters()
        return {
            "texts": texts,
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "n_threads": machine.n_threads(),
            "counters": {name: after[name] - before[name] for name in after},
        }

    def _counters(self) -> dict[str, float]:
        return dict(self._system.counters()) if isinstance(self._system, Counts) else {}


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: see benchmarks/requirements.txt"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if isinstance(error, LeftOut) else f"{type(error).__name__}: {lines[0]}"


def _messages(source: IO[str]) -> Iterator[Message]:
    for line in source:
        yield json.loads(line)


def main() -> None:
    """Answer until the input ends. What systems print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for message in _messages(sys.stdin):
        answers.write(json.dumps(worker.answer(message)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
