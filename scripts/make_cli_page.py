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

[settings.md](settings.md) describes the options for the model, decoding and subtitles, with their
defaults, ranges and environment variables; here they are only listed.

Exit codes: 0 success, 1 a recording or the job failed, 2 wrong usage, 130 interrupted with
Ctrl-C, 141 the reader of standard output closed the pipe.
"""
FROM_DECLARATIONS = ("Model", "Decoding", "Subtitles")
"""Panels of options that are declared in `config`, and so described in settings.md."""


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
        is_declared = panel in FROM_DECLARATIONS
        parts.append(f"\n**{panel}**\n\n{(_list if is_declared else _table)(parameters)}")
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


def _list(parameters: Iterable[Any]) -> str:
    """The flags as a paragraph."""
    flags = (" / ".join(f"`{flag}`" for flag in _names(each)) for each in parameters)
    return f"See [settings.md](settings.md): {', '.join(flags)}.\n"


def _table(parameters: Iterable[Any]) -> str:
    lines = ["| name | value | meaning |", "|---|---|---|", *_rows(parameters)]
    return "".join(f"{line}\n" for line in lines)


def _rows(parameters: Iterable[Any]) -> Iterator[str]:
    for each in parameters:
        value = "" if each.param_type_name == "argument" else each.metavar or ""
        written = ", ".join(f"`{name}`" for name in _names(each))
        shown = f"`{_cell(value)}`" if value else ""
        yield f"| {written} | {shown} | {_cell(_meaning(each))} |"


def _names(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return [parameter.metavar]
    return [*parameter.opts, *parameter.secondary_opts]


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
