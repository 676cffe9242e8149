"""The check of the wording finds what it should, and only in prose."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("words", ROOT / "scripts" / "check_words.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["words"] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    return module


words = load_script()
RULES = words.read_rules()
COVERED = [name for name in words.files() if not name.startswith(words.NOT_YET)]


def found(name: str, text: str) -> list[tuple[int, str]]:
    return [(each.line, each.text.lower()) for each in words.matches(name, text, RULES)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.example)
def test_each_rule_matches_its_example_and_not_its_replacement(rule) -> None:
    assert rule.pattern.search(rule.example)
    assert not rule.pattern.search(rule.instead)


def test_python_is_searched_in_docstrings_comments_and_messages() -> None:
    text = (
        '"""Waits for\ncompany."""\n\n'
        "mend = 1  # mend it\n"
        "# an engine that works\n# ahead of the host\n"
        'raise ValueError(f"there are so many of {mend}")\n'
    )
    assert found("a.py", text) == [(2, "company"), (4, "mend"), (5, "works ahead"), (7, "so many")]


def test_python_is_not_searched_in_names_short_strings_and_code_in_backticks() -> None:
    assert not found("a.py", '"""See ``company`` and `mend`."""\nmend = company["so many"]\n')


def test_the_data_of_tests_is_not_searched() -> None:
    assert not found("tests/a.py", 'TEXT = "we never heard so many of them"\n')
    assert found("tests/a.py", '"""So many."""\n') == [(1, "so many")]


def test_markdown_is_searched_outside_of_code_and_made_tables() -> None:
    text = (
        "Keep company.\n\n```sh\nmend so many\n```\n\n    so many\n\n`so many`\n"
        "<!-- benchmarks -->\nso many\n<!-- /benchmarks -->\nOne object\na line.\n"
    )
    assert found("a.md", text) == [(1, "company"), (13, "object a line")]


def test_a_line_without_three_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# a comment\n\ncompany -> more requests\n")
    with pytest.raises(ValueError):
        words.read_rules(tmp_path / "words.txt")


@pytest.mark.parametrize("name", COVERED)
def test_the_wording_of_every_covered_file(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not [str(each) for each in words.matches(name, text, RULES)]
