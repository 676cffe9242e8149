"""The map and the layers name every room and file that there is."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "batched_whisper"
MODULES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)
ROOMS = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if path.suffix == ".py" or (path / "__init__.py").is_file()
)
OUTSIDE = {"__init__", "__main__"}
"""They stand above all layers."""


@pytest.mark.parametrize("module", MODULES)
def test_every_file_has_its_line_on_the_map(module: str) -> None:
    assert f"`{module}`" in (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_every_room_is_in_one_layer() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    layers = parser["importlinter:contract:layers"]["layers"].replace("|", " ").split()
    assert sorted(layers) == [f"batched_whisper.{room}" for room in ROOMS if room not in OUTSIDE]


def thread_names() -> set[str]:
    """Those that are written down in the package: string constants such as ``whisper-engine``."""
    nodes = [
        node
        for module in MODULES
        for node in ast.walk(ast.parse((PACKAGE / module).read_text("utf-8")))
    ]
    strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {text for text in strings if isinstance(text, str) and _THREAD.fullmatch(text)}


def test_the_threads_on_the_map_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = {name for name in re.findall(r"`([^`]+)`", text) if _THREAD.fullmatch(name)}
    assert named == thread_names()
    assert {"whisper-engine", "whisper-worker"} <= named


_THREAD = re.compile("whisper-[a-z]+")


MAX_FILES, MAX_LINES = 15, 3_000
"""From a call to its transcript: what a newcomer has to read."""


def reading_list() -> list[str]:
    """The numbered files of the section that gives the order to read them in."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = text.split("## Data flow", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)


def test_the_reading_list_is_short() -> None:
    files = reading_list()
    n_lines = [len((PACKAGE / name).read_text("utf-8").splitlines()) for name in files]
    assert 10 <= len(files) == len(set(files)) <= MAX_FILES
    assert sum(n_lines) <= MAX_LINES
