"""Writes one line per segment: plain text, and tab-separated values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batched_whisper.formats.text_lines import end_ms, prefix, spoken_segments, start_ms

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import Transcript


def text(transcript: Transcript) -> str:
    """Write one line per segment; separate channels are prefixed by ``[channel 0]``."""
    return "".join(
        f"{prefix(part)}{' '.join(lines)}\n" for part, lines in spoken_segments(transcript)
    )


def tsv(transcript: Transcript) -> str:
    """Write a header, then tab-separated start and end, in whole milliseconds, and text.

    If channels were transcribed separately, a fourth column has their numbers.
    """
    has_channels = any(part.channel is not None for part in transcript.segments)
    table = ["start\tend\ttext" + "\tchannel" * has_channels]
    for part, lines in spoken_segments(transcript):
        row = f"{start_ms(part)}\t{end_ms(part)}\t{' '.join(lines)}"
        channel = "" if part.channel is None else str(part.channel)
        table.append(f"{row}\t{channel}" if has_channels else row)
    return "".join(f"{row}\n" for row in table)
