"""Every format by its name, with what a caller must know to choose one."""

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
    """One way to write a transcript down."""

    name: str
    suffix: str
    write: Callable[[Transcript], str]
    is_timed: bool = False
    """Whether it is read for the segments and their own times."""
    write_cues: Callable[[Transcript, CueLayout], str] | None = None
    """Where it is shown a few words at a time: the same by a layout."""

    @property
    def has_cues(self) -> bool:
        """Whether a layout means something to it."""
        return self.write_cues is not None

    def laid_out(self, layout: CueLayout) -> Format:
        """The same with subtitles laid out like this; what has no cues stays as it is.

        Raises:
            OptionError: the layout contradicts itself.
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
"""Every format, by its name."""


def format_named(name: str) -> Format:
    """The format of this name; `OptionError` where there is none."""
    try:
        return FORMATS["text" if name == "txt" else name]
    except KeyError:
        raise OptionError(
            f"there is no format {name!r}: choose from {', '.join(FORMATS)}"
        ) from None
