"""Makes docs/settings.md from the declared options: ``python scripts/make_settings_page.py``.

A test fails when the page is out of date. Knows Markdown and the declarations in
`batched_whisper.config.options`; no option by name.
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

Option = dataclasses.Field[Any]

INTRODUCTION = """\
# Settings

Made by `make docs` from the declarations in `batched_whisper/config/options.py`; edit those.

Each option has one name. It is a keyword argument in Python, a flag on the command line and an
environment variable. Arguments and flags override variables, and variables override defaults. A
value out of range raises an `OptionError` that names the option.

Variables are read once, when a `Whisper` is created. An object passed as `settings=` or `options=`
is used as it is, without the variables; keyword arguments override it.

In Python, `None` unsets an option without a default, even if its variable is set
(`language=None`: detect the language). Options whose values include `none` are thresholds: `None`
in Python, and the word `none` in a flag or variable, disables them. Other options reject `None`.
"""

SETTINGS = """
## Settings of an engine

Arguments of `Whisper(...)`, or fields of `settings=Settings(...)`. They are fixed once the model is
loaded.

"""

DECODING = """
## Options of a call

Arguments of `transcribe` and its variants, or fields of `options=DecodingOptions(...)`.

"""

SUBTITLES = """
## Subtitle layout

Flags of `transcribe` with the formats `srt` and `vtt`; in Python fields of `CueLayout`, for
`formats.srt(transcript, layout)`. They need word timestamps: the command line turns
`word_timestamps` on.

"""

OTHER = """
## Other environment variables

"""

VARIABLES = (
    ("`BATCHED_WHISPER_DEBUG`", "1: show the traceback of an unexpected error."),
    (
        "`XDG_CACHE_HOME`",
        "Parent of the folder `batched-whisper`, for joined models and compiled graphs. "
        "Default: the system's cache folder.",
    ),
    ("`HF_HOME`, `HF_HUB_CACHE`", "Location of the Hub's cache."),
    ("`HF_HUB_OFFLINE`", "1: never contact the Hub."),
    (
        "`HF_ENDPOINT`, `HF_TOKEN`",
        "Another address of the Hub; an access token for private repositories.",
    ),
)


def settings_page() -> str:
    """Return the contents of docs/settings.md."""
    sections = ((SETTINGS, Settings), (DECODING, DecodingOptions), (SUBTITLES, CueLayout))
    tables = (title + _full_table(dataclasses.fields(owner)) for title, owner in sections)
    other = OTHER + _table(("variable", "meaning"), VARIABLES)
    return INTRODUCTION + "".join(tables) + other


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
    return _table(("option", "default", "values", "flag", "variable", "meaning"), rows)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("| --- ", "|---")


def _default(option: Option) -> str:
    if option.default is None:
        return ""
    if isinstance(option.default, tuple):
        return f"`{','.join(f'{number:g}' for number in option.default)}`"
    return f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"


def _range(option: Option) -> str:
    """The allowed values, in words."""
    return _values(option) + (", or `none`" if can_be_disabled(option) else "")


def _values(option: Option) -> str:
    words = [f"`{choice}`" for choice in option.metadata["choices"] or ()]
    numbers = describe_range(option)
    if words or numbers:
        return ", ".join([*words, numbers] if numbers else words)
    return "yes or no" if option.type is bool else "text"


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(settings_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
