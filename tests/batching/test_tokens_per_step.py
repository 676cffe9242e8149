"""Multi-step decoding: the engine gets the data that it needs, and no unnecessary calls."""

from __future__ import annotations

import pytest
from chancy_windows import ChancyEngine
from scripted_windows import (
    ENGLISH,
    GERMAN,
    LANGUAGES,
    RULES,
    Asked,
    UntilClosed,
    either_order,
    submit,
    tries,
    window,
)

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import DecodedTokens
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.fallback import Attempt

N_SLOTS = 8


def decoded(
    tokens_per_step: int, tasks: list[Asked], async_steps: bool = False
) -> tuple[list[DecodedTokens], int]:
    """Return the tokens, and the number of steps."""
    engine = ChancyEngine(N_SLOTS, tokens_per_step, async_steps)
    loop = EngineLoop(engine, max_batch_size=N_SLOTS, policy=UntilClosed(), clock=ManualClock())
    futures = [submit(loop, task) for task in tasks]
    loop.close()
    return [future.result(timeout=0) for future in futures], len(engine.n_rows)


@either_order
@pytest.mark.parametrize("tokens_per_step", [2, 3, 8, 500])
def test_everything_is_as_with_one_token_per_call(tokens_per_step: int, async_steps: bool) -> None:
    """Languages given, detected and shared by windows; rejected attempts; sampling."""

    def tasks() -> list[Asked]:
        shared = SharedLanguage()
        warm = Attempt(30, temperature=0.7)
        return [
            window(0, language=GERMAN, languages=LANGUAGES),
            (window(1, languages=LANGUAGES), shared),
            (window(2, languages=LANGUAGES, prefix=(5, 6)), shared),
            window(3, languages=LANGUAGES, max_tokens=3),
            window(4, first=warm, seed=3, max_tokens=30),
            window(5, fallback=tries(warm, warm)),
            window(6, first=Attempt(30, max_tokens=2)),
        ]

    one_by_one, n_steps = decoded(1, tasks())
    together, n_calls = decoded(tokens_per_step, tasks(), async_steps)
    assert n_calls < n_steps
    assert {each.language and each.language.token for each in together} <= {None, ENGLISH, GERMAN}
    for found, expected in zip(together, one_by_one, strict=True):
        assert found.tokens == expected.tokens
        assert found.sum_logprob == pytest.approx(expected.sum_logprob)
        assert found.no_speech_prob == expected.no_speech_prob
        assert (found.language, found.ended) == (expected.language, expected.ended)
        assert (found.attempt, found.decodes) == (expected.attempt, expected.decodes)


@pytest.mark.parametrize("language", [GERMAN, None])
def test_it_takes_one_call_for_each_so_many_tokens(language: int | None) -> None:
    """One more step if the language is detected first."""
    some = window(0, rules=RULES, max_tokens=7, language=language, languages=LANGUAGES)
    [found], _ = decoded(1, [some])
    said = len(found.tokens) + found.ended
    for tokens_per_step in (2, 3, 7, 100):
        some = window(0, rules=RULES, max_tokens=7, language=language, languages=LANGUAGES)
        _, n_calls = decoded(tokens_per_step, [some])
        assert n_calls == (language is None) - (-said // tokens_per_step)
