"""The words of a recording's windows: what the engine is asked to align, and what comes of it.

Between the loop, which knows tokens, and ``transcript.word_timing``, which knows attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from batched_whisper.batching.sequence import AlignedText, DecodedTokens
from batched_whisper.tokens.prompt import sot_sequence
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.transcript.silence import Pause
from batched_whisper.transcript.word_timing import AlignedTokens, time_words
from batched_whisper.types import Word


class WindowWords:
    """Aligns the windows of one recording. Immutable: workers and the loop may share it.

    Args:
        tokenizer: the model's.
        languages: its language tokens with their codes; empty for English-only models.
        task: transcribe or translate.
        n_text_ctx: the most tokens that the model takes at once.
    """

    def __init__(
        self, tokenizer: Tokenizer, languages: Mapping[int, str], task: str, n_text_ctx: int
    ) -> None:
        self._tokenizer = tokenizer
        self._languages = languages
        self._task = task
        self._n_text_ctx = n_text_ctx

    def to_align(self, decoded: DecodedTokens) -> AlignedText | None:
        """The text for the aligner, without timestamps and earlier text; None for no text."""
        text = self._text(decoded.tokens)
        if not text:
            return None
        prompt = sot_sequence(self._tokenizer, self._language(decoded), self._task)
        whole = (*prompt, *text, self._tokenizer.eot)
        return AlignedText(whole[: self._n_text_ctx], len(prompt))

    def timed(
        self, decoded: DecodedTokens, pauses: Sequence[Pause], start_s: float, end_s: float
    ) -> tuple[Word, ...]:
        """The words of a window that was aligned, with their times in the recording."""
        alignment, asked = decoded.alignment, self.to_align(decoded)
        if alignment is None or asked is None:
            return ()
        begin = self._tokenizer.timestamp_begin
        segments = [
            self._text(tuple(run))
            for is_time, run in groupby(decoded.tokens, lambda token: token >= begin)
            if not is_time
        ]
        heard = AlignedTokens(
            segments=segments,
            language=self._language(decoded) or "en",
            weights=alignment.weights,
            logprobs=alignment.logprobs,
            n_prompt=asked.n_prompt,
        )
        decode = self._tokenizer.decode_bytes
        return time_words(heard, pauses, decode, start_s=start_s, end_s=end_s)

    def _text(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(token for token in tokens if token < self._tokenizer.eot)

    def _language(self, decoded: DecodedTokens) -> str | None:
        return None if decoded.language is None else self._languages[decoded.language.token]
