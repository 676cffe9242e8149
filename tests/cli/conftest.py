"""What the tests of the command line share: a folder to work in, and a way to run a command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripted_whisper import Script

import batched_whisper
from batched_whisper.cli.app import run_program

PROGRAM = Path(__file__).with_name("scripted_command.py")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the command runs in, with nothing set in the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("BATCHED_WHISPER_") or variable in ("MODEL", "REVISION"):
            monkeypatch.delenv(variable)
    return tmp_path


@pytest.fixture
def recordings(folder: Path) -> Callable[..., list[str]]:
    """Writes scripted recordings: name (dots for ``_``) to what is said in it."""

    def write(said: dict[str, str]) -> list[str]:
        for name, text in said.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(said)

    return write


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def run(folder: Path, script: Script, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs the program in this process."""

    def call(*arguments: Any) -> Ended:
        with pytest.raises(SystemExit) as ended:
            run_program([str(argument) for argument in arguments], script.dependencies())
        out, err = capsys.readouterr()
        return Ended(ended.value.code, out, err)

    return call


@pytest.fixture
def start(folder: Path) -> Callable[..., Ended]:
    """Runs the program in a process of its own, which may die after some recordings."""

    def call(*arguments: Any, dies_after: int | str = "never", **how: Any) -> Ended:
        search = os.pathsep.join(
            [str(Path(batched_whisper.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        )
        ended = subprocess.run(
            [sys.executable, str(PROGRAM), str(dies_after), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": search},
            cwd=folder,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how},
        )
        return Ended(ended.returncode, ended.stdout or "", ended.stderr or "")

    return call
