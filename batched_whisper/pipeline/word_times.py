"""Times a window's words from the engine's alignment.

Converts the engine's tokens for ``transcript.word_timing``, which interprets attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from batched_whisper.batching.decode_request import DecodedTokens
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.transcript.silence import Pause
from batched_whisper.transcript.word_timing import AlignedTokens, time_words
from batched_whisper.types import Word


def time_window_words(
    model: ModelTokens,
    decoded: DecodedTokens,
    pauses: Sequence[Pause],
    start_s: float,
    end_s: float,
) -> tuple[Word, ...]:
    """Return a window's words, with their times in the recording; none if it was not aligned.

    Args:
        model: the model's tokens.
        decoded: the window's tokens and their alignment.
        pauses: the window's pauses.
        start_s: its start in the recording, in seconds.
        end_s: its end in the recording, in seconds.
    """
    aligned, alignment, language = decoded.aligned, decoded.alignment, decoded.language
    if aligned is None or alignment is None:
        return ()
    text = AlignedTokens(
        segments=_texts(model, decoded.tokens),
        language="en" if language is None else model.languages[language.token],
        weights=alignment.weights,
        logprobs=alignment.logprobs,
        n_prompt=aligned.n_prompt,
    )
    return time_words(text, pauses, model.tokenizer.decode_bytes, start_s=start_s, end_s=end_s)


def _texts(model: ModelTokens, tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the tokens of each text between timestamps."""
    begin, eot = model.ids.timestamp_begin, model.ids.eot
    return [
        tuple(token for token in run if token < eot)
        for is_time, run in groupby(tokens, lambda token: token >= begin)
        if not is_time
    ]
