"""Splits a transcript into subtitle cues by a `CueLayout`.

Without a layout each segment is a cue. With a layout, words fill lines and lines fill cues; a cue
never spans two segments, and ends at a pause longer than `PAUSE_S`. Widths are counted in
characters, and lines break between words, which have a few characters in languages without spaces.
Knows no file format.

The four options have the meaning of openai/whisper's command line (``utils.py``, SubtitlesWriter),
with two exceptions: there, cues span segments if both width and lines are limited, and the limit of
words is ignored if the width is limited.
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
"""A longer pause between two words, in seconds, ends a cue; openai/whisper's value."""


@dataclass(frozen=True)
class TextRun:
    """A part of a line with the same style: underlined or not."""

    text: str
    is_underlined: bool = False


Line = tuple[TextRun, ...]
"""Text runs side by side; concatenated they are not blank."""


@dataclass(frozen=True)
class Cue:
    """The lines shown from ``start_ms`` to ``end_ms``: at least one line of one segment."""

    start_ms: int
    end_ms: int
    lines: tuple[Line, ...]
    segment: Segment


@dataclass(frozen=True)
class _TimedWord:
    """A word without line breaks, with the space before it; not blank."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class _CueWords:
    """The words of one cue before highlighting, line by line; no line is empty."""

    lines: Sequence[Sequence[_TimedWord]]
    prefix: str

    @property
    def words(self) -> list[_TimedWord]:
        return [word for line in self.lines for word in line]


def lay_out(
    transcript: Transcript, layout: CueLayout, prefix: Callable[[Segment], str]
) -> Iterator[Cue]:
    """Yield the cues of a transcript, in the order of its segments.

    Args:
        transcript: with word timestamps, unless the layout is the default.
        layout: the size of lines and cues.
        prefix: returns the text before the first line of each cue of a segment.

    Raises:
        OptionError: word timestamps are missing, or the layout is contradictory.
    """
    check_layout(layout)
    is_plain = not (layout.max_line_width or layout.max_words_per_line or layout.highlight_words)
    for segment, lines in spoken_segments(transcript):
        words = [] if is_plain else _words(segment)
        if not words:  # a text that could not be aligned becomes one cue
            yield _plain(segment, lines, prefix(segment))
        for block in _blocks(words, layout, prefix(segment)):
            yield from (
                _highlighted(block, segment)
                if layout.highlight_words
                else (_shown(block, segment, _start_ms(block), _end_ms(block)),)
            )


def check_layout(layout: CueLayout) -> None:
    """Raise `OptionError` if a limit has no effect without another one."""
    if layout.max_lines and not (layout.max_line_width or layout.max_words_per_line):
        raise OptionError(
            f"max_lines={layout.max_lines} needs a limit of the line length: "
            "give max_line_width or max_words_per_line too"
        )


def _words(segment: Segment) -> list[_TimedWord]:
    """Return the words of a segment, without blank ones."""
    if segment.words is None:
        raise OptionError(
            "this layout of subtitles needs word timestamps: transcribe with word_timestamps=True"
        )
    words = [
        _TimedWord(
            on_one_line(word.word),
            milliseconds(word.start),
            milliseconds(max(word.start, word.end)),
        )
        for word in segment.words
    ]
    return [word for word in words if word.text.strip()]


def _plain(segment: Segment, lines: Sequence[str], prefix: str) -> Cue:
    first, *others = ((TextRun(line),) for line in lines)
    first = (TextRun(prefix + first[0].text),)
    return Cue(start_ms(segment), end_ms(segment), (first, *others), segment)


def _blocks(words: Sequence[_TimedWord], layout: CueLayout, prefix: str) -> Iterator[_CueWords]:
    """Fill lines with words and cues with lines, each as full as allowed."""
    # As in openai/whisper: with a limit of words alone, each cue has one line.
    max_lines = layout.max_lines or (None if layout.max_line_width else 1)
    lines: list[list[_TimedWord]] = []
    for word in words:
        room = layout.max_line_width
        if room is not None and len(lines) <= 1:
            room -= len(prefix)
        if lines and word.start_ms - lines[-1][-1].end_ms > 1000 * PAUSE_S:
            yield _CueWords(lines, prefix)
            lines = [[word]]
        elif lines and _fits(lines[-1], word, room, layout.max_words_per_line):
            lines[-1].append(word)
        elif lines and len(lines) == max_lines:
            yield _CueWords(lines, prefix)
            lines = [[word]]
        else:
            lines.append([word])
    if lines:
        yield _CueWords(lines, prefix)


def _fits(
    line: Sequence[_TimedWord], word: _TimedWord, room: int | None, max_words: int | None
) -> bool:
    if max_words is not None and len(line) >= max_words:
        return False
    return room is None or len(_text([*line, word]).strip()) <= room


def _text(words: Sequence[_TimedWord]) -> str:
    return "".join(word.text for word in words)


def _start_ms(block: _CueWords) -> int:
    return block.words[0].start_ms


def _end_ms(block: _CueWords) -> int:
    return max(word.end_ms for word in block.words)


def _highlighted(block: _CueWords, segment: Segment) -> Iterator[Cue]:
    """Yield one cue per word, which is underlined, and plain cues in the pauses.

    Together they last as long as the block; a word of zero length gets no cue of its own.
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
    block: _CueWords, segment: Segment, start_ms: int, end_ms: int, marked: _TimedWord | None = None
) -> Cue:
    lines = [tuple(_text_runs(line, marked)) for line in block.lines]
    if block.prefix:
        lines[0] = (TextRun(block.prefix), *lines[0])
    return Cue(start_ms, end_ms, tuple(lines), segment)


def _text_runs(line: Sequence[_TimedWord], marked: _TimedWord | None) -> Iterator[TextRun]:
    """Split a line, without surrounding space, into up to three text runs."""
    at = next((i for i, word in enumerate(line) if word is marked), None)
    if at is None:
        yield TextRun(_text(line).strip())
        return
    word = line[at].text
    n_before = len(word) - len(word.lstrip())
    n_after = len(word.rstrip())
    before = (_text(line[:at]) + word[:n_before]).lstrip()
    after = (word[n_after:] + _text(line[at + 1 :])).rstrip()
    yield from (TextRun(text) for text in (before,) if text)
    yield TextRun(word[n_before:n_after], is_underlined=True)
    yield from (TextRun(text) for text in (after,) if text)
