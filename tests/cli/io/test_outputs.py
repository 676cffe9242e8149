"""A file of JSON lines holds whole lines, whatever happened to it before."""

from __future__ import annotations

import json
import os
import sys
from pathlib import PurePath

import pytest

from batched_whisper.cli.io.inputs import RecordingSource
from batched_whisper.cli.io.outputs import open_json_lines
from batched_whisper.errors import OutputError
from batched_whisper.types import Transcript


def source(name: str) -> RecordingSource:
    return RecordingSource(name, PurePath(name), lambda: b"")


def transcript(name: str) -> Transcript:
    return Transcript("grüß\u2028 dich", "de", 1.0, 1.0, (), (), name)


def add(path, *names: str, resume: bool = True) -> list[str]:
    """Write those that are missing; the names that were."""
    with open_json_lines(path, resume=resume) as lines:
        missing = [name for name in names if not lines.has(source(name))]
        for name in missing:
            lines.write(source(name), transcript(name))
    return missing


def names_in(path) -> list[str]:
    return [json.loads(line)["name"] for line in path.read_bytes().decode().split("\n")[:-1]]


def test_wherever_the_last_line_was_torn_resuming_gives_every_recording_once(tmp_path):
    path = tmp_path / "out.jsonl"
    add(path, "a", "b")
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        add(path, "a", "b")
        assert path.read_bytes() == whole


def test_a_tail_of_zeros_after_a_power_failure_is_cut_off(tmp_path):
    path = tmp_path / "out.jsonl"
    add(path, "a")
    with path.open("ab") as file:
        file.write(bytes(100))
    assert add(path, "a", "b") == ["b"]
    assert names_in(path) == ["a", "b"]


def test_a_line_that_cannot_be_written_whole_is_not_there_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    add(path, "a")
    whole = path.read_bytes()

    def half(descriptor: int, line: bytes) -> int:
        return real(descriptor, line[: len(line) // 2])

    real = os.write
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", half)
        with pytest.raises(OutputError, match=r"out\.jsonl cannot be written .*--resume"):
            add(path, "b")
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["not JSON", "[]", '"name"', '{"name": 1}', '{"audio": "a.wav"}'])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path, line):
    path = tmp_path / "out.jsonl"
    contents = f'{{"name": "a"}}\n{line}\n'
    path.write_text(contents)
    with pytest.raises(OutputError, match="line 2: not a result"):
        add(path, "b")
    assert path.read_text() == contents


def test_two_jobs_do_not_write_to_one_file(tmp_path):
    path = tmp_path / "out.jsonl"
    with (
        open_json_lines(path, resume=True),
        pytest.raises(OutputError, match="another job"),
        open_json_lines(path, resume=True),
    ):
        pass
    assert add(path, "a") == ["a"]  # and the lock ends with the job


def test_names_that_are_no_utf_8_are_found_again(tmp_path):
    path = tmp_path / "out.jsonl"
    assert add(path, "caf\udce9") == ["caf\udce9"]
    assert add(path, "caf\udce9") == []


def test_where_there_are_no_locks_a_file_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    path = tmp_path / "out.jsonl"
    assert add(path, "a") == ["a"]
    assert add(path, "a", "b") == ["b"]
    assert names_in(path) == ["a", "b"]
