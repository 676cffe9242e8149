"""A comparison as a table and as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.figures import SystemResult, Turn, summarise
from benchmarks.plot import bars, label
from benchmarks.report import Comparison, NotMeasured
from benchmarks.systems.catalog import Configuration, Work
from benchmarks.workloads import Clip, make_workload

CLIPS = [Clip("a.wav", "one two", "left", 6.0), Clip("b.wav", "three", "left", 4.0)]
WORKLOAD = make_workload(CLIPS, [], n_calls=2)


def result(name: str, system: str, wall_s: float, *, foreign_s: float = 0.0) -> SystemResult:
    texts = tuple(WORKLOAD.clips[i].text for i in WORKLOAD.order)
    turn = Turn(2, texts, wall_s, cpu_s=wall_s, foreign_cpu_s=foreign_s, peak_memory_bytes=10**9)
    figures = summarise(WORKLOAD, Work.SHORT, [turn], n_processors=2)
    return SystemResult(
        Configuration(name, system), {"package": "1.0"}, 0.5, 10**9, 4, {Work.SHORT: figures}
    )


def comparison(*results: SystemResult, left_out: tuple[NotMeasured, ...] = ()) -> Comparison:
    return Comparison(results, left_out, WORKLOAD, {"processor": "P"}, {"rounds": 1})


def rows(compared: Comparison) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(report.table(compared, Work.SHORT))
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines() if " system" in f" {line}"[:10]]


def test_the_fastest_stands_first_with_its_ratio() -> None:
    compared = comparison(
        result("system slow", "faster_whisper", 10.0), result("system quick", "ours", 2.0)
    )
    heading, first, second = rows(compared)
    assert "clips/s" in heading
    assert "system quick" in first and " 5.00 " in first and "1,000" in first
    assert "system slow" in second and " 1.00 " in second


def test_a_disturbed_figure_is_marked_and_with_it_every_ratio() -> None:
    calm, disturbed = result("system a", "ours", 2.0), result("system b", "faster_whisper", 4.0)
    assert not any(mark in row for mark in "!?" for row in rows(comparison(calm, disturbed)))
    disturbed = result("system b", "faster_whisper", 4.0, foreign_s=4.0)
    _, first, second = rows(comparison(calm, disturbed))
    assert "system a !" not in first and "2.00?" in first
    assert "system b !" in second and "1.00?" in second
    assert any("50%" in line for line in report.notes(comparison(calm, disturbed)))


def test_who_is_left_out_is_named_with_the_reason() -> None:
    absent = NotMeasured(Configuration("peer", "other"), "is not installed")
    compared = comparison(result("system a", "ours", 2.0), left_out=(absent,))
    assert "left out: peer: is not installed" in report.notes(compared)
    assert report.document(compared)["left_out"][0]["reason"] == "is not installed"


def test_the_document_is_json_and_draws_the_same_bars(tmp_path: Path) -> None:
    compared = comparison(result("quick", "ours", 2.0), result("slow", "faster_whisper", 10.0))
    path = tmp_path / "new" / "result.json"
    report.write(path, report.document(compared))
    document = json.loads(path.read_text("utf-8"))
    assert document["seed"] == 0 and document["processor"] == "P"
    assert document["systems"][0]["short"]["over_faster_whisper"] == 5.0
    drawn = bars(document, Work.SHORT)
    assert [bar.name for bar in drawn] == ["slow", "quick"]
    assert [bar.is_ours for bar in drawn] == [False, True]
    assert label(drawn[1]) == "5.0x   0.0% word errors"
    assert [bar.name for bar in bars(document, Work.SHORT, ["quick"])] == ["quick"]
    assert bars(document, Work.LONG) == []
