"""A phrase said twice in a row: found whatever stands between, and a reason to listen once more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.decoding.fallback import (
    Attempt,
    FallbackPolicy,
    TextMetrics,
    Thresholds,
    Verdict,
    says_twice,
)

FULL, FITTED = 1500, 320
phrases = st.lists(
    st.text("abcdefghij", min_size=3, max_size=9), min_size=4, max_size=9, unique=True
)


@given(before=phrases, phrase=phrases, mark=st.sampled_from([" ", ", ", ". ", " - "]))
def test_it_is_found_in_any_case_and_with_any_punctuation(
    before: list[str], phrase: list[str], mark: str
) -> None:
    said = " ".join(phrase)
    assert says_twice(f"{' '.join(before)} {said}{mark}{said.capitalize()}.")


@pytest.mark.parametrize("twice", ["今日は天気が今日は天気が", "не только он, не только он"])
def test_it_is_found_in_any_script(twice: str) -> None:
    assert says_twice(twice)


@pytest.mark.parametrize("text", ["", "I know, I know.", "Never, never, never!", "bonbons, no, no"])
def test_a_word_or_two_may_be_said_again(text: str) -> None:
    assert not says_twice(text)


def figures(**given: float | bool) -> TextMetrics:
    good: dict[str, float] = {"compression_ratio": 1.3, "avg_logprob": -0.2, "no_speech_prob": 0.0}
    return TextMetrics(**{**good, "ended": True, **given})  # type: ignore[arg-type]


def test_on_a_fitted_context_it_is_heard_again_on_the_full_one_and_then_believed() -> None:
    ladder, verdict = FallbackPolicy(FULL), Thresholds().evaluate(figures(says_twice=True))
    assert verdict is Verdict.SAYS_TWICE
    again = ladder.after(Attempt(FITTED), verdict)
    assert again == Attempt(FULL)
    assert ladder.after(again, verdict) is None


@pytest.mark.parametrize(
    ("worse", "verdict"),
    [
        ({"compression_ratio": 3.0}, Verdict.LOOPS),
        ({"ended": False}, Verdict.ENDLESS),
        ({"avg_logprob": -2.0}, Verdict.UNLIKELY),
    ],
)
def test_what_is_not_to_be_believed_anyway_stays_so(
    worse: dict[str, float], verdict: Verdict
) -> None:
    assert Thresholds().evaluate(figures(says_twice=True, **worse)) is verdict
