"""Every system side by side: one process each, turns taken in alternation, medians of rounds.

``python -m benchmarks.compare`` measures this package, faster-whisper and CTranslate2;
``--all-peers`` everything that is installed; ``--quick`` takes minutes and gives rough figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from batched_whisper import evaluation
from batched_whisper.errors import BatchedWhisperError
from benchmarks import machine, report
from benchmarks.figures import (
    SystemResult,
    Turn,
    fitting_calls,
    fitting_recordings,
    said,
    summarise,
)
from benchmarks.left_out import LeftOut
from benchmarks.peer_models import MODEL
from benchmarks.process import Loaded, WorkerProcess
from benchmarks.report import Comparison, NotMeasured
from benchmarks.systems.catalog import Configuration, Work, choose
from benchmarks.workloads import (
    N_CALLS,
    SpeechMissing,
    Workload,
    speech_folder,
    standard_workload,
)

RESULTS = Path(__file__).parent / "results"
QUICK_CALLS = 24


@dataclass(frozen=True)
class Plan:
    """How a comparison is run.

    ``limit_s`` is about the longest that one turn of a slow system shall take; ``pythons`` are the
    interpreters of systems that live in environments of their own.
    """

    configurations: Sequence[Configuration]
    workload: Workload
    model: str
    n_rounds: int
    n_warm_up: int
    limit_s: float
    threads: int
    works: tuple[Work, ...] = (Work.SHORT, Work.LONG)
    pythons: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Entrant:
    """A system in the run."""

    process: WorkerProcess
    loaded: Loaded
    sizes: dict[Work, int]
    turns: dict[Work, list[Turn]] = field(default_factory=dict)


class Run:
    """One comparison: load and warm up everybody, then rounds. Who fails is left out, named."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._left_out: list[NotMeasured] = []

    def measure(self) -> tuple[list[SystemResult], list[NotMeasured]]:
        """All rounds."""
        with ExitStack() as stack:
            entrants = [e for c in self._plan.configurations if (e := self._enter(c, stack))]
            for work in self._plan.works:
                for number in range(1, self._plan.n_rounds + 1):
                    able = [e for e in entrants if work in e.sizes]
                    for entrant in able:
                        if not self._turn(entrant, work, number):
                            entrants.remove(entrant)
        return [self._result(entrant) for entrant in entrants], self._left_out

    def _enter(self, configuration: Configuration, stack: ExitStack) -> _Entrant | None:
        plan = self._plan
        missing = set(configuration.processor_flags) - machine.processor_flags()
        try:
            if missing:
                raise LeftOut(f"this processor has no {', '.join(sorted(missing))}")
            python = plan.pythons.get(configuration.system, sys.executable)
            process = stack.enter_context(WorkerProcess(configuration, python))
            loaded = process.load(plan.workload, threads=plan.threads, model=plan.model)
            warm_up = process.transcribe(Work.SHORT, plan.n_warm_up)
            sizes = self._sizes(configuration, warm_up)
        except LeftOut as error:
            self._leave_out(configuration, error)
            return None
        self._say(f"ready: {configuration.name} ({loaded.load_s:.1f} s to load)")
        return _Entrant(process, loaded, sizes)

    def _sizes(self, configuration: Configuration, warm_up: Turn) -> dict[Work, int]:
        """How many calls and recordings a turn has."""
        plan, workload = self._plan, self._plan.workload
        audio_s = sum(clip.duration_s for clip in said(workload, Work.SHORT, warm_up.n))
        n_calls, n_clips = len(workload.order), len(workload.clips)
        sizes = {
            Work.SHORT: fitting_calls(n_calls, n_clips, warm_up.wall_s / warm_up.n, plan.limit_s),
            Work.LONG: fitting_recordings(workload, warm_up.wall_s / audio_s, plan.limit_s),
        }
        return {
            work: sizes[work] for work in plan.works if work in configuration.work and sizes[work]
        }

    def _turn(self, entrant: _Entrant, work: Work, number: int) -> bool:
        configuration = entrant.process.configuration
        try:
            turn = entrant.process.transcribe(work, entrant.sizes[work])
        except LeftOut as error:
            self._leave_out(configuration, error)
            return False
        entrant.turns.setdefault(work, []).append(turn)
        self._say(f"{work.value} round {number}: {configuration.name}: {turn.wall_s:.1f} s")
        return True

    def _leave_out(self, configuration: Configuration, error: LeftOut) -> None:
        self._left_out.append(NotMeasured(configuration, str(error)))
        self._say(f"left out: {configuration.name}: {error}")

    def _result(self, entrant: _Entrant) -> SystemResult:
        plan, turns = self._plan, [t for each in entrant.turns.values() for t in each]
        return SystemResult(
            configuration=entrant.process.configuration,
            versions=entrant.loaded.versions,
            load_s=entrant.loaded.load_s,
            peak_memory_bytes=max(turn.peak_memory_bytes for turn in turns),
            n_threads=max((turn.n_threads or 0 for turn in turns), default=0) or None,
            figures={
                work: summarise(plan.workload, work, each, plan.threads)
                for work, each in entrant.turns.items()
            },
        )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    given = _parser().parse_args(arguments)
    try:
        evaluation.require()
        plan = _plan(given)
    except (BatchedWhisperError, SpeechMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    certificate = machine.certificate()  # of what is loaded now, not of what is edited meanwhile
    results, left_out = Run(plan, Console(stderr=True)).measure()
    options = {**vars(given), "threads": plan.threads, "limit_s": plan.limit_s}
    options.update(rounds=plan.n_rounds, output=given.output.name, name=_name(given))
    comparison = Comparison(results, left_out, plan.workload, certificate, options)
    _show(comparison, plan.works)
    path = given.output / f"{_name(given)}-{machine.machine_slug()}-{machine.today()}.json"
    report.write(path, report.document(comparison))
    print(f"written: {path}")
    return 0 if results else 1


def _show(comparison: Comparison, works: Sequence[Work]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    for work in works:
        console.print(report.table(comparison, work))
    for line in report.notes(comparison):
        console.print(line, markup=False)


def _name(given: argparse.Namespace) -> str:
    return str(given.name or ("quick" if given.quick else "compare"))


def _plan(given: argparse.Namespace) -> Plan:
    configurations = choose(
        all_peers=given.all_peers, only=given.only, processor_flags=machine.processor_flags()
    )
    n_calls = given.calls or (QUICK_CALLS if given.quick else N_CALLS)
    workload = standard_workload(
        speech_folder(), n_calls=n_calls, n_long=1 if given.quick else None, seed=given.seed
    )
    works = tuple(Work) if given.work is None else (Work(given.work),)
    return Plan(
        configurations=configurations,
        workload=workload,
        model=given.model,
        n_rounds=given.rounds or (1 if given.quick else 3),
        n_warm_up=min(n_calls, 8 if given.quick else len(workload.clips)),
        limit_s=given.limit_s,
        threads=given.threads or machine.n_processors(),
        works=works,
        pythons=dict(pair.split("=", 1) for pair in given.python_for),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--all-peers", action="store_true", help="all installed systems")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="configurations of this name or system, or whose name begins so (WORD*); again for "
        "more",
    )
    parser.add_argument("--model", default=MODEL, help="base or tiny.en, for every system")
    parser.add_argument("--quick", action="store_true", help="few calls, one round")
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 1")
    parser.add_argument("--calls", type=int, help=f"short calls per turn, default {N_CALLS}")
    parser.add_argument("--work", choices=[work.value for work in Work], help="only this workload")
    parser.add_argument("--seed", type=int, default=0, help="seed for the order of the calls")
    parser.add_argument("--threads", type=int, help="for every system; default all processors")
    parser.add_argument(
        "--limit-s",
        type=float,
        default=150.0,
        help="target duration of a turn; slow systems get fewer calls",
    )
    parser.add_argument(
        "--python-for",
        action="append",
        default=[],
        metavar="SYSTEM=PYTHON",
        help="interpreter of a system that has its own environment",
    )
    parser.add_argument("--name", help="name of the result file; default compare or quick")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of result files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
