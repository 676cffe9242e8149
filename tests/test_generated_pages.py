"""The generated pages of docs are up to date."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import batched_whisper
from batched_whisper.cli.app import app
from batched_whisper.config.options import CueLayout, DecodingOptions, Settings

ROOT = Path(__file__).resolve().parents[1]
HOW = "out of date: run make docs"
OPTIONS = [
    field for owner in (Settings, DecodingOptions, CueLayout) for field in dataclasses.fields(owner)
]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "make_settings_page.py"))


@pytest.mark.parametrize(
    ("script_name", "function", "page"),
    [
        ("make_settings_page.py", "settings_page", "settings.md"),
        ("make_cli_page.py", "cli_page", "cli.md"),
        ("make_api_page.py", "api_page", "python-api.md"),
    ],
)
def test_a_generated_page_is_up_to_date(script_name: str, function: str, page: str) -> None:
    made = runpy.run_path(str(ROOT / "scripts" / script_name))[function]()
    assert made == (ROOT / "docs" / page).read_text(encoding="utf-8"), HOW


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    described = runpy.run_path(str(ROOT / "scripts" / "make_api_page.py"))["public_names"]()
    assert described == set(batched_whisper.__all__) - {"__version__"}


def test_every_command_and_flag_is_on_the_page_of_the_command_line() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for each in command.params:
            written = each.opts if each.param_type_name == "option" else [each.metavar]
            assert all(f"`{flag}`" in section for flag in written)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_flag_on_the_page_is_one_of_the_program(
    option: dataclasses.Field[Any], script: dict[str, Any]
) -> None:
    transcribe = get_command(app).commands["transcribe"]  # type: ignore[attr-defined]
    known = {flag for each in transcribe.params for flag in (*each.opts, *each.secondary_opts)}
    assert set(script["written_flag"](option).split("/")) <= known
