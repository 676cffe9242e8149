"""The README's tables of benchmarks are what the newest result files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import RESULTS
from benchmarks.page import BEGIN, END, README, newest, readme_with_tables, table
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


def write(folder: Path, name: str, date: str, *systems: dict[str, Any], **fields: Any) -> None:
    document = {
        "processor": "P",
        "processors": 4,
        "date": f"{date}T10:00:00+00:00",
        "options": {"rounds": 3},
        "n_calls": 200,
        "short_audio_s": 1400.0,
        "long_audio_s": 840.0,
        **({"systems": systems} if systems else {}),
        **fields,
    }
    (folder / f"{name}-{date}.json").write_text(json.dumps(document))


def page(folder: Path) -> str:
    return readme_with_tables(f"before\n{BEGIN}old\n{END}after\n", newest(folder))


def rows(folder: Path) -> list[list[str]]:
    lines = [line for line in page(folder).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_fastest_stands_first_and_ours_are_bold(tmp_path: Path) -> None:
    write(tmp_path, "short-p", "2026-01-02", system("peer", "x", 14), system("ours", "ours", 70))
    assert rows(tmp_path) == [
        ["", "clips/s", "times real time", "word errors", "against faster-whisper's best"],
        ["**ours**", "10.0", "70", "5.0 %", "5.0"],
        ["peer", "2.0", "14.0", "5.0 %", "1.0"],
    ]
    assert "**Short clips (7 s on average)**, whisper-base, 4 processors of P, 2026-01-02" in page(
        tmp_path
    )


def test_the_newest_file_of_each_name_is_shown_and_quick_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path, "short-p", "2026-01-02", system("older", "x", 14))
    write(tmp_path, "short-p", "2026-01-10", system("newer", "x", 14))
    write(tmp_path, "short-q", "2026-01-01", system("elsewhere", "x", 14))
    write(tmp_path, "quick-p", "2026-01-11", system("rough", "x", 14))
    shown = page(tmp_path)
    assert "newer" in shown and "elsewhere" in shown
    assert "older" not in shown and "rough" not in shown


def test_models_have_tables_of_their_own_the_standard_one_first(tmp_path: Path) -> None:
    write(tmp_path, "short-a-p", "2026-01-02", system("small", "x", 14), model="tiny.en")
    write(tmp_path, "short-p", "2026-01-02", system("standard", "x", 14))
    gain = {"n_callers": 64, "ratio": 3.39, "together_batch": 31.1, "n_different_texts": 2}
    write(tmp_path, "a-p", "2026-01-02", gain=gain, options={"model": "tiny.en"})
    shown = page(tmp_path)
    assert "**Company**, whisper-tiny.en" in shown and "2 of the texts differ" in shown
    assert 0 < shown.index("whisper-base") < shown.index("standard") < shown.index("tiny.en")
    assert shown.index("tiny.en") < shown.index("small")


def test_what_got_less_or_was_disturbed_is_marked(tmp_path: Path) -> None:
    slow, loud = system("slow", "x", 14, n=40), system("loud", "x", 20, foreign_share=0.5)
    write(tmp_path, "short-p", "2026-01-02", slow, loud)
    (result,) = newest(tmp_path)
    _, _, first, second = table(result, Work.SHORT).splitlines()
    assert first.startswith("| loud ! |") and second.startswith(r"| slow \* |")
    assert first.endswith("1.4? |") and second.endswith("1.0? |")
    assert "? is not final" in page(tmp_path)


def test_figures_that_nobody_has_leave_no_column_or_a_dash(tmp_path: Path) -> None:
    alone = system("ours", "ours", 70, over_faster_whisper=None, error_rate=None)
    write(tmp_path, "short-p", "2026-01-02", alone)
    assert rows(tmp_path)[1] == ["**ours**", "10.0", "70", "-"]
    assert "not final" not in page(tmp_path)


def test_long_recordings_and_company_come_after_short_clips(tmp_path: Path) -> None:
    long = system("ours", "ours", 70)
    long["long"] = {**long.pop("short"), "n": 1, "audio_s": 240.0}
    write(tmp_path, "a-long-p", "2026-01-02", long)
    gain = {"n_callers": 64, "ratio": 3.39, "together_batch": 31.1, "n_different_texts": 0}
    write(tmp_path, "a-batching-p", "2026-01-02", gain=gain)
    write(tmp_path, "short-p", "2026-01-02", system("ours", "ours", 70))
    write(tmp_path, "word-times-p", "2026-01-02", results=[])
    shown = page(tmp_path)
    assert shown.index("Short clips") < shown.index("Long recordings") < shown.index("Company")
    assert r"| **ours** \* | 70 | 5.0 % | 5.0 |" in shown
    assert "64 callers at once are answered 3.4 times as fast as one after another" in shown
    assert shown.startswith("before\n") and shown.endswith("after\n") and "old\n" not in shown


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(SystemExit, match="lacks the lines"):
        readme_with_tables("nothing", [])
