"""What the README shows can be done: its programs run, its commands are commands."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from batched_whisper.cli.app import app
from batched_whisper.cli.demo import demo_sources
from batched_whisper.errors import MissingExtra

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[int, str]]:
    """The README's blocks of a language, each with the number of its first line."""
    return [
        (README.count("\n", 0, found.start(2)) + 1, found[2])
        for found in FENCE.finditer(README)
        if found[1] == language
    ]


def commands() -> list[str]:
    """Every line that the README would have somebody type, comments left out."""
    lines = (line for _, block in blocks("sh") for line in block.splitlines())
    return [line.partition("  #")[0].strip() for line in lines]


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the README speaks of: talk.wav, and some calls."""
    try:
        speech = next(s.audio for s in demo_sources() if s.name == "beckett.wav")
    except MissingExtra as error:
        pytest.skip(str(error))
    calls = tmp_path / "calls"
    calls.mkdir()
    for path in (tmp_path / "talk.wav", calls / "monday.wav", calls / "tuesday.wav"):
        shutil.copy(str(speech), path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("base_model", "recordings")
def test_the_programs_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets", reason="pip install 'batched-whisper[datasets]'")
    namespace: dict[str, Any] = {"__name__": "readme"}
    for line, block in blocks("python"):
        padded = "\n" * (line - 1) + block  # so that a traceback gives the README's own lines
        exec(compile(padded, "README.md", "exec"), namespace)
        assert capsys.readouterr().out.strip(), f"the program of line {line} printed nothing"


def test_the_programs_are_some() -> None:
    assert len(blocks("python")) >= 5


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one(command: str) -> None:
    program, name, *arguments = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        return
    assert program == "batched-whisper"
    known = get_command(app).commands  # type: ignore[attr-defined]
    known[name].make_context(name, arguments)  # parses and refuses, and does not run


def test_every_extra_that_it_speaks_of_is_one() -> None:
    spoken_of = set(re.findall(r"pip install '\.\[(\w+)\]'", README))
    spoken_of |= set(re.findall(r"the extra `(\w+)`", README))
    assert spoken_of
    assert spoken_of <= set(metadata("batched-whisper").get_all("Provides-Extra") or ())


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
