"""Laws of the audio context of a window, for every option and model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.decoding.audio_context import (
    BUCKET,
    N_MERGED_POSITIONS,
    context_policy,
    token_limit,
)
from batched_whisper.errors import OptionError

FULL = 1500
PER_POSITION = 320  # samples
lengths = st.integers(0, FULL * PER_POSITION)
MEASURED, NOT_MEASURED = "openai/whisper-base", "openai/whisper-large-v3"


@given(lengths, st.sampled_from([MEASURED, NOT_MEASURED]))
def test_a_fitted_audio_context_covers_the_window_and_its_margin(n: int, model: str) -> None:
    found = context_policy("fit", model, FULL).positions(n)
    assert found == FULL or found * PER_POSITION >= n + 0.5 * 16_000
    assert found <= FULL
    assert found == FULL or found % BUCKET == 0


@given(lengths)
def test_a_fitted_audio_context_is_cheaper_than_full_or_is_full(n: int) -> None:
    found = context_policy("fit", MEASURED, FULL).positions(n)
    assert found == FULL or found + N_MERGED_POSITIONS < FULL


@given(lengths, lengths)
def test_audio_context_is_monotonic_in_the_length(a: int, b: int) -> None:
    policy = context_policy("fit", MEASURED, FULL)
    short, long = sorted((a, b))
    assert policy.positions(short) <= policy.positions(long)


def test_audio_context_auto_fits_measured_models_only() -> None:
    second = 16_000
    assert context_policy("auto", MEASURED, FULL).positions(second) < 200
    assert context_policy("auto", NOT_MEASURED, FULL).positions(second) == FULL
    assert context_policy("full", MEASURED, FULL).positions(second) == FULL


def test_audio_context_fit_uses_a_larger_margin_for_unmeasured_models() -> None:
    n = 5 * 16_000
    fitted = [context_policy("fit", each, FULL).positions(n) for each in (MEASURED, NOT_MEASURED)]
    assert fitted[0] < fitted[1] < FULL


@given(lengths, st.integers(1, FULL))
def test_a_number_as_audio_context_applies_to_every_window_that_fits(n: int, fixed: int) -> None:
    for option in (fixed, str(fixed)):
        found = context_policy(option, NOT_MEASURED, FULL).positions(n)
        assert found == max(fixed, -(-n // PER_POSITION))


@pytest.mark.parametrize("option", ["tight", "", 0, -1, FULL + 1, "1501", "1.5"])
def test_an_invalid_audio_context_is_rejected(option: str | int) -> None:
    with pytest.raises(OptionError, match="audio_context"):
        context_policy(option, MEASURED, FULL)


def test_token_limit_is_above_the_rate_of_speech() -> None:
    assert token_limit(0, 16_000) == 25
    assert token_limit(10 * 16_000, 16_000) == 175
