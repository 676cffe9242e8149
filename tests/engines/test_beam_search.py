"""Beam search on real engines against a plain search on the NumPy Whisper.

The plain search has no slots, copies or steps, and the NumPy Whisper has no caches: it computes
each whole text again.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache

import numpy as np
import pytest
from installed import EXACT, Installed
from naive_beams import Heard as Found
from naive_beams import Text, naive_beam_search
from tiny_whisper import BEGIN, IDS, Heard, reference_logits

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.policy import FixedWait
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.decoding.rules import Allowed, MaskMode, Rules, TokenMask
from batched_whisper.decoding.sampling import apply, log_sum_exp

SOT, TRANSCRIBE = 151, 152
MAX_TOKENS = 10


class Lively(Rules):
    """Rules that forbid repeating a token, as noise would, and allow few tokens later."""

    def next(self, sampled: Sequence[int]) -> Allowed:
        n = len(sampled)
        words = {
            token for token in range(IDS.eot) if (token + n) % (9 if n < 6 else 60) == 0
        } - set(sampled)
        words |= {IDS.eot} if n > 5 else set()
        times = super().next(sampled).timestamps if n % 4 == 0 else range(0)
        return Allowed(TokenMask(MaskMode.ONLY, frozenset(words)), times)


RULES = {
    timed: Lively(IDS, suppress=frozenset(), suppress_begin=frozenset(), timestamps=timed)
    for timed in (False, True)
}
WINDOWS = (
    (Heard(0, 31), Beams(5), False),
    (Heard(4, 31), Beams(1), True),
    (Heard(3, 60), Beams(3, patience=2.0), True),
    (Heard(3, 120), Beams(2, length_penalty=1.0), False),
    (Heard(7, 60), Beams(4, length_penalty=0.0), True),
)


def task(heard: Heard, beams: Beams, timed: bool) -> DecodeRequest:
    return DecodeRequest(
        audio=heard.features,
        sot=SOT,
        after_language=(TRANSCRIBE,),
        rules=RULES[timed],
        max_tokens=MAX_TOKENS,
        first=Attempt(heard.audio_context),
        beams=beams,
    )


@cache
def expected(heard: Heard, beams: Beams, timed: bool) -> Found:
    def following(text: Text) -> dict[int, float]:
        logits = reference_logits(heard, (SOT, TRANSCRIBE, *text))[-1]
        filtered = apply(logits, RULES[timed].next(text), BEGIN)
        logprobs = filtered - log_sum_exp(filtered)
        return {token: float(p) for token, p in enumerate(logprobs) if p > -np.inf}

    return naive_beam_search(
        following,
        IDS.eot,
        size=beams.size,
        patience=beams.patience,
        length_penalty=beams.length_penalty,
        max_tokens=MAX_TOKENS,
    )


def together(
    installed: Installed, tasks: list[DecodeRequest], max_batch_size: int
) -> list[DecodedTokens]:
    loop = EngineLoop(
        installed.make(max_batch_size, None),
        max_batch_size=max_batch_size,
        policy=FixedWait(60_000),  # until it is closed, by when all are there
        clock=ManualClock(),
    )
    futures: list[Future[DecodedTokens]] = [loop.submit(each) for each in tasks]
    loop.close()
    return [future.result(timeout=0) for future in futures]


@pytest.mark.parametrize("installed", EXACT, ids=lambda installed: installed.name)
@pytest.mark.parametrize("max_batch_size", [5, 7, 18])
def test_beam_search_equals_the_reference_search(installed: Installed, max_batch_size: int) -> None:
    """So the results do not depend on other windows or on the batch size."""
    results = together(installed, [task(*window) for window in WINDOWS], max_batch_size)
    for window, found in zip(WINDOWS, results, strict=True):
        plain = expected(*window)
        assert (found.tokens, found.ended) == (plain.text, plain.ended), window
        assert found.sum_logprob == pytest.approx(plain.total, abs=1e-3)


def test_beam_search_differs_from_greedy_on_these_windows() -> None:
    """Otherwise these tests would show nothing."""
    searched = [window for window in WINDOWS if window[1].size > 1]
    greedy = [expected(heard, Beams(1), timed).text for heard, _, timed in searched]
    assert all(
        expected(*window).text != text for window, text in zip(searched, greedy, strict=True)
    )
    assert {expected(*window).ended for window in WINDOWS} == {True, False}
