"""From turns to figures."""

from __future__ import annotations

import pytest

from benchmarks.figures import (
    Figures,
    SystemResult,
    Turn,
    fitting_calls,
    fitting_recordings,
    ratios,
    summarise,
)
from benchmarks.systems.catalog import Configuration, Work
from benchmarks.workloads import Clip, Workload

CLIPS = (
    Clip("a.wav", "red green blue black", "left", 4.0),
    Clip("b.wav", "cat dog", "right", 2.0),
)
WORKLOAD = Workload(CLIPS, (0, 1, 1, 0), (Clip("l.wav", "sun", "long", 90.0),), seed=0)
RIGHT = ("red green blue black", "cat dog", "cat dog", "red green blue black")


def turn(wall_s: float, texts: tuple[str, ...] = RIGHT, foreign_cpu_s: float = 0.0) -> Turn:
    return Turn(4, texts, wall_s, cpu_s=2 * wall_s, foreign_cpu_s=foreign_cpu_s)


def figures(*turns: Turn) -> Figures:
    return summarise(WORKLOAD, Work.SHORT, turns, n_processors=2)


def test_rates_are_those_of_the_median_turn() -> None:
    found = figures(turn(2.0), turn(100.0), turn(4.0))
    assert found.per_s == pytest.approx(4 / 4.0)
    assert found.times_real_time == pytest.approx(12.0 / 4.0)
    assert found.windows_per_s == found.per_s
    assert found.cpu_s == pytest.approx(8.0)
    assert found.spread == pytest.approx(98.0 / 4.0)


def test_long_recordings_are_counted_in_windows_of_thirty_seconds() -> None:
    found = summarise(WORKLOAD, Work.LONG, [Turn(1, ("sun",), 10.0, 5.0)], n_processors=2)
    assert found.windows_per_s == pytest.approx(0.3)
    assert found.per_s == pytest.approx(0.1)


def test_a_clip_that_comes_again_counts_once() -> None:
    texts = ("red green blue", "cat dog", "rubbish of many words", "red green blue black")
    found = figures(turn(1.0, texts))
    assert found.errors.n_units == 6
    assert found.error_rate == pytest.approx(1 / 6)
    assert found.error_rates == {"left": pytest.approx(1 / 4), "right": 0.0}


def test_a_text_that_changes_between_turns_is_counted() -> None:
    assert figures(turn(1.0), turn(1.0)).n_varying == 0
    assert figures(turn(1.0), turn(1.0, ("other", *RIGHT[1:]))).n_varying == 1


def test_the_most_disturbed_turn_is_reported() -> None:
    found = figures(turn(2.0, foreign_cpu_s=0.1), turn(2.0, foreign_cpu_s=2.0))
    assert found.foreign_share == pytest.approx(0.5)
    unknown = summarise(WORKLOAD, Work.SHORT, [Turn(4, RIGHT, 1.0, 1.0)], n_processors=2)
    assert unknown.foreign_share is None


def result(name: str, system: str, wall_s: float) -> SystemResult:
    of = Configuration(name, system)
    return SystemResult(of, {}, 1.0, 1, 1, {Work.SHORT: figures(turn(wall_s))})


def test_ratios_are_against_the_fastest_peers_of_the_run() -> None:
    found = ratios(
        [
            result("mine", "ours", 1.0),
            result("slow", "faster_whisper", 8.0),
            result("quick", "faster_whisper", 4.0),
            result("quickest", "other", 2.0),
        ],
        Work.SHORT,
    )
    assert found["mine"].faster_whisper == pytest.approx(4.0)
    assert found["mine"].best_peer == pytest.approx(2.0)
    assert found["quickest"].best_peer == pytest.approx(1.0)


def test_ours_is_never_its_own_peer() -> None:
    found = ratios([result("mine", "ours", 1.0), result("mine too", "ours", 2.0)], Work.SHORT)
    assert found["mine"].best_peer is None
    assert ratios([result("mine", "ours", 1.0)], Work.LONG) == {}


@pytest.mark.parametrize(
    ("call_s", "expected"), [(0.1, 200), (1.0, 200), (2.0, 80), (3.0, 40), (60.0, 40)]
)
def test_slow_systems_get_whole_passes_over_the_clips(call_s: float, expected: int) -> None:
    assert fitting_calls(200, 40, call_s, limit_s=200.0) == expected


def test_a_turn_of_less_than_a_pass_is_not_cut() -> None:
    assert fitting_calls(24, 40, call_s=60.0, limit_s=10.0) == 24


def test_slow_systems_get_the_first_long_recording_at_least() -> None:
    long = (Clip("a", "", "long", 100.0), Clip("b", "", "long", 200.0))
    workload = Workload(CLIPS, (0,), long, seed=0)
    assert fitting_recordings(workload, 0.1, limit_s=50.0) == 2
    assert fitting_recordings(workload, 0.3, limit_s=50.0) == 1
    assert fitting_recordings(workload, 9.9, limit_s=50.0) == 1
    assert fitting_recordings(Workload(CLIPS, (0,), (), 0), 0.1, limit_s=50.0) == 0
