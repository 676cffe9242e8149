"""The rules against openai/whisper's filters, and what follows from them for whole texts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_filters import Logits, OpenAiFilters

from batched_whisper.decoding.rules import EVERYTHING, NOTHING, MaskMode, Rules, TokenIds
from batched_whisper.decoding.sampling import apply, choose, mask_row

EOT, SPECIAL, BEGIN, N_VOCAB = 20, range(21, 25), 25, 95
IDS = TokenIds(eot=EOT, timestamp_begin=BEGIN, n_vocab=N_VOCAB)
FEW_STEPS = 40

some_tokens = st.frozensets(st.integers(0, EOT - 1), max_size=8)


def both(
    timestamps: bool, never: frozenset[int], never_first: frozenset[int]
) -> tuple[Rules, OpenAiFilters]:
    never = never | frozenset(SPECIAL)
    rules = Rules(IDS, suppress=never, suppress_begin=never_first, timestamps=timestamps)
    return rules, OpenAiFilters(IDS, never, never_first, timestamps)


def random_logits(seed: int, place: int, spread: float) -> Logits:
    """Some texts full of timestamps, some nearly without: what is said leans one way."""
    random = np.random.default_rng((seed, place))
    logits = random.normal(0, spread, N_VOCAB).astype(np.float32)
    logits[BEGIN:] += np.float32(random.choice([-4, -2, 0, 1]) * spread)
    logits[EOT] -= np.float32(spread)
    return logits


@settings(max_examples=150, deadline=None)
@given(
    timestamps=st.booleans(),
    never=some_tokens,
    never_first=some_tokens | st.just(frozenset([EOT])),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.1, 1.0, 6.0]),
    sampling=st.booleans(),
)
def test_allowed_tokens_equal_those_of_openai_whisper(
    timestamps: bool,
    never: frozenset[int],
    never_first: frozenset[int],
    seed: int,
    spread: float,
    sampling: bool,
) -> None:
    rules, filters = both(timestamps, never, never_first)
    random = np.random.default_rng(seed)
    sampled: list[int] = []
    for place in range(FEW_STEPS):
        logits = random_logits(seed, place, spread)
        expected = filters(logits, sampled)
        found = apply(logits, rules.next(sampled), BEGIN)
        np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
        np.testing.assert_array_equal(found, expected)
        if np.isneginf(expected).all():  # with tokens left out, nothing may be left to say
            return
        token = int(expected.argmax())
        assert choose(logits, rules.next(sampled), BEGIN).token == token
        if sampling:  # off the most probable path, to see more histories
            token = int(random.choice(np.flatnonzero(np.isfinite(expected))))
        if token == EOT:
            return
        sampled.append(token)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), never=some_tokens)
def test_a_timed_text_is_well_formed(seed: int, never: frozenset[int]) -> None:
    rules, _ = both(True, never, frozenset([EOT]))
    sampled: list[int] = []
    for place in range(FEW_STEPS):
        token = choose(random_logits(seed, place, 3.0), rules.next(sampled), BEGIN).token
        if token == EOT:
            break
        sampled.append(token)
    assert not never & set(sampled)
    assert sampled[0] >= BEGIN
    assert sampled[0] <= BEGIN + 50
    times = [token for token in sampled if token >= BEGIN]
    assert times == sorted(times)
    opens = True  # timestamps open and close segments in turn
    for before, token in itertools.pairwise(sampled):
        if before >= BEGIN and token >= BEGIN:
            assert not opens, "an opening timestamp is followed by text"
            opens = True
        elif before < BEGIN and token >= BEGIN:
            opens = False
        elif before >= BEGIN:
            assert opens, "a closing timestamp is followed by an opening one, or the end"


def may_end(rules: Rules, *sampled: int) -> bool:
    mask = rules.next(sampled).mask
    return mask.mode is MaskMode.ALL_BUT and EOT not in mask.tokens


def test_a_segment_that_begins_before_the_end_of_the_audio_must_have_text() -> None:
    rules, _ = both(True, frozenset(), frozenset())
    bounded = rules.with_sound_until(1.1)  # so nothing may begin before 0.6 s and stay unwritten
    at = [BEGIN + step for step in (0, 20, 29, 30, 31)]
    assert not may_end(bounded, at[0], 5, at[1], at[1])
    assert not may_end(bounded, at[0], 5, at[1], at[2])
    assert may_end(bounded, at[0], 5, at[1], at[3])
    assert may_end(bounded, at[0], 5, at[3], at[4])
    assert may_end(rules, at[0], 5, at[1], at[1])  # elsewhere it is as openai/whisper has it


def test_the_text_may_end_after_a_closed_segment_with_audio_left() -> None:
    """A window in which nobody speaks, or where music follows, is not made to have words."""
    rules, _ = both(True, frozenset(), frozenset())
    bounded = rules.with_sound_until(1.4)
    assert may_end(bounded, BEGIN)
    assert may_end(bounded, BEGIN, 5, BEGIN + 10)


def test_without_timestamps_none_is_ever_allowed() -> None:
    rules, _ = both(False, frozenset(), frozenset())
    for sampled in ([], [1], [1, 2, 3]):
        assert len(rules.next(sampled).timestamps) == 0


def test_suppress_begin_applies_to_the_first_token_only() -> None:
    rules, _ = both(False, frozenset([3]), frozenset([4, EOT]))
    logits = np.zeros(N_VOCAB, np.float32)
    first, later = (apply(logits, rules.next(sampled), BEGIN) for sampled in ([], [1]))
    assert set(np.flatnonzero(np.isneginf(first[:BEGIN]))) == {3, 4, EOT, *SPECIAL}
    assert set(np.flatnonzero(np.isneginf(later[:BEGIN]))) == {3, *SPECIAL}


@pytest.mark.parametrize("latest_s, expected", [(0.0, 1), (0.02, 2), (1.0, 51), (30.0, 70)])
def test_max_initial_timestamp_s_limits_the_first_timestamp(latest_s: float, expected: int) -> None:
    rules = Rules(
        IDS,
        suppress=frozenset(),
        suppress_begin=frozenset(),
        timestamps=True,
        max_initial_timestamp_s=latest_s,
    )
    assert rules.next([]).timestamps == range(BEGIN, BEGIN + expected)


def test_rules_of_equal_options_give_equal_masks() -> None:
    """An engine keeps each mask as a row of a table, so they must be recognised."""
    one, _ = both(True, frozenset([1]), frozenset([2]))
    other, _ = both(True, frozenset([1]), frozenset([2]))
    for sampled in ([], [BEGIN], [BEGIN, 5], [BEGIN, 5, BEGIN + 9]):
        assert one.next(sampled) == other.next(sampled)
        assert hash(one.next(sampled).mask) == hash(other.next(sampled).mask)


def test_mask_row_equals_its_token_mask() -> None:
    assert np.isneginf(mask_row(NOTHING, 4)).all()
    assert (mask_row(EVERYTHING, 4) == 0).all()
    only = type(NOTHING)(MaskMode.ONLY, frozenset([1, 99]))
    np.testing.assert_array_equal(mask_row(only, 4) == 0, [False, True, False, False])


@settings(max_examples=200, deadline=None)
@given(
    timestamps=st.booleans(),
    never=some_tokens,
    start=st.integers(0, 12),
    end_s=st.sampled_from([0.0, 0.7, 1.5]),
    seed=st.integers(0, 2**32),
)
def test_constraint_state_allows_the_same_tokens_as_the_rules(
    timestamps: bool, never: frozenset[int], start: int, end_s: float, seed: int
) -> None:
    """Wherever it sets out."""
    rules, _ = both(timestamps, never, frozenset())
    rules = rules.with_sound_until(end_s)
    random = np.random.default_rng(seed)
    sampled: list[int] = []
    constraints = rules.constraints(sampled)
    for place in range(FEW_STEPS):
        if place == start:
            constraints = rules.constraints(sampled)
        allowed = rules.next(sampled)
        left = apply(random_logits(seed, place, 3.0), allowed, BEGIN)
        token = int(random.choice(np.flatnonzero(np.isfinite(left))))
        sampled.append(token)
        if token == EOT:
            return
        allowed, constraints = constraints.after(token, IDS)
        assert allowed == rules.next(sampled)
