"""What of a transcript is said, as clean lines, and when, in whole milliseconds.

Knows which characters no line-based format can carry. Knows no format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import Segment, Transcript

_CONTROL = re.compile("[\x00-\x1f\x7f]")


def spoken_segments(transcript: Transcript) -> Iterable[tuple[Segment, list[str]]]:
    """The segments that say something, each with its lines, none of them blank."""
    for segment in transcript.segments:
        lines = [_CONTROL.sub(" ", line).strip() for line in segment.text.splitlines()]
        lines = [line for line in lines if line]
        if lines:
            yield segment, lines


def on_one_line(text: str) -> str:
    """The text with a space for every line break and control character."""
    return _CONTROL.sub(" ", " ".join(text.splitlines()))


def voice(segment: Segment) -> str | None:
    """What to call who speaks; None where channels were not told apart."""
    return None if segment.channel is None else f"channel {segment.channel}"


def prefix(segment: Segment) -> str:
    """Who speaks, as it stands before what is said where a format has no place of its own."""
    name = voice(segment)
    return "" if name is None else f"[{name}] "


def start_ms(segment: Segment) -> int:
    """Where it begins; 0 for what is no time."""
    return milliseconds(segment.start)


def end_ms(segment: Segment) -> int:
    """Where it ends, never before it begins."""
    return milliseconds(max(segment.start, segment.end))


def milliseconds(time_s: float) -> int:
    """Whole milliseconds from the recording's beginning; 0 for what is no time."""
    return max(0, round(1000 * time_s)) if math.isfinite(time_s) else 0
