"""The harness's end of a worker: one process a system, kept alive, asked one thing at a time."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks import machine
from benchmarks.figures import Turn
from benchmarks.left_out import LeftOut
from benchmarks.systems.catalog import Configuration, Work
from benchmarks.workloads import Workload

_LAST_LINES = 3


@dataclass(frozen=True)
class Loaded:
    """What a worker says when its system is ready."""

    load_s: float
    versions: dict[str, str]


class WorkerProcess:
    """Runs one configuration; a context manager that ends the process.

    Raises LeftOut wherever the system cannot go on, with the reason in one line.
    """

    def __init__(self, configuration: Configuration, python: str) -> None:
        self.configuration = configuration
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"],
                cwd=machine.ROOT,
                env={**os.environ, **configuration.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                encoding="utf-8",
            )
        except OSError as error:
            raise LeftOut(f"{python} cannot be started: {error.strerror}") from error

    def load(self, workload: Workload, *, threads: int, model: str) -> Loaded:
        """Load the system."""
        answer = self._ask(
            do="load",
            system=self.configuration.system,
            settings=dict(self.configuration.settings),
            threads=threads,
            model=model,
            workload=workload.to_json(),
        )
        return Loaded(answer["load_s"], answer["versions"])

    def transcribe(self, work: Work, n: int) -> Turn:
        """The first ``n`` short calls, or long recordings."""
        counted = {Work.SHORT: "n_calls", Work.LONG: "n_recordings"}[work]
        before = machine.BusyTime.now()
        answer = self._ask(do=work.value, **{counted: n})
        busy_s = machine.BusyTime.now().since(before)
        foreign_s = None if busy_s is None else max(0.0, busy_s - answer["cpu_s"])
        return Turn(n=n, foreign_cpu_s=foreign_s, **{**answer, "texts": tuple(answer["texts"])})

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        elif self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, **message: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise LeftOut(f"its process ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "left_out" in answer:
            raise LeftOut(answer["left_out"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return " / ".join([*lines[-_LAST_LINES:], f"exit status {status}"])
