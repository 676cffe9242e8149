"""Makes docs/cli.md from the program's help: ``python scripts/make_cli_page.py``.

A test fails when the page is out of date. Knows Markdown and Click's parameters; no command by
name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from batched_whisper.cli.app import PROGRAM, app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

INTRODUCTION = """\
# Command line

Made by `make docs` from the help of the commands; edit that. Every command prints it with `--help`.

Options marked with ⚙ can also be set by an environment variable:
`BATCHED_WHISPER_WAIT_MS` for `--wait-ms`, and so on. A flag overrides its variable.
[settings.md](settings.md) lists all variables.

Exit codes: 0 success, 1 a recording or the job failed, 2 wrong usage, 130 interrupted with
Ctrl-C, 141 the reader of standard output closed the pipe.
"""
FROM_DECLARATIONS = ("Model", "Decoding", "Subtitles")
"""Panels whose options are declared in `config`, and so have an environment variable."""


def cli_page() -> str:
    """The whole of docs/cli.md."""
    program: Any = get_command(app)
    sections = [_command(name, command) for name, command in program.commands.items()]
    return INTRODUCTION + "".join(sections)


def _command(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([PROGRAM, name, *command.collect_usage_pieces(context)])
    parts = [f"\n## {name}\n\n    {usage}\n\n{_paragraphs(command.help)}\n"]
    for panel, parameters in _panels(command.params).items():
        parts.append(f"\n**{panel}**\n\n{_table(parameters)}")
    return "".join(parts)


def _paragraphs(text: str) -> str:
    """The help, one line per paragraph."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\f", "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _panels(parameters: Iterable[Any]) -> dict[str, list[Any]]:
    """The parameters below the headings that the help gives them."""
    panels: dict[str, list[Any]] = {}
    for each in parameters:
        default = "Arguments" if each.param_type_name == "argument" else "Options"
        panel = (getattr(each, "rich_help_panel", None) or default).removesuffix(", on or off")
        panels.setdefault(panel, []).append(each)
    return panels


def _table(parameters: Iterable[Any]) -> str:
    lines = ["| name | value | meaning |", "|---|---|---|", *_rows(parameters)]
    return "".join(f"{line}\n" for line in lines)


def _rows(parameters: Iterable[Any]) -> Iterator[str]:
    for each in parameters:
        panel = getattr(each, "rich_help_panel", None) or ""
        mark = " ⚙" if panel.removesuffix(", on or off") in FROM_DECLARATIONS else ""
        is_argument = each.param_type_name == "argument"
        names = [each.metavar] if is_argument else [*each.opts, *each.secondary_opts]
        value = "" if is_argument else each.metavar or ""
        written = ", ".join(f"`{name}`" for name in names) + mark
        shown = f"`{_cell(value)}`" if value else ""
        yield f"| {written} | {shown} | {_cell(_meaning(each))} |"


def _meaning(parameter: Any) -> str:
    text = " ".join((parameter.help or "").replace("\\[", "[").split())
    default = parameter.default if getattr(parameter, "show_default", False) else None
    is_told = default is None or default is False or "default:" in text.lower()
    return text if is_told else f"{text} [default: {default}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(cli_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
