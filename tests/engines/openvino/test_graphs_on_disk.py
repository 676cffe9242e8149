"""Compiled graphs on disk: reused by a second start, and rebuilt if damaged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import KEEPING_GRAPHS
from tiny_whisper import ANYTHING, Heard, check, random_text, reference_logits

from batched_whisper.engines.interface import Engine, StepResult, StepRow

[FLOAT32] = KEEPING_GRAPHS
DAY_S = 24 * 3600
HEARD, TEXT = Heard(0, 40), random_text(0, 6)


def said(cache_dir: Path) -> list[StepResult | None]:
    """Return the results of an engine started with this folder, after checking them with NumPy."""
    engine: Engine = FLOAT32.make(2, cache_dir)
    engine.encode([HEARD.row(1)])
    found = []
    for i, token in enumerate(TEXT):
        row = StepRow(1, (token,), i, ANYTHING)
        [result] = engine.step([row])
        check(result, row, reference_logits(HEARD, TEXT)[i], FLOAT32.tolerance)
        found.append(result)
    engine.close()
    return found


def graphs(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_runtime_reuses_compiled_graphs_from_disk(tmp_path: Path) -> None:
    first = said(tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert kept
    assert said(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_its_end(content: bytes) -> bytes:
    return content[:-100]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not a graph",
        lambda content: b"\0" * len(content),
        half,
        without_its_end,
    ],
    ids=["empty", "text", "zeros", "half", "without its end"],
)
def test_runtime_rebuilds_a_damaged_graph(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    first = said(tmp_path)
    before = graphs(tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(damage(content))
    assert said(tmp_path) == first
    assert graphs(tmp_path).keys() == before.keys()
    assert said(tmp_path) == first


def test_runtime_works_if_cache_dir_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    assert said(blocked / "graphs")


def test_runtime_deletes_graphs_unused_for_a_month(tmp_path: Path) -> None:
    of_long_ago, other = tmp_path / "a.graph", tmp_path / "a.txt"
    for path in (of_long_ago, other):
        path.touch()
        os.utime(path, (time.time() - 31 * DAY_S,) * 2)
    of_last_week = tmp_path / "b.graph"
    of_last_week.touch()
    os.utime(of_last_week, (time.time() - 7 * DAY_S,) * 2)
    said(tmp_path)
    assert not of_long_ago.exists()
    assert other.exists() and of_last_week.exists()


def test_runtime_keeps_graphs_in_use(tmp_path: Path) -> None:
    said(tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 29 * DAY_S,) * 2)
    said(tmp_path)
    assert all(time.time() - path.stat().st_mtime < DAY_S for path in tmp_path.iterdir())


def test_runtime_leaves_no_partial_file(tmp_path: Path) -> None:
    said(tmp_path / "new" / "graphs")
    assert {path.suffix for path in (tmp_path / "new" / "graphs").iterdir()} == {".graph"}
