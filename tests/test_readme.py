"""What the README and the pages of docs show works: programs run, commands parse, links exist."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from batched_whisper.cli.app import app
from batched_whisper.cli.demo import demo_sources
from batched_whisper.errors import MissingExtra

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("deploy/*/README.md")),
    ROOT / "benchmarks" / "README.md",
]
PROGRAMS = [README, ROOT / "docs" / "quickstart.md"]
COMMANDS = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """A page's blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)) + 1, found[2])
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def commands() -> Iterator[str]:
    """Every line that a page tells its reader to type, without comments."""
    for page in COMMANDS:
        for _, block in blocks(page, "sh"):
            for line in block.splitlines():
                yield line.partition("  #")[0].strip()


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages speak of: talk.wav, and some calls."""
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
@pytest.mark.parametrize("page", PROGRAMS, ids=named)
def test_the_programs_run_one_after_the_other(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "from datasets" in page.read_text(encoding="utf-8"):
        pytest.importorskip("datasets", reason="pip install 'batched-whisper[datasets]'")
    namespace: dict[str, Any] = {"__name__": "page"}
    try:
        for line, block in blocks(page, "python"):
            padded = "\n" * (line - 1) + block  # so that a traceback has the page's line numbers
            exec(compile(padded, page.name, "exec"), namespace)
            assert capsys.readouterr().out.strip(), f"the program in line {line} printed nothing"
    finally:
        namespace["whisper"].close()


@pytest.mark.parametrize("page", PROGRAMS, ids=named)
def test_each_page_has_at_least_three_programs(page: Path) -> None:
    assert len(blocks(page, "python")) >= 3


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_is_one(command: str) -> None:
    program, name, *arguments = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    elif program == "pip":
        assert name == "install" and arguments[0].partition("[")[0] == "."
    else:
        assert program == "batched-whisper"
        known = get_command(app).commands  # type: ignore[attr-defined]
        known[name].make_context(name, arguments)  # parses and does not run


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_extra_on_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    extras = set(re.findall(r"pip install '(?:\.|batched-whisper)\[(\w+)\]'", text))
    extras |= set(re.findall(r"the extra\s+`(\w+)`", text))
    assert extras <= set(metadata("batched-whisper").get_all("Provides-Extra") or ())


def test_the_readme_speaks_of_extras() -> None:
    assert "pip install '.[demo]'" in README.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(FENCE, "", page.read_text(encoding="utf-8"))
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200
