"""From tokens with timestamps to segments, and back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.transcript.segments import TimestampTokens, window_segments
from batched_whisper.types import DecodedWindow, Segment

BEGIN = 100
TIMES = TimestampTokens(BEGIN)
SPACE = 99


def decode(tokens: Sequence[int]) -> str:
    return "".join(" " if token == SPACE else f" w{token}" for token in tokens)


def window(tokens: Sequence[int], start_s: float = 0.0, end_s: float = 30.0) -> DecodedWindow:
    return DecodedWindow(
        start=start_s,
        end=end_s,
        text=decode([token for token in tokens if token < BEGIN]),
        tokens=tuple(tokens),
        language="en",
        language_probability=1.0,
        avg_logprob=-0.25,
        no_speech_prob=0.125,
        compression_ratio=1.5,
        temperature=0.5,
    )


def built(*windows: DecodedWindow) -> tuple[Segment, ...]:
    return tuple(each for one in windows for each in window_segments(one, TIMES, decode))


words = st.lists(st.integers(0, 98), min_size=1, max_size=6).map(tuple)
steps = st.lists(st.integers(1, 100), min_size=2, max_size=12).map(
    lambda gaps: [sum(gaps[: i + 1]) for i in range(len(gaps))]
)
any_tokens = st.lists(st.integers(0, 98) | st.integers(BEGIN, BEGIN + 1500), max_size=30)


@given(data=st.data(), at=steps, start_s=st.sampled_from([0.0, 12.5]))
def test_segments_between_pairs_of_timestamps_come_back_as_they_were(
    data: st.DataObject, at: list[int], start_s: float
) -> None:
    spans = [(at[i], at[i + 1]) for i in range(0, len(at) - 1, 2)]
    texts = [data.draw(words) for _ in spans]
    tokens = [
        token
        for (first, last), text in zip(spans, texts, strict=True)
        for token in (BEGIN + first, *text, BEGIN + last)
    ]
    found = built(window(tokens, start_s, start_s + 30))
    assert [segment.tokens for segment in found] == texts
    for segment, (first, last) in zip(found, spans, strict=True):
        assert segment.start == pytest.approx(start_s + 0.02 * first)
        assert segment.end == pytest.approx(start_s + 0.02 * last)


@given(st.lists(any_tokens, max_size=4))
def test_segments_contain_every_word_with_monotonic_times(
    said: list[list[int]],
) -> None:
    windows = [window(tokens, 10.0 * i, 10.0 * i + 10) for i, tokens in enumerate(said)]
    found = built(*windows)
    kept = [token for segment in found for token in segment.tokens if token < BEGIN]
    assert kept == [token for tokens in said for token in tokens if token < BEGIN]
    times = [at for segment in found for at in (segment.start, segment.end)]
    assert times == sorted(times)
    assert all(segment.text == decode(segment.tokens) for segment in found)


@given(any_tokens)
def test_no_segment_leaves_its_window(tokens: list[int]) -> None:
    for segment in built(window(tokens, 20.0, 23.5)):
        assert 20.0 <= segment.start <= segment.end <= 23.5


def test_without_timestamps_a_window_is_one_segment() -> None:
    [segment] = built(window([1, 2, 3], 4.0, 9.0))
    assert (segment.start, segment.end, segment.tokens) == (4.0, 9.0, (1, 2, 3))
    assert segment.text == " w1 w2 w3"


def test_text_after_the_last_timestamp_is_kept_as_a_segment() -> None:
    closed, rest = built(window([BEGIN, 1, BEGIN + 50, 2, 3]))
    assert (closed.start, closed.end, closed.tokens) == (0.0, 1.0, (1,))
    assert (rest.start, rest.end, rest.tokens) == (1.0, 30.0, (2, 3))


@pytest.mark.parametrize("tokens", [[], [SPACE], [BEGIN], [BEGIN, BEGIN + 9], [BEGIN, SPACE, 150]])
def test_segments_without_words_are_left_out(tokens: list[int]) -> None:
    assert built(window(tokens)) == ()
    assert len(built(window(tokens), window([5]))) == 1


def test_a_segment_has_the_quality_measures_of_its_window() -> None:
    [segment] = built(window([7]))
    assert segment.avg_logprob == -0.25
    assert segment.no_speech_prob == 0.125
    assert segment.compression_ratio == 1.5
    assert segment.temperature == 0.5
