"""Laws of stitching: windows that overlap are made one text, without loss or repetition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.transcript.segments import TimestampTokens, window_segments
from batched_whisper.transcript.stitching import Stitcher
from batched_whisper.types import DecodedWindow, Segment, Word

BEGIN = 1000
TIMES = TimestampTokens(BEGIN)
LETTERS = "観客的印刷文本年紙活版今日天気良字"


def spell(token: int) -> str:
    """Tokens below 500 are words; the others are letters of writing without spaces."""
    return f" w{token}" if token < 500 else LETTERS[(token - 500) % len(LETTERS)]


def decode_bytes(tokens: Iterable[int]) -> bytes:
    return "".join(map(spell, tokens)).encode()


def decode(tokens: Sequence[int]) -> str:
    return decode_bytes(tokens).decode()


STITCHER = Stitcher(TIMES, decode, decode_bytes)


def window(
    tokens: Sequence[int], start_s: float, end_s: float, language: str = "en"
) -> DecodedWindow:
    return DecodedWindow(
        start=start_s,
        end=end_s,
        text=decode([token for token in tokens if token < BEGIN]),
        tokens=tuple(tokens),
        language=language,
        language_probability=1.0,
        avg_logprob=-0.2,
        no_speech_prob=0.0,
        compression_ratio=1.0,
    )


def timed(found: DecodedWindow) -> DecodedWindow:
    """The same window with every word of equal length."""
    text = [token for token in found.tokens if token < BEGIN]
    each_s = (found.end - found.start) / max(len(text), 1)
    words = tuple(
        Word(found.start + i * each_s, found.start + (i + 1) * each_s, spell(token), 0.5)
        for i, token in enumerate(text)
    )
    return replace(found, words=words)


def stitched(*windows: DecodedWindow) -> list[DecodedWindow]:
    done = [windows[0]]
    for each in windows[1:]:
        pair = STITCHER.stitch(done.pop(), each)
        done += [pair.earlier, pair.later]
    return done


def segments_of(windows: Iterable[DecodedWindow]) -> list[Segment]:
    return [each for one in windows for each in window_segments(one, TIMES, decode)]


def text_of(windows: Iterable[DecodedWindow]) -> str:
    return "".join(each.text for each in windows)


WORD_S = 0.5  # every word of a spoken text lasts so long


@st.composite
def spoken(draw: st.DrawFn, first: int = 0, last: int = 499) -> tuple[list[int], list[int]]:
    """A text, and the places of two to five windows in it, that overlap by 2 to 6 words."""
    text = draw(st.lists(st.integers(first, last), min_size=20, max_size=60, unique=True))
    places = [0]
    while places[-1] + 16 < len(text) and len(places) < 8:
        end = places[-1] + draw(st.integers(10, 14))
        places += [end, end - draw(st.integers(2, 6))]
    return text, [*places, len(text)]


def windows_of(text: Sequence[int], places: Sequence[int], language: str) -> list[DecodedWindow]:
    return [
        window(text[a:b], a * WORD_S, b * WORD_S, language)
        for a, b in zip(places[::2], places[1::2], strict=True)
    ]


@given(spoken())
def test_stitching_restores_a_text_cut_with_overlaps(said: tuple[list[int], list[int]]) -> None:
    text, places = said
    found = stitched(*windows_of(text, places, "en"))
    assert text_of(found) == decode(text)
    assert [token for each in found for token in each.tokens] == text


@given(st.permutations(range(500, 500 + len(LETTERS))), st.integers(4, 14), st.data())
def test_stitching_restores_a_text_without_spaces(
    text: list[int], begin: int, data: st.DataObject
) -> None:
    end = data.draw(st.integers(begin + 1, min(begin + 5, len(text))))
    found = stitched(*windows_of(text, [0, end, begin, len(text)], "ja"))
    assert text_of(found) == decode(text)


@given(spoken(0, 480))
def test_stitching_drops_errors_at_the_borders(said: tuple[list[int], list[int]]) -> None:
    text, places = said
    windows = windows_of(text, places, "en")
    heard = [
        window(
            [*([490] if i else []), *each.tokens, *([491] if i + 1 < len(windows) else [])],
            each.start,
            each.end,
        )
        for i, each in enumerate(windows)
    ]
    assert text_of(stitched(*heard)) == decode(text)


@given(spoken())
def test_stitched_windows_are_adjacent_in_time(said: tuple[list[int], list[int]]) -> None:
    text, places = said
    whole = windows_of(text, places, "en")
    found = stitched(*whole)
    assert all(a.end == b.start for a, b in pairwise(found))
    assert (found[0].start, found[-1].end) == (whole[0].start, whole[-1].end)
    for before, after in zip(whole, found, strict=True):
        assert before.start <= after.start <= after.end <= before.end


@given(spoken())
def test_word_timestamps_do_not_change_stitched_texts(
    said: tuple[list[int], list[int]],
) -> None:
    text, places = said
    plain = windows_of(text, places, "en")
    found = stitched(*map(timed, plain))
    assert [each.tokens for each in found] == [each.tokens for each in stitched(*plain)]
    for each in found:
        assert each.words is not None
        assert "".join(word.word for word in each.words) == each.text
    times = [at for each in found for word in each.words or () for at in (word.start, word.end)]
    assert times == sorted(times)
    for segment in segments_of(found):
        assert segment.words is not None
        assert "".join(word.word for word in segment.words) == segment.text


@st.composite
def with_timestamps(draw: st.DrawFn, tokens: Sequence[int]) -> tuple[int, ...]:
    """The tokens in segments of a few words, with the times at which they are said."""
    found, at = list[int](), 0
    while at < len(tokens):
        end = min(at + draw(st.integers(1, 6)), len(tokens))
        found += [BEGIN + int(at * WORD_S * 50), *tokens[at:end], BEGIN + int(end * WORD_S * 50)]
        at = end
    return tuple(found)


@given(spoken(), st.data())
def test_segments_keep_their_words_and_nearly_their_times(
    said: tuple[list[int], list[int]], data: st.DataObject
) -> None:
    text, places = said
    windows = [
        window(data.draw(with_timestamps(each.tokens)), each.start, each.end)
        for each in windows_of(text, places, "en")
    ]
    found = stitched(*windows)
    segments = segments_of(found)
    assert "".join(segment.text for segment in segments) == decode(text) == text_of(found)
    times = [at for segment in segments for at in (segment.start, segment.end)]
    assert all(a <= b + 0.011 for a, b in pairwise(times))
    for segment in segments:
        first = text.index(next(token for token in segment.tokens if token < BEGIN))
        assert segment.start == pytest.approx(first * WORD_S, abs=0.04)


def test_a_window_without_text_leaves_the_overlap_to_the_other() -> None:
    silent, spoken = window([], 0, 10), window([1, 2, 3], 8, 12)
    found = stitched(silent, spoken)
    assert [(each.start, each.end, each.text) for each in found] == [
        (0, 8, ""),
        (8, 12, " w1 w2 w3"),
    ]
    found = stitched(window([1, 2, 3], 0, 10), window([], 8, 12))
    assert [(each.start, each.end, each.text) for each in found] == [
        (0, 10, " w1 w2 w3"),
        (10, 12, ""),
    ]


def test_stitching_keeps_all_words_without_a_match() -> None:
    found = stitched(window([1, 2, 3], 0, 10), window([4, 5, 6], 8, 18))
    assert text_of(found) == " w1 w2 w3 w4 w5 w6"
    assert found[0].end == found[1].start == pytest.approx(9)


def test_windows_that_do_not_overlap_stay_as_they_are() -> None:
    windows = [window([1, 2], 0, 10), window([1, 2], 10, 20), window([2, 3], 25, 30)]
    assert stitched(*windows) == windows


def test_letters_that_are_other_tokens_in_the_other_window_are_not_lost() -> None:
    """700 is two letters here, which the other window has as two tokens."""

    def spelled(tokens: Iterable[int]) -> bytes:
        return "".join("活字" if token == 700 else spell(token) for token in tokens).encode()

    stitcher = Stitcher(TIMES, lambda tokens: spelled(tokens).decode(), spelled)
    one, two = (500 + LETTERS.index(letter) for letter in "活字")
    earlier = window([501, 502, 503, 700], 0, 8, "ja")
    later = window([one, two, 504, 505, 506], 5, 10, "ja")
    pair = stitcher.stitch(earlier, later)
    assert pair.earlier.text + pair.later.text == "客的印活字" + decode([504, 505, 506])
