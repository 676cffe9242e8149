"""Small readers of SRT and WebVTT that share no code with the writers."""

from __future__ import annotations

import html
import re


def milliseconds(clock: str) -> int:
    hours, minutes, seconds, thousandths = re.fullmatch(
        r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)[.,](\d{3})", clock
    ).groups()  # type: ignore[union-attr]
    whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    return whole * 1000 + int(thousandths)


Cue = tuple[int, int, str]


def blocks(written: str) -> list[list[str]]:
    """The lines of each block between blank lines, as a player reads them."""
    return [block.split("\n") for block in written.removesuffix("\n\n").split("\n\n") if block]


def cue(timing: str, lines: list[str]) -> Cue:
    start, end = timing.split(" --> ")
    assert lines and all(line.strip() and "-->" not in line for line in lines)
    return milliseconds(start), milliseconds(end), "\n".join(lines)


def read_srt(written: str) -> list[Cue]:
    found = []
    for number, (head, timing, *lines) in enumerate(blocks(written), start=1):
        assert head == str(number)
        found.append(cue(timing, lines))
    return found


def read_vtt(written: str) -> list[Cue]:
    assert not re.search("<(?!/?u>|v )|&(?!amp;|lt;|gt;)", written)
    (head,), *rest = blocks(written)
    assert head == "WEBVTT"
    return [cue(timing, [html.unescape(line) for line in lines]) for timing, *lines in rest]
