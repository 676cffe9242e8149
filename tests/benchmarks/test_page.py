"""The tables of benchmarks in the README and in the docs are those of the newest result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import RESULTS
from benchmarks.page import (
    BEGIN,
    END,
    PAGE,
    README,
    newest,
    page_with_tables,
    readme_with_summary,
    table,
)
from benchmarks.systems.catalog import Work

HOW = "out of date: run make docs"


def test_the_readme_and_the_page_are_up_to_date() -> None:
    readme, page = README.read_text("utf-8"), PAGE.read_text("utf-8")
    assert readme == readme_with_summary(readme, newest(RESULTS)), HOW
    assert page == page_with_tables(page, newest(RESULTS)), HOW


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
    return page_with_tables(f"before\n{BEGIN}old\n{END}after\n", newest(folder))


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
    assert "**Concurrency**, whisper-tiny.en" in shown and "2 texts differ" in shown
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


def test_long_recordings_and_concurrency_come_after_short_clips(tmp_path: Path) -> None:
    long = system("ours", "ours", 70)
    long["long"] = {**long.pop("short"), "n": 1, "audio_s": 240.0}
    write(tmp_path, "a-long-p", "2026-01-02", long)
    gain = {"n_callers": 64, "ratio": 3.39, "together_batch": 31.1, "n_different_texts": 0}
    write(tmp_path, "a-batching-p", "2026-01-02", gain=gain)
    write(tmp_path, "short-p", "2026-01-02", system("ours", "ours", 70))
    write(tmp_path, "word-times-p", "2026-01-02", results=[])
    shown = page(tmp_path)
    assert shown.index("Short clips") < shown.index("Long recordings") < shown.index("Concurrency")
    assert r"| **ours** \* | 70 | 5.0 % | 5.0 |" in shown
    assert "64 concurrent callers get 3.4 times the throughput of sequential calls" in shown
    assert shown.startswith("before\n") and shown.endswith("after\n") and "old\n" not in shown


@pytest.mark.parametrize("made", [page_with_tables, readme_with_summary])
def test_a_page_without_markers_is_refused(made: Any) -> None:
    with pytest.raises(SystemExit, match="lacks the lines"):
        made("nothing", [])


def summary(folder: Path) -> str:
    return readme_with_summary(f"before\n{BEGIN}old\n{END}after\n", newest(folder))


def test_the_readme_has_our_fastest_and_default_rows_and_each_peer_once(tmp_path: Path) -> None:
    ours = [system(name, "ours", speed) for name, speed in (("ours, int8", 90), ("ours", 70))]
    alone = system("ours, one at a time", "ours", 30)
    peers = [
        system(f"peer {kind} {n}", kind, 10 * n + i)
        for i, kind in enumerate("abcde")
        for n in (1, 2)
    ]
    write(tmp_path, "short-p", "2026-01-02", *ours, alone, *peers)
    shown = [line.split(" | ")[0].strip("| ") for line in summary(tmp_path).splitlines()[4:]]
    assert [name for name in shown if name.startswith(("**", "peer"))] == [
        *("**ours, int8**", "**ours**"),
        *("peer e 2", "peer d 2", "peer c 2", "peer b 2"),
    ]


def test_the_readme_says_long_recordings_and_concurrency_in_a_sentence(tmp_path: Path) -> None:
    assert summary(tmp_path) == f"before\n{BEGIN}{END}after\n"
    systems = [system("ours", "ours", 70), system("theirs", "faster_whisper", 30, error_rate=0.04)]
    for each in systems:
        each["long"] = each.pop("short")
    write(tmp_path, "a-long-p", "2026-01-02", *systems)
    gain = {"n_callers": 64, "ratio": 3.39, "together_batch": 31.1, "n_different_texts": 0}
    write(tmp_path, "a-batching-p", "2026-01-02", gain=gain)
    shown = summary(tmp_path)
    assert "reach 70 times real time here and 30 in faster-whisper, with 5.0 % and 4.0 %" in shown
    assert "64 concurrent callers get 3.4 times the throughput" in shown
    assert shown.startswith("before\n") and shown.endswith("after\n") and "|" not in shown
