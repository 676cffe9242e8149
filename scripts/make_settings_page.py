"""Generates docs/settings.md, and the table of settings in README.md, from the declared options.

``python scripts/make_settings_page.py`` writes both; a test fails if they are out of date. Knows
Markdown and the declarations of `batched_whisper.config.options`, but no option by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batched_whisper.cli.options import written_flag
from batched_whisper.config.fields import can_be_disabled, environment_variables
from batched_whisper.config.option_docs import describe_range
from batched_whisper.config.options import (
    CueLayout,
    DecodingOptions,
    Settings,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->\n"

Option = dataclasses.Field[Any]

INTRODUCTION = """\
# Settings

Made by `make docs` from the declarations in `batched_whisper/config/options.py`; edit those.

Each option has one name. It is a keyword argument in Python, a flag on the command line and an
environment variable. An argument or a flag overrides the variable, and the variable overrides the
default. A value out of range raises an `OptionError` that names the option.

Variables are read once, when a `Whisper` is created. An object passed as `settings=` or `options=`
is used as it is, without the variables; arguments override it.

In Python, `None` is accepted by two kinds of options. An option without a default is then unset,
even if its variable is set (`language=None`: detect the language). A threshold whose values include
`none` is disabled; flags and variables do that with the word `none`. Other options reject it.
"""

SETTINGS = """
## Settings of an engine

Arguments of `Whisper(...)`, together as `settings=Settings(...)`.

"""

DECODING = """
## Options of a call

Arguments of `transcribe` and all its variants, together as `options=DecodingOptions(...)`.

"""

SUBTITLES = """
## Layout of subtitles

Flags of `transcribe` with the formats `srt` and `vtt`; in Python together as `CueLayout`, for
`formats.srt(transcript, layout)`. They need word timestamps: the command line enables
`word_timestamps` automatically.

"""

OTHER = """
## Other environment variables

"""

VARIABLES = (
    ("`BATCHED_WHISPER_DEBUG`", "1: show the traceback of an unexpected error."),
    (
        "`XDG_CACHE_HOME`",
        "Parent of the cache folder `batched-whisper`, which holds assembled models and compiled "
        "graphs. Default: the cache folder of the operating system.",
    ),
    ("`HF_HOME`, `HF_HUB_CACHE`", "Location of the Hub's cache."),
    ("`HF_HUB_OFFLINE`", "1: never connect to the Hub."),
    (
        "`HF_ENDPOINT`, `HF_TOKEN`",
        "Another address of the Hub; the access token for gated or private repositories.",
    ),
)


def settings_page() -> str:
    """Return the contents of docs/settings.md."""
    sections = ((SETTINGS, Settings), (DECODING, DecodingOptions), (SUBTITLES, CueLayout))
    tables = (title + _full_table(dataclasses.fields(owner)) for title, owner in sections)
    other = OTHER + _table(("variable", "meaning"), VARIABLES)
    return INTRODUCTION + "".join(tables) + other


def readme_with_table(readme: str) -> str:
    """Return the README with a new table between its two markers."""
    before, found, rest = readme.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"README.md lacks the lines {BEGIN.strip()} and {END.strip()}")
    options = [*dataclasses.fields(Settings), *dataclasses.fields(DecodingOptions)]
    return before + BEGIN + _short_table(options) + END + after


def _short_table(options: Iterable[Option]) -> str:
    rows = ((f"`{each.name}`", _default(each), _first_sentence(each)) for each in options)
    return _table(("option", "default", "description"), rows)


def _full_table(options: Iterable[Option]) -> str:
    rows = (
        (
            f"`{each.name}`",
            _default(each),
            _range(each),
            f"`{written_flag(each)}`",
            ", else ".join(f"`{variable}`" for variable in environment_variables(each)),
            each.metadata["help"],
        )
        for each in options
    )
    return _table(("option", "default", "values", "flag", "variable", "description"), rows)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("| --- ", "|---")


def _first_sentence(option: Option) -> str:
    sentence, stop, _ = str(option.metadata["help"]).partition(". ")
    return sentence + "." if stop else sentence


def _default(option: Option) -> str:
    if option.default is None:
        return ""
    if isinstance(option.default, tuple):
        return f"`{','.join(f'{number:g}' for number in option.default)}`"
    return f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"


def _range(option: Option) -> str:
    """Describe the allowed values."""
    return _values(option) + (", or `none`" if can_be_disabled(option) else "")


def _values(option: Option) -> str:
    words = [f"`{choice}`" for choice in option.metadata["choices"] or ()]
    numbers = describe_range(option)
    if words or numbers:
        return ", ".join([*words, numbers] if numbers else words)
    return "yes or no" if option.type is bool else "text"


def main() -> None:
    """Write both files."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(settings_page(), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(readme_with_table(readme), encoding="utf-8")


if __name__ == "__main__":
    main()
