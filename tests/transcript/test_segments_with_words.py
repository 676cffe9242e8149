"""Which words are which segment's."""

from __future__ import annotations

from collections.abc import Sequence

from batched_whisper.transcript.segments import TimestampTokens, window_segments
from batched_whisper.types import DecodedWindow, Segment, Word

BEGIN = 100
TEXTS = {1: " one", 2: " two", 3: " three", 9: " "}


def decode(tokens: Sequence[int]) -> str:
    return "".join(TEXTS[token] for token in tokens)


def words(*numbers: int) -> tuple[Word, ...]:
    return tuple(Word(10 + n, 10.5 + n, TEXTS[n], 0.5) for n in numbers)


def segments(tokens: tuple[int, ...], said: tuple[Word, ...] | None) -> tuple[Segment, ...]:
    text = decode([token for token in tokens if token < BEGIN])
    window = DecodedWindow(10.0, 30.0, text, tokens, "en", 1.0, -0.1, 0.0, 1.0, words=said)
    return tuple(window_segments(window, TimestampTokens(BEGIN), decode))


def test_each_segment_has_its_own_words_and_lasts_as_long_as_they_do() -> None:
    first, second = segments(
        (BEGIN, 1, 2, BEGIN + 500, BEGIN + 500, 3, BEGIN + 900), words(1, 2, 3)
    )
    assert (first.words, second.words) == (words(1, 2), words(3))
    assert (first.start, first.end) == (11, 12.5)
    assert (second.start, second.end) == (13, 13.5)


def test_without_timestamps_the_window_is_one_segment_with_words() -> None:
    [segment] = segments((1, 2, 3), words(1, 2, 3))
    assert segment.words == words(1, 2, 3)


def test_words_of_a_segment_that_is_left_out_go_to_no_other() -> None:
    [segment] = segments((BEGIN, 9, BEGIN + 5, BEGIN + 5, 3, BEGIN + 9), words(9, 3))
    assert segment.words == words(3)


def test_words_are_none_without_word_timestamps() -> None:
    [segment] = segments((1, 2), None)
    assert segment.words is None
    assert (segment.start, segment.end) == (10, 30)
