"""A request is data: a copy that went through bytes is equal, and is decoded to the same tokens."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from chancy_windows import ChancyEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_windows import (
    CONTEXT,
    IDS,
    LANGUAGES,
    NO_SPEECH,
    RULES,
    SOT,
    TRANSCRIBE,
    UntilClosed,
    features_of,
    window,
)

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import AlignmentPrompt, DecodedTokens, DecodeRequest
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.fallback import Attempt, FallbackPolicy, Thresholds, Verdict
from batched_whisper.decoding.rules import Rules

FULL = 3 * CONTEXT
TIMED = Rules(
    IDS,
    suppress=frozenset([SOT, TRANSCRIBE, NO_SPEECH]),
    suppress_begin=frozenset(),
    timestamps=True,
)
requests = st.builds(
    DecodeRequest,
    audio=st.integers(0, 99).map(features_of),
    sot=st.just(SOT),
    after_language=st.just((TRANSCRIBE,)),
    rules=st.sampled_from([RULES, TIMED, TIMED.with_sound_until(0.6)]),
    max_tokens=st.integers(1, 12),
    first=st.builds(
        Attempt,
        st.sampled_from([CONTEXT, FULL]),
        st.sampled_from([0.0, 0.4]),
        st.none() | st.integers(1, 9),
    ),
    prefix=st.sampled_from([(), (7, 8, 9)]),
    language=st.none() | st.sampled_from(sorted(LANGUAGES)),
    languages=st.just(LANGUAGES),
    fallback=st.just(FallbackPolicy(FULL, (0.0, 0.4, 0.8))),
    thresholds=st.builds(Thresholds, logprob=st.sampled_from([None, -1.0, -0.1])),
    seed=st.integers(0, 3),
    beams=st.builds(Beams, st.integers(1, 4)),
)


@dataclass
class CountingText:
    """Records the requested texts."""

    asked: list[tuple[int, ...]] = field(default_factory=list)

    def text(self, tokens: Sequence[int], /) -> str:
        self.asked.append(tuple(tokens))
        return " ".join(f"word{token}" for token in tokens)


def decoded(
    requests: list[DecodeRequest], detokenizer: CountingText | None = None
) -> list[DecodedTokens]:
    loop = EngineLoop(
        ChancyEngine(8),
        max_batch_size=8,
        policy=UntilClosed(),
        clock=ManualClock(),
        detokenizer=detokenizer or CountingText(),
    )
    futures = [loop.submit(request) for request in requests]
    loop.close()
    return [future.result(timeout=0) for future in futures]


def copied(request: DecodeRequest) -> DecodeRequest:
    copy: DecodeRequest = pickle.loads(pickle.dumps(request))
    return copy


@settings(max_examples=40, deadline=None)
@given(st.lists(requests, min_size=1, max_size=6))
def test_a_copy_through_bytes_is_equal_and_decodes_to_the_same_tokens(
    originals: list[DecodeRequest],
) -> None:
    copies = [copied(request) for request in originals]
    assert copies == originals
    assert [hash(copy) for copy in copies] == [hash(original) for original in originals]
    assert decoded(copies) == decoded(originals)


OTHER: dict[str, Any] = {
    "audio": features_of(1),
    "sot": SOT + 1,
    "after_language": (),
    "rules": TIMED,
    "max_tokens": 7,
    "first": Attempt(FULL),
    "prefix": (1,),
    "language": min(LANGUAGES),
    "languages": LANGUAGES,
    "fallback": FallbackPolicy(FULL),
    "thresholds": Thresholds(logprob=None),
    "max_tokens_asked": 7,
    "alignment": AlignmentPrompt((), 9),
    "seed": 1,
    "beams": Beams(2),
}


@pytest.mark.parametrize("name", list(DecodeRequest.__dataclass_fields__))
def test_requests_that_differ_in_anything_are_not_equal(name: str) -> None:
    assert replace(window(0), **{name: OTHER[name]}) != window(0)


def test_audio_is_compared_by_its_shape_and_values() -> None:
    flat, square = np.zeros(4, np.float32), np.zeros((2, 2), np.float32)
    assert window(0, audio=flat) != window(0, audio=square)
    assert window(0, audio=flat) == window(0, audio=flat.copy())


@settings(max_examples=40, deadline=None)
@given(st.lists(requests, min_size=1, max_size=6))
def test_every_attempts_text_is_made_once(originals: list[DecodeRequest]) -> None:
    detokenizer = CountingText()
    results = decoded(originals, detokenizer)
    assert len(detokenizer.asked) <= sum(result.decodes for result in results)
    for result in results:
        assert result.tokens in detokenizer.asked
        assert result.text == CountingText().text(result.tokens)


def test_a_text_that_the_caller_limited_is_not_endless() -> None:
    """A text cut at the package's own limit is decoded again, with the full context."""
    request = window(
        3, max_tokens=2, fallback=FallbackPolicy(FULL, (0.0,)), thresholds=Thresholds(logprob=None)
    )
    [of_ours] = decoded([request])
    [of_callers] = decoded([replace(request, max_tokens_asked=2)])
    assert (of_ours.verdict, of_ours.decodes) == (Verdict.ENDLESS, 2)
    assert (of_callers.verdict, of_callers.decodes) == (Verdict.ACCEPTED, 1)
