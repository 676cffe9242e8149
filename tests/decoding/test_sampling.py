"""Laws of choosing a token from logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from openai_filters import Logits

from batched_whisper.decoding.rules import EVERYTHING, NOTHING, Allowed, MaskMode, TokenMask
from batched_whisper.decoding.sampling import (
    GREEDY,
    Sampling,
    apply,
    best,
    choose,
    highest,
    log_sum_exp,
    probability,
)

BEGIN, N_VOCAB = 12, 20

logits_of_any_kind = arrays(
    np.float32, N_VOCAB, elements=st.floats(-50, 50, width=32, allow_nan=False)
)
masks = st.builds(
    TokenMask,
    st.sampled_from(MaskMode),
    st.frozensets(st.integers(0, BEGIN - 1), max_size=BEGIN - 1),
)
spans = st.tuples(st.integers(BEGIN, N_VOCAB - 1), st.integers(1, N_VOCAB)).map(
    lambda pair: range(pair[0], min(pair[0] + pair[1], N_VOCAB))
)
# Something must be allowed: a mask that leaves text, or some timestamps.
allowed_somehow = st.builds(Allowed, masks, spans) | st.builds(
    Allowed, masks.filter(lambda mask: mask != NOTHING)
)


def softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = shifted / shifted.sum()
    return shares


@given(logits=logits_of_any_kind, allowed=allowed_somehow)
def test_choose_at_temperature_0_is_the_argmax_of_the_allowed_tokens(
    logits: Logits, allowed: Allowed
) -> None:
    filtered = apply(logits, allowed, BEGIN)
    choice = choose(logits, allowed, BEGIN)
    assert filtered[choice.token] == filtered.max()
    assert choice.logprob == pytest.approx(math.log(softmax(filtered).max()), abs=1e-5)


@given(
    logits=logits_of_any_kind,
    allowed=allowed_somehow,
    temperature=st.sampled_from([0.0, 1e-3, 0.2, 1.0, 5.0]),
    seed=st.integers(0, 2**31),
    position=st.integers(0, 447),
)
def test_choose_never_returns_a_forbidden_token(
    logits: Logits, allowed: Allowed, temperature: float, seed: int, position: int
) -> None:
    choice = choose(logits, allowed, BEGIN, Sampling(temperature, seed), position)
    assert np.isfinite(apply(logits, allowed, BEGIN)[choice.token])
    assert choice.logprob <= 1e-6


@given(logits=logits_of_any_kind, seed=st.integers(0, 2**31), position=st.integers(0, 447))
def test_choose_is_deterministic_per_seed_and_position(
    logits: Logits, seed: int, position: int
) -> None:
    sampling = Sampling(1.0, seed)
    first = choose(logits, Allowed(EVERYTHING), BEGIN, sampling, position)
    assert choose(logits.copy(), Allowed(EVERYTHING), BEGIN, sampling, position) == first


@pytest.mark.parametrize("what", ["seed", "position"])
def test_choose_differs_between_seeds_and_positions(what: str) -> None:
    flat = np.zeros(N_VOCAB, np.float32)
    chosen = {
        choose(flat, Allowed(EVERYTHING), BEGIN, Sampling(1.0, seed), position).token
        for seed, position in ((i, 0) if what == "seed" else (0, i) for i in range(100))
    }
    assert chosen == set(range(BEGIN))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
def test_samples_follow_the_softmax_at_their_temperature(temperature: float) -> None:
    logits = np.linspace(0, 3, N_VOCAB, dtype=np.float32)
    n_samples = 4000
    expected = softmax(logits[:BEGIN] / temperature)
    found = np.zeros(BEGIN)
    for position in range(n_samples):
        allowed, sampling = Allowed(EVERYTHING), Sampling(temperature, 7)
        found[choose(logits, allowed, BEGIN, sampling, position).token] += 1 / n_samples
    # Four standard deviations of a proportion of n_samples.
    assert np.abs(found - expected).max() < 4 * 0.5 / math.sqrt(n_samples)


def test_the_logprob_of_a_sampled_token_is_at_temperature_1() -> None:
    """As in openai/whisper: the temperature changes what is chosen, not how likely it was."""
    logits = np.linspace(-1, 1, N_VOCAB, dtype=np.float32)
    for position in range(20):
        choice = choose(logits, Allowed(EVERYTHING), BEGIN, Sampling(3.0, 1), position)
        assert choice.logprob == pytest.approx(
            math.log(softmax(logits[:BEGIN])[choice.token]), abs=1e-5
        )


@settings(max_examples=50)
@given(logits=logits_of_any_kind)
def test_sampling_at_low_temperature_approaches_greedy(logits: Logits) -> None:
    logits = logits + 10 * np.arange(N_VOCAB, dtype=np.float32)  # no ties
    cold = choose(logits, Allowed(EVERYTHING), BEGIN, Sampling(1e-3, 3), 5)
    assert cold.token == choose(logits, Allowed(EVERYTHING), BEGIN, GREEDY).token


def test_timestamps_together_beat_one_better_text_token() -> None:
    logits = np.full(N_VOCAB, -9, np.float32)
    logits[3], logits[BEGIN:] = 1.0, 0.0  # eight timestamps of exp(0) against one exp(1)
    timed = Allowed(EVERYTHING, range(BEGIN, N_VOCAB))
    assert choose(logits, timed, BEGIN).token == BEGIN
    logits[3] = 3.0
    assert choose(logits, timed, BEGIN).token == 3


@given(logits=logits_of_any_kind, allowed=allowed_somehow, n_best=st.integers(1, N_VOCAB + 3))
def test_the_best_are_the_most_probable_and_the_first_is_the_greedy_choice(
    logits: Logits, allowed: Allowed, n_best: int
) -> None:
    found = best(logits, allowed, BEGIN, n_best)
    filtered = apply(logits, allowed, BEGIN)
    possible = [token for token in range(N_VOCAB) if filtered[token] > -np.inf]
    expected = sorted(possible, key=lambda token: (-filtered[token], token))[:n_best]
    assert [choice.token for choice in found] == expected
    assert found[0] == choose(logits, allowed, BEGIN)
    with np.errstate(divide="ignore"):
        logprobs = np.log(softmax(filtered))
    for choice in found:
        if logprobs[choice.token] > -np.inf:
            assert choice.logprob == pytest.approx(logprobs[choice.token], abs=1e-4)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    length=st.sampled_from([0, 1, 5, 255, 256, 257, 1024, 3000]),
    n_highest=st.sampled_from([1, 2, 3, 4, 6, 11, 12, 13]),
    n_values=st.sampled_from([2, 5, 100, 10**6]),
    share=st.sampled_from([0.0, 0.002, 0.5, 1.0]),
)
def test_the_highest_are_the_first_of_all_in_order(
    seed: int, length: int, n_highest: int, n_values: int, share: float
) -> None:
    """Many equals and many that are forbidden among them, however long it is."""
    random = np.random.default_rng(seed)
    values = random.integers(0, n_values, length).astype(np.float32)
    values[random.random(length) > share] = -np.inf
    expected = [int(i) for i in np.argsort(-values, kind="stable") if values[i] > -np.inf]
    assert highest(values, n_highest).tolist() == expected[:n_highest]


@given(
    arrays(
        np.float32,
        st.integers(1, 30),
        elements=st.floats(-80, 80, width=32) | st.just(-np.inf),
    )
)
def test_log_sum_exp_is_the_logarithm_of_the_sum(logits: Logits) -> None:
    with np.errstate(divide="ignore"):
        expected = np.log(np.exp(logits.astype(np.float64)).sum())
    assert log_sum_exp(logits) == pytest.approx(expected, abs=1e-5, rel=1e-6)


@pytest.mark.parametrize("shift", [-3e38, -1e4, 1e4, 3e38])
def test_log_sum_exp_neither_overflows_nor_vanishes(shift: float) -> None:
    assert log_sum_exp(np.full(4, shift, np.float32)) == pytest.approx(shift + math.log(4))


def test_log_sum_exp_of_nothing_is_minus_infinity() -> None:
    assert log_sum_exp(np.full(3, -np.inf, np.float32)) == -math.inf
    assert log_sum_exp(np.zeros(0, np.float32)) == -math.inf


@given(logits_of_any_kind)
def test_probabilities_are_the_softmax(logits: Logits) -> None:
    found = [probability(logits, token) for token in range(N_VOCAB)]
    np.testing.assert_allclose(found, softmax(logits), atol=1e-5)
