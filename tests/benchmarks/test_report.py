"""What a comparison keeps as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import report
from benchmarks.figures import SystemResult, Turn, summarise
from benchmarks.report import Comparison, NotMeasured
from benchmarks.systems.catalog import Configuration, Work
from benchmarks.workloads import Clip, make_workload

CLIPS = [Clip("a.wav", "one two", "left", 6.0), Clip("b.wav", "three", "left", 4.0)]
WORKLOAD = make_workload(CLIPS, [], n_calls=2)


def result(name: str, system: str, wall_s: float) -> SystemResult:
    texts = tuple(WORKLOAD.clips[i].text for i in WORKLOAD.order)
    turn = Turn(2, texts, wall_s, cpu_s=wall_s, foreign_cpu_s=0.0, peak_memory_bytes=10**9)
    figures = {Work.SHORT: summarise(WORKLOAD, Work.SHORT, [turn], n_processors=2)}
    return SystemResult(Configuration(name, system), {"package": "1.0"}, 0.5, 10**9, 4, figures)


def test_every_figure_is_kept_and_who_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    measured = (result("quick", "ours", 2.0), result("slow", "faster_whisper", 10.0))
    absent = NotMeasured(Configuration("peer", "other"), "is not installed")
    compared = Comparison(measured, (absent,), WORKLOAD, {"processor": "P"}, {"rounds": 1})
    report.write(tmp_path / "new" / "result.json", report.document(compared))
    document = json.loads((tmp_path / "new" / "result.json").read_text("utf-8"))
    assert (document["seed"], document["processor"]) == (0, "P")
    assert document["systems"][0]["short"]["over_faster_whisper"] == 5.0
    assert document["left_out"][0]["reason"] == "is not installed"
    assert "left out: peer: is not installed" in report.notes(compared)
