"""The README's tables of benchmarks are what the newest result files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.page import BEGIN, END, README, RESULTS, newest, readme_with_tables, table
from benchmarks.systems.catalog import Work

HOW = "out of date: run make docs"


def test_the_readme_is_up_to_date() -> None:
    readme = README.read_text("utf-8")
    assert readme == readme_with_tables(readme, newest(RESULTS)), HOW


def test_each_picture_is_of_the_newest_result() -> None:
    drawn = [result for result in newest(RESULTS) if result.picture.is_file()]
    assert drawn
    for result in drawn:
        assert result.path.name in result.picture.read_text("utf-8"), HOW


def system(name: str, kind: str, speed: float, **figures: Any) -> dict[str, Any]:
    short = {
        "n": 200,
        "audio_s": 1400.0,
        "per_s": speed / 7,
        "times_real_time": speed,
        "error_rate": 0.05,
        "foreign_share": 0.01,
        "over_faster_whisper": speed / 14,
        **figures,
    }
    return {"name": name, "system": kind, "short": short}


def write(folder: Path, name: str, date: str, *systems: dict[str, Any]) -> None:
    document = {
        "processor": "P",
        "processors": 4,
        "date": f"{date}T10:00:00+00:00",
        "options": {"rounds": 3},
        "n_calls": 200,
        "short_audio_s": 1400.0,
        "long_audio_s": 840.0,
        "systems": systems,
    }
    (folder / f"{name}-{date}.json").write_text(json.dumps(document))


def page(folder: Path) -> str:
    return readme_with_tables(f"before\n{BEGIN}old\n{END}after\n", newest(folder))


def test_the_newest_file_of_each_name_is_shown_and_quick_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path, "short-p", "2026-01-02", system("older", "x", 14))
    write(tmp_path, "short-p", "2026-01-10", system("newer", "x", 14))
    write(tmp_path, "short-q", "2026-01-01", system("elsewhere", "x", 14))
    write(tmp_path, "quick-p", "2026-01-11", system("rough", "x", 14))
    shown = page(tmp_path)
    assert "newer" in shown and "elsewhere" in shown
    assert "older" not in shown and "rough" not in shown


def test_what_got_less_or_was_disturbed_is_marked(tmp_path: Path) -> None:
    slow, loud = system("slow", "x", 14, n=40), system("loud", "x", 20, foreign_share=0.5)
    write(tmp_path, "short-p", "2026-01-02", slow, loud)
    (result,) = newest(tmp_path)
    _, _, first, second = table(result, Work.SHORT).splitlines()
    assert first.startswith("| loud ! |") and second.startswith(r"| slow \* |")
    assert first.endswith("1.4? |") and second.endswith("1.0? |")
    assert "? is not final" in page(tmp_path)
