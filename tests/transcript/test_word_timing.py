"""The times of words, from attention that is made up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batched_whisper.transcript.silence import Pause
from batched_whisper.transcript.word_timing import (
    SHIFT_POSITIONS,
    AlignedTokens,
    time_words,
)
from batched_whisper.types import POSITION_S, Word

N_PROMPT = 4
LATE_S = SHIFT_POSITIONS * POSITION_S


def spell(tokens: Iterable[int]) -> bytes:
    return b"".join(b" word%d" % token for token in tokens)


@dataclass(frozen=True)
class Said:
    """One token per word, each with attention on its positions; silence before and after."""

    stretches: Sequence[tuple[int, int]]
    n_positions: int

    def text(self, n_segments: int = 1) -> AlignedTokens:
        tokens = range(len(self.stretches))
        rows = N_PROMPT + len(tokens) + 1
        weights = np.full((2, rows, self.n_positions), 1e-4, np.float32)
        weights[:, N_PROMPT - 2, : self.stretches[0][0]] = 1  # silence belongs to the prompt
        for i, (first, last) in enumerate(self.stretches):
            weights[:, N_PROMPT - 1 + i, first:last] = 1
        weights[:, N_PROMPT - 1 + len(tokens), self.stretches[-1][1] :] = 1
        cut = np.array_split(np.array(tokens), n_segments)
        logprobs = np.log(np.linspace(0.5, 0.9, rows, dtype=np.float32))
        return AlignedTokens([each.tolist() for each in cut], "en", weights, logprobs, N_PROMPT)


def timed(said: Said, pauses: Sequence[Pause] = (), start_s: float = 0.0) -> tuple[Word, ...]:
    end_s = start_s + said.n_positions * POSITION_S
    return time_words(said.text(), pauses, spell, start_s=start_s, end_s=end_s)


THREE = Said([(50, 70), (70, 100), (100, 130)], 200)


def test_time_words_follows_the_attention() -> None:
    for word, (first, last) in zip(timed(THREE), THREE.stretches, strict=True):
        assert word.start == pytest.approx(first * POSITION_S + LATE_S, abs=0.041)
        assert word.end == pytest.approx(last * POSITION_S + LATE_S, abs=0.041)


def test_times_are_those_of_the_recording() -> None:
    for word, later in zip(timed(THREE), timed(THREE, start_s=90.0), strict=True):
        assert later.start == pytest.approx(word.start + 90)
        assert later.end == pytest.approx(word.end + 90)


def test_only_the_positions_of_the_window_count() -> None:
    text = THREE.text()
    padded = np.pad(text.weights, [(0, 0), (0, 0), (0, 300)], constant_values=np.float32(5))
    longer = AlignedTokens(text.segments, "en", padded, text.logprobs, N_PROMPT)
    assert time_words(longer, (), spell, start_s=0.0, end_s=4.0) == timed(THREE)


def test_the_probability_of_a_word_is_the_mean_of_its_tokens() -> None:
    text = Said([(10, 20), (20, 30)], 50).text()

    def one_word(tokens: Iterable[int]) -> bytes:
        return b"".join(b"ab"[token : token + 1] for token in tokens)

    [word] = time_words(text, (), one_word, start_s=0.0, end_s=1.0)
    expected = np.exp(text.logprobs[N_PROMPT : N_PROMPT + 2]).mean()
    assert word.probability == pytest.approx(float(expected))


def test_words_end_where_a_pause_begins_and_begin_where_it_ends() -> None:
    between, after = Pause(1.3, 1.6), Pause(2.5, 4.0)
    one, two, three = timed(THREE, [between, after])
    assert (one.end, two.start) == (between.start_s, between.end_s)
    assert three.end == after.start_s


def test_of_two_pauses_where_words_meet_they_part_at_the_longer() -> None:
    one, two, _ = timed(THREE, [Pause(1.3, 1.35), Pause(1.4, 1.6), Pause(1.65, 1.7)])
    assert (one.end, two.start) == (1.4, 1.6)


def test_words_do_not_start_in_the_pause_before_them() -> None:
    assert timed(THREE, [Pause(0.0, 1.2)])[0].start == 1.2


def test_a_pause_far_from_where_words_meet_stays_inside_the_word() -> None:
    said = Said([(10, 30), (30, 150), (150, 170)], 200)
    assert timed(said, [Pause(1.7, 1.9)]) == timed(said)


def test_a_text_without_words_has_none() -> None:
    text = AlignedTokens(
        [()], "en", np.ones((1, 5, 9), np.float32), np.zeros(5, np.float32), N_PROMPT
    )
    assert time_words(text, (), spell, start_s=0.0, end_s=1.0) == ()


pauses = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=5).map(
    lambda found: [Pause(start, start + length) for start, length in found]
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 150), pauses, st.booleans())
@settings(deadline=None, max_examples=60)
def test_time_words_returns_the_text_in_order_within_the_window_for_any_attention(
    seed: int, n_words: int, n_positions: int, pauses: list[Pause], is_flat: bool
) -> None:
    random = np.random.default_rng(seed)
    shape = (3, N_PROMPT + n_words + 1, max(n_positions, 1) + 20)
    weights = np.ones(shape, np.float32) if is_flat else random.random(shape, np.float32) ** 8
    segments = [part.tolist() for part in np.array_split(np.arange(n_words), 3)]
    text = AlignedTokens(segments, "en", weights, -random.random(shape[1], np.float32), N_PROMPT)
    start_s, end_s = 7.0, 7.0 + n_positions * POSITION_S + 0.007
    words = time_words(text, pauses, spell, start_s=start_s, end_s=end_s)
    assert "".join(word.word for word in words) == spell(range(n_words)).decode()
    for word in words:
        assert start_s <= word.start <= word.end <= end_s
        assert 0 < word.probability <= 1
    for before, after in pairwise(words):
        assert before.end <= after.start
