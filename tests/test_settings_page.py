"""The pages made from the declared options say what is declared now."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

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


def test_settings_page_is_up_to_date(script: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == script["settings_page"](), HOW


def test_settings_table_in_the_readme_is_up_to_date(script: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == script["readme_with_table"](readme), HOW


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_flag_on_the_page_is_one_of_the_program(
    option: dataclasses.Field[Any], script: dict[str, Any]
) -> None:
    transcribe = get_command(app).commands["transcribe"]  # type: ignore[attr-defined]
    known = {flag for each in transcribe.params for flag in (*each.opts, *each.secondary_opts)}
    assert set(script["written_flag"](option).split("/")) <= known
