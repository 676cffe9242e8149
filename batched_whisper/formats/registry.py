"""The registry of formats: each by its name, with its properties."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batched_whisper.config.options import CueLayout
from batched_whisper.errors import OptionError
from batched_whisper.formats.cues import check_layout
from batched_whisper.formats.json_output import json_document, json_line
from batched_whisper.formats.subtitles import srt, vtt
from batched_whisper.formats.text_and_tsv import text, tsv

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import Transcript


@dataclass(frozen=True)
class Format:
    """An output format of transcripts."""

    name: str
    suffix: str
    write: Callable[[Transcript], str]
    is_timed: bool = False
    """Whether the format contains times of segments."""
    write_cues: Callable[[Transcript, CueLayout], str] | None = None
    """Writes the format by a layout; None if it has no cues."""

    @property
    def has_cues(self) -> bool:
        """Whether a `CueLayout` applies to it."""
        return self.write_cues is not None

    def laid_out(self, layout: CueLayout) -> Format:
        """Return the format with this layout; a format without cues is returned unchanged.

        Raises:
            OptionError: the layout is contradictory.
        """
        check_layout(layout)
        write_cues = self.write_cues
        if write_cues is None:
            return self
        return dataclasses.replace(self, write=lambda whole: write_cues(whole, layout))


FORMATS = {
    each.name: each
    for each in (
        Format("text", ".txt", text),
        Format("json", ".json", json_document, is_timed=True),
        Format("jsonl", ".jsonl", json_line),
        Format("srt", ".srt", srt, is_timed=True, write_cues=srt),
        Format("vtt", ".vtt", vtt, is_timed=True, write_cues=vtt),
        Format("tsv", ".tsv", tsv, is_timed=True),
    )
}
"""All formats, by name."""


def format_named(name: str) -> Format:
    """Return the format of this name; raises `OptionError` if there is none."""
    try:
        return FORMATS["text" if name == "txt" else name]
    except KeyError:
        raise OptionError(
            f"there is no format {name!r}: choose from {', '.join(FORMATS)}"
        ) from None
