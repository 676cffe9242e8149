"""Writes cues as SubRip (SRT) and WebVTT files. Knows their syntax; `cues` decides their contents.

WebVTT is a W3C standard (https://www.w3.org/TR/webvtt1/); SubRip has none, so the output uses only
what every player supports.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from batched_whisper.config.options import CueLayout
from batched_whisper.formats.cues import Cue, TextRun, lay_out
from batched_whisper.formats.text_lines import prefix, voice

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import Segment, Transcript

_ARROW = re.compile("-{2,}>")
"""The arrow of time lines in SRT and WebVTT; any number of dashes, so that none remains."""


def srt(transcript: Transcript, layout: CueLayout | None = None) -> str:
    """Write SubRip subtitles, numbered from 1; separate channels are prefixed by ``[channel 0]``.

    Raises:
        OptionError: the layout needs word timestamps, and the transcript has none.
    """
    cues = lay_out(transcript, layout or CueLayout(), prefix)
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_body(cue, str)}"
        for number, cue in enumerate(cues, start=1)
    )


def vtt(transcript: Transcript, layout: CueLayout | None = None) -> str:
    """Write WebVTT subtitles; ``&``, ``<`` and ``>`` are escaped, as its grammar requires.

    Separate channels are marked as voices, ``<v channel 0>``.

    Raises:
        OptionError: the layout needs word timestamps, and the transcript has none.
    """
    cues = lay_out(transcript, layout or CueLayout(), _no_prefix)
    return "WEBVTT\n\n" + "".join(
        f"{_short_clock(cue.start_ms)} --> {_short_clock(cue.end_ms)}\n"
        f"{_voice_tag(cue.segment)}{_body(cue, _escaped)}"
        for cue in cues
    )


def _no_prefix(segment: Segment) -> str:
    return ""  # the voice tag identifies the channel


def _voice_tag(segment: Segment) -> str:
    """Return the voice tag of a whole cue, which needs no end tag."""
    name = voice(segment)
    return "" if name is None else f"<v {name}>"


def _body(cue: Cue, escape: Callable[[str], str]) -> str:
    lines = ("".join(_written(piece, escape) for piece in line) for line in cue.lines)
    return "\n".join(lines) + "\n\n"


def _written(piece: TextRun, escape: Callable[[str], str]) -> str:
    """Return the text without arrows of time lines, in tags if it is underlined."""
    text = escape(_ARROW.sub("->", piece.text))
    return f"<u>{text}</u>" if piece.is_underlined else text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(time_ms: int, decimal_mark: str) -> str:
    """Format a time as hh:mm:ss,mmm with as many digits of hours as needed."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


def _short_clock(time_ms: int) -> str:
    """Format a time for WebVTT, without the hours if they are 00."""
    return _clock(time_ms, ".").removeprefix("00:")
