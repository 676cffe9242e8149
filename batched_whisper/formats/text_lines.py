"""Cleans the text of segments for line-based formats; converts times to whole milliseconds.

Knows which characters no line-based format can contain. Knows no format.
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
    """Yield the segments with text, each with its lines; no line is blank."""
    for segment in transcript.segments:
        lines = [_CONTROL.sub(" ", line).strip() for line in segment.text.splitlines()]
        lines = [line for line in lines if line]
        if lines:
            yield segment, lines


def on_one_line(text: str) -> str:
    """Replace line breaks and control characters by spaces."""
    return _CONTROL.sub(" ", " ".join(text.splitlines()))


def voice(segment: Segment) -> str | None:
    """Name the channel of a segment; None if channels were not separated."""
    return None if segment.channel is None else f"channel {segment.channel}"


def prefix(segment: Segment) -> str:
    """Return the channel as a prefix of the text, for formats without a field for it."""
    name = voice(segment)
    return "" if name is None else f"[{name}] "


def start_ms(segment: Segment) -> int:
    """Return the start in milliseconds; 0 if it is not finite."""
    return milliseconds(segment.start)


def end_ms(segment: Segment) -> int:
    """Return the end in milliseconds, not before the start."""
    return milliseconds(max(segment.start, segment.end))


def milliseconds(time_s: float) -> int:
    """Convert seconds to whole milliseconds; 0 if negative or not finite."""
    return max(0, round(1000 * time_s)) if math.isfinite(time_s) else 0
