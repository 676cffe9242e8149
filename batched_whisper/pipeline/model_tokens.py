"""A loaded model's tokens, and the rules for decoding them.

Made once when a model is loaded, and shared by all recordings. Knows no audio, no engine and no
window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from batched_whisper.config.fields import Numbers
from batched_whisper.config.options import DecodingOptions
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.errors import OptionError
from batched_whisper.models.catalog import original_repository
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.tokens.tokenizer import Tokenizer

DEFAULT_SET = -1
"""Among suppressed tokens: all tokens that the checkpoint's configuration suppresses."""

_MOST_RULES = 64


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
        self._suppressed = frozenset(checkpoint.suppress_tokens)
        self._suppressed_first = frozenset(checkpoint.begin_suppress_tokens)
        self._rules = lru_cache(_MOST_RULES)(self._new_rules)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of sampled tokens, without their timestamps."""
        begin = self.ids.timestamp_begin
        return self.tokenizer.decode([token for token in tokens if token < begin])

    def rules(self, options: DecodingOptions) -> Rules:
        """Return the rules for these options.

        Raises:
            OptionError: a suppressed token is not in the vocabulary.
        """
        return self._rules(options.timestamps, options.suppress_tokens)

    def _new_rules(self, timestamps: bool, suppress_tokens: Numbers) -> Rules:
        return Rules(
            self.ids,
            suppress=self._chosen(suppress_tokens) | _never_said(self.tokenizer),
            suppress_begin=self._suppressed_first,
            timestamps=timestamps,
        )

    def _chosen(self, suppress_tokens: Numbers) -> frozenset[int]:
        """Return the suppressed tokens; `DEFAULT_SET` (openai/whisper's -1) is the checkpoint's."""
        chosen = set[int]()
        for number in suppress_tokens:
            if number == DEFAULT_SET:
                chosen |= self._suppressed
            elif number in range(self.ids.n_vocab):
                chosen.add(int(number))
            else:
                raise OptionError(
                    f"suppress_tokens: {number:g} is not a token of this model; they are whole "
                    f"numbers from 0 to {self.ids.n_vocab - 1}, and {DEFAULT_SET} for those that "
                    "the checkpoint suppresses"
                )
        return frozenset(chosen)


def _never_said(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that occur in prompts only, as in openai/whisper's SuppressTokens."""
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
