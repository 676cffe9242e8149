"""What a model's recordings need to know of it: its tokens, and what it may say.

Made once when a model is loaded, and shared by all of its recordings. Knows no audio, no engine
and no window.
"""

from __future__ import annotations

from collections.abc import Sequence

from batched_whisper.config import DecodingOptions
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.models.catalog import original_repository
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.tokens.tokenizer import Tokenizer


class ModelTokens:
    """A checkpoint's sizes, tokens and rules. Immutable: any thread may use it."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
        self.dimensions = checkpoint.dimensions
        self.repository = original_repository(checkpoint.name)
        self.tokenizer = tokenizer
        self.ids = TokenIds(
            eot=tokenizer.eot,
            timestamp_begin=tokenizer.timestamp_begin,
            n_vocab=checkpoint.dimensions.n_vocab,
            no_speech=tokenizer.no_speech,
        )
        self.languages = {token: code for code, token in tokenizer.language_tokens.items()}
        self._rules = {
            timestamps: Rules(
                self.ids,
                suppress=frozenset(checkpoint.suppress_tokens) | _never_said(tokenizer),
                suppress_begin=frozenset(checkpoint.begin_suppress_tokens),
                timestamps=timestamps,
            )
            for timestamps in (False, True)
        }

    def text(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without their timestamps."""
        begin = self.ids.timestamp_begin
        return self.tokenizer.decode([token for token in tokens if token < begin])

    def rules(self, options: DecodingOptions) -> Rules:
        """What may be said with these options."""
        return self._rules[options.timestamps]


def _never_said(tokenizer: Tokenizer) -> frozenset[int]:
    """Marks that belong to prompts, as openai/whisper's SuppressTokens adds them."""
    marks = (
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
        tokenizer.no_timestamps,
        tokenizer.transcribe,
        tokenizer.translate,
    )
    return frozenset(mark for mark in marks if mark is not None)
