"""Laws of the verdict: which texts are accepted, and what is output for a rejected one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.decoding.fallback import TextMetrics, Thresholds, Verdict


def figures(avg_logprob: float, no_speech_prob: float = 0.0) -> TextMetrics:
    return TextMetrics(1.3, avg_logprob, no_speech_prob, ended=True)


@given(avg_logprob=st.floats(-9, 0), threshold=st.floats(-9, 0) | st.none())
def test_no_threshold_of_log_probability_deletes_what_the_default_writes_down(
    avg_logprob: float, threshold: float | None
) -> None:
    heard = figures(avg_logprob)
    if Thresholds().evaluate(heard).has_text:
        assert Thresholds(logprob=threshold).evaluate(heard).has_text


@pytest.mark.parametrize("threshold", [0.0, -0.05, -0.5, -1.0])
def test_a_stricter_threshold_disbelieves_more_and_calls_no_more_of_it_noise(
    threshold: float,
) -> None:
    strict = Thresholds(logprob=threshold)
    assert strict.evaluate(figures(threshold - 0.01)) is Verdict.UNLIKELY
    assert strict.evaluate(figures(-2.0)) is Verdict.UNLIKELY
    assert strict.evaluate(figures(-2.01)) is Verdict.NOISE


def test_a_text_that_the_caller_believes_is_no_noise() -> None:
    assert Thresholds(logprob=-5.0).evaluate(figures(-4.9)) is Verdict.ACCEPTED


@pytest.mark.parametrize("avg_logprob", [-0.2, -1.5, -9.0])
def test_without_a_threshold_of_log_probability_any_is_believed(avg_logprob: float) -> None:
    unlooked = Thresholds(logprob=None)
    assert unlooked.evaluate(figures(avg_logprob)) is Verdict.ACCEPTED
    # As in openai/whisper, where it then says nothing against silence either.
    assert unlooked.evaluate(figures(avg_logprob, no_speech_prob=0.7)) is Verdict.SILENCE


def test_without_a_threshold_of_compression_no_text_repeats_itself() -> None:
    heard = TextMetrics(9.0, -0.2, 0.0, ended=True)
    assert Thresholds().evaluate(heard) is Verdict.LOOPS
    assert Thresholds(compression_ratio=None).evaluate(heard) is Verdict.ACCEPTED


def test_without_a_threshold_of_no_speech_nothing_is_silence() -> None:
    heard = figures(-1.5, no_speech_prob=1.0)
    assert Thresholds().evaluate(heard) is Verdict.SILENCE
    assert Thresholds(no_speech=None).evaluate(heard) is Verdict.UNLIKELY
