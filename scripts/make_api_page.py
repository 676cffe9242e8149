"""Makes docs/python-api.md from docstrings and signatures: ``python scripts/make_api_page.py``.

A test fails when the page is out of date. Every public name of the package is on the page. Options
are listed once, in docs/settings.md, and left out of the signatures here.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import batched_whisper
from batched_whisper import formats
from batched_whisper.config.fields import CheckedOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python-api.md"

WIDTH = 88
"""Columns of a signature on one line."""

INTRODUCTION = """\
# Python API

Made by `make docs` from the docstrings; edit those. All names are imported from
`batched_whisper`, those under [Formats](#formats) from `batched_whisper.formats`. `...` in a
signature stands for the options in [settings.md](settings.md).
"""
SECTIONS: dict[str, tuple[str, ...]] = {
    "Transcribing": ("Whisper",),
    "Options": ("Settings", "DecodingOptions"),
    "Results": ("Transcript", "Segment", "Word", "DecodedWindow"),
    "Batching your own functions": ("batched", "enter", "exit", "running"),
}
FORMATS = ("text", "srt", "vtt", "tsv", "json_document", "json_line", "write_atomically")


def api_page() -> str:
    """The whole of docs/python-api.md."""
    parts = [INTRODUCTION]
    for title, names in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            parts += _described(name, getattr(batched_whisper, name))
    parts.append("\n## Formats\n")
    for name in FORMATS:
        parts += _described(name, getattr(formats, name))
    return "".join([*parts, "\n## Errors\n\n", _errors()])


def public_names() -> set[str]:
    """The names that the page describes."""
    named = {name for names in SECTIONS.values() for name in names}
    return named | {error.__name__ for error, _ in _tree(batched_whisper.BatchedWhisperError)}


def _described(name: str, thing: Any) -> Iterator[str]:
    if not inspect.isclass(thing):
        yield _callable(f"{name}", thing, heading="###")
    elif issubclass(thing, CheckedOptions):
        yield f"\n### {name}\n\n{_text(thing)}\n\nIts fields are in [settings.md](settings.md).\n"
    elif name in SECTIONS["Results"]:
        yield f"\n### {name}\n\n{_text(thing)}\n\n{_fields(thing)}"
    else:
        yield _callable(name, thing, heading="###")
        yield from _members(name, thing)


def _members(owner: str, thing: type[Any]) -> Iterator[str]:
    """The public methods and properties of a class, in their order."""
    for name, member in vars(thing).items():
        if name.startswith("_"):
            continue
        if name == "transcribe":
            yield from _calls(owner)
        elif isinstance(member, property):
            yield f"\n#### {owner}.{name}\n\n{_text(member)}\n"
        elif inspect.isfunction(member):
            yield _callable(f"{owner}.{name}", member, heading="####")


def _calls(owner: str) -> Iterator[str]:
    """``transcribe`` is an object: its call, its parts, and the variant ``aio`` of each."""
    # The class is wherever `Whisper` has it from.
    home: Any = importlib.import_module(batched_whisper.Whisper.__module__)
    calls: Any = importlib.import_module(home.Transcribe.__module__)
    parts = {
        "transcribe": calls.Transcribe,
        "transcribe.map": calls.TranscribeMap,
        "transcribe.segments": calls.TranscribeSegments,
    }
    for name, part in parts.items():
        yield _callable(f"{owner}.{name}", part.__call__, heading="####")
        yield _callable(f"{owner}.{name}.aio", part.aio, heading="####")


def _callable(name: str, function: Callable[..., Any], *, heading: str) -> str:
    is_method = "." in name
    before = "class " if inspect.isclass(function) else ""
    if inspect.iscoroutinefunction(function):
        before = "await "
    parameters = _parameters(function, is_method)
    written = f"{before}{name}({', '.join(parameters)})"
    if len(written) > WIDTH:
        written = f"{before}{name}(\n    " + ",\n    ".join(parameters) + ",\n)"
    return f"\n{heading} {name}\n\n```text\n{written}\n```\n\n{_text(function)}\n"


def _parameters(function: Callable[..., Any], is_method: bool) -> list[str]:
    """The parameters without ``self``, and with ``...`` for the options."""
    parameters = list(inspect.signature(function).parameters.values())[is_method:]
    keywords = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    options = _options({each.name for each in keywords})
    named = [each for each in keywords if each.name not in options]
    shown = [_parameter(each) for each in parameters if each.kind is not each.KEYWORD_ONLY]
    shown += ["*"] * bool(named) + [_parameter(each) for each in named]
    return shown + ["..."] * bool(options)


def _parameter(parameter: inspect.Parameter) -> str:
    given = parameter.annotation
    kind = (
        "" if given is parameter.empty else f": {inspect.formatannotation(given)}".replace("'", "")
    )
    default = parameter.default
    return f"{parameter.name}{kind}" + ("" if default is parameter.empty else f" = {default!r}")


def _options(names: set[str]) -> set[str]:
    """The options among these names; empty unless a call takes all of an object's options."""
    for owner in (batched_whisper.Settings, batched_whisper.DecodingOptions):
        options = {field.name for field in dataclasses.fields(owner)} - {"model"}
        if options <= names:
            return options
    return set()


SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Note|Keyword Args):$")


def _text(thing: Any) -> str:
    """The docstring as Markdown: sections become lists, ``code`` becomes `code`."""
    lines: list[str] = []
    in_section = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        section = SECTION.match(line)
        if section and section[1] == "Keyword Args":
            break
        if section:
            in_section = True
            lines += [f"**{section[1]}**", ""]
        elif line and not line.startswith(" "):
            in_section = False
            lines.append(line)
        elif in_section and line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = line.strip().partition(":")
            names = ", ".join(f"`{each.strip()}`" for each in name.split(","))
            lines.append(f"- {names}:{rest}" if colon else f"- {line.strip()}")
        elif in_section and line.strip():
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return re.sub(r"``([^`]+)``", r"`\1`", "\n".join(lines)).strip()


def _fields(thing: Any) -> str:
    rows = [f"| `{f.name}` | `{_cell(str(f.type))}` |" for f in dataclasses.fields(thing)]
    return "".join(f"{line}\n" for line in ["| field | type |", "|---|---|", *rows])


def _errors() -> str:
    """The tree of errors as a list, each with its HTTP status."""
    return "".join(
        f"{'  ' * depth}- `{error.__name__}` ({error.http_status}): {_first_line(error)}\n"
        for error, depth in _tree(batched_whisper.BatchedWhisperError)
    )


def _tree(error: type[Any], depth: int = 0) -> Iterator[tuple[type[Any], int]]:
    yield error, depth
    for each in error.__subclasses__():
        if each.__module__ == batched_whisper.BatchedWhisperError.__module__:
            yield from _tree(each, depth + 1)


def _first_line(thing: Any) -> str:
    return _text(thing).partition("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(api_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
