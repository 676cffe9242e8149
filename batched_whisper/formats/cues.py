"""What is shown at once, and when: a transcript cut into cues by a `CueLayout`.

Without a layout a segment is a cue. With one, its words fill lines and its lines fill cues; a cue
never runs on into the next segment, and ends where nobody speaks for longer than `PAUSE_S`. Widths
are counted in characters, and lines end between words as they come, which in languages without
spaces are a few characters each. Knows no file format.

The four options mean what openai/whisper's program makes of them (``utils.py``, SubtitlesWriter),
but for two things: there, cues run on from segment to segment where both width and lines are
limited, and a limit of words is ignored where there is one of width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batched_whisper.config.options import CueLayout
from batched_whisper.errors import OptionError
from batched_whisper.formats.text_lines import (
    end_ms,
    milliseconds,
    on_one_line,
    spoken_segments,
    start_ms,
)

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import Segment, Transcript

PAUSE_S = 3.0
"""A longer silence between two words ends a cue; openai/whisper's figure."""


@dataclass(frozen=True)
class TextRun:
    """Part of a line, all of it underlined or none."""

    text: str
    is_underlined: bool = False


Line = tuple[TextRun, ...]
"""Pieces that stand side by side; together they are not blank."""


@dataclass(frozen=True)
class Cue:
    """What is shown from ``start_ms`` to ``end_ms``: at least one line, of what a segment says."""

    start_ms: int
    end_ms: int
    lines: tuple[Line, ...]
    segment: Segment


@dataclass(frozen=True)
class _Said:
    """A word on one line, with the space before it, not blank."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class _Block:
    """The words of one cue before highlighting, line by line; no line is empty."""

    lines: Sequence[Sequence[_Said]]
    prefix: str

    @property
    def words(self) -> list[_Said]:
        return [word for line in self.lines for word in line]


def lay_out(
    transcript: Transcript, layout: CueLayout, prefix: Callable[[Segment], str]
) -> Iterator[Cue]:
    """The cues of a transcript, in the order of its segments.

    Args:
        transcript: with times of words, unless the layout is the plain one.
        layout: how much is shown at once.
        prefix: what to put before the text of each cue of a segment; part of its first line.

    Raises:
        OptionError: there are no times of words, or the layout contradicts itself.
    """
    check_layout(layout)
    is_plain = not (layout.max_line_width or layout.max_words_per_line or layout.highlight_words)
    for segment, lines in spoken_segments(transcript):
        words = [] if is_plain else _words(segment)
        if not words:  # a text that could not be aligned is shown whole
            yield _plain(segment, lines, prefix(segment))
        for block in _blocks(words, layout, prefix(segment)):
            yield from (
                _highlighted(block, segment)
                if layout.highlight_words
                else (_shown(block, segment, _start_ms(block), _end_ms(block)),)
            )


def check_layout(layout: CueLayout) -> None:
    """Raise `OptionError` where a limit can mean nothing."""
    if layout.max_lines and not (layout.max_line_width or layout.max_words_per_line):
        raise OptionError(
            f"max_lines={layout.max_lines} needs to know how long a line is: "
            "give max_line_width or max_words_per_line too"
        )


def _words(segment: Segment) -> list[_Said]:
    """Its words, those apart that say nothing."""
    if segment.words is None:
        raise OptionError(
            "this layout of subtitles needs to know when each word was said: "
            "transcribe with word_timestamps=True"
        )
    said = [
        _Said(
            on_one_line(word.word),
            milliseconds(word.start),
            milliseconds(max(word.start, word.end)),
        )
        for word in segment.words
    ]
    return [word for word in said if word.text.strip()]


def _plain(segment: Segment, lines: Sequence[str], prefix: str) -> Cue:
    first, *others = ((TextRun(line),) for line in lines)
    first = (TextRun(prefix + first[0].text),)
    return Cue(start_ms(segment), end_ms(segment), (first, *others), segment)


def _blocks(words: Sequence[_Said], layout: CueLayout, prefix: str) -> Iterator[_Block]:
    """The words in lines, and the lines in cues, each as full as it may be."""
    # As openai/whisper's: a limit of words alone means one line at a time.
    max_lines = layout.max_lines or (None if layout.max_line_width else 1)
    lines: list[list[_Said]] = []
    for word in words:
        room = layout.max_line_width
        if room is not None and len(lines) <= 1:
            room -= len(prefix)
        if lines and word.start_ms - lines[-1][-1].end_ms > 1000 * PAUSE_S:
            yield _Block(lines, prefix)
            lines = [[word]]
        elif lines and _fits(lines[-1], word, room, layout.max_words_per_line):
            lines[-1].append(word)
        elif lines and len(lines) == max_lines:
            yield _Block(lines, prefix)
            lines = [[word]]
        else:
            lines.append([word])
    if lines:
        yield _Block(lines, prefix)


def _fits(line: Sequence[_Said], word: _Said, room: int | None, max_words: int | None) -> bool:
    if max_words is not None and len(line) >= max_words:
        return False
    return room is None or len(_text([*line, word]).strip()) <= room


def _text(words: Sequence[_Said]) -> str:
    return "".join(word.text for word in words)


def _start_ms(block: _Block) -> int:
    return block.words[0].start_ms


def _end_ms(block: _Block) -> int:
    return max(word.end_ms for word in block.words)


def _highlighted(block: _Block, segment: Segment) -> Iterator[Cue]:
    """The block once for each word, which is underlined, and plain in between.

    One after the other they last as long as the block; a word of no length is in them all.
    """
    now_ms, last_ms = _start_ms(block), _end_ms(block)
    for word in block.words:
        begin_ms, finish_ms = max(now_ms, word.start_ms), max(now_ms, word.end_ms)
        if begin_ms == finish_ms:
            continue
        if now_ms < begin_ms:
            yield _shown(block, segment, now_ms, begin_ms)
        yield _shown(block, segment, begin_ms, finish_ms, word)
        now_ms = finish_ms
    if now_ms < last_ms or now_ms == _start_ms(block):
        yield _shown(block, segment, now_ms, last_ms)


def _shown(
    block: _Block, segment: Segment, start_ms: int, end_ms: int, marked: _Said | None = None
) -> Cue:
    lines = [tuple(_pieces(line, marked)) for line in block.lines]
    if block.prefix:
        lines[0] = (TextRun(block.prefix), *lines[0])
    return Cue(start_ms, end_ms, tuple(lines), segment)


def _pieces(line: Sequence[_Said], marked: _Said | None) -> Iterator[TextRun]:
    """The line's text without space around it, in up to three pieces."""
    place = next((i for i, word in enumerate(line) if word is marked), None)
    if place is None:
        yield TextRun(_text(line).strip())
        return
    word = line[place].text
    n_before = len(word) - len(word.lstrip())
    n_after = len(word.rstrip())
    before = (_text(line[:place]) + word[:n_before]).lstrip()
    after = (word[n_after:] + _text(line[place + 1 :])).rstrip()
    yield from (TextRun(text) for text in (before,) if text)
    yield TextRun(word[n_before:n_after], is_underlined=True)
    yield from (TextRun(text) for text in (after,) if text)
