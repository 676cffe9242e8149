"""Builds the tokens that the decoder is given before the first sampled token.

Knows the order of Whisper's special tokens, as in openai/whisper's ``decoding.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from batched_whisper.errors import OptionError
from batched_whisper.tokens.languages import LANGUAGES
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Task

_MAX_TEMPERATURE = 0.5
"""The highest temperature of a text that conditions later windows; openai/whisper's value."""


def sot_sequence(
    tokenizer: Tokenizer,
    language: str | None,
    task: str = Task.TRANSCRIBE,
    timestamps: bool = False,
) -> tuple[int, ...]:
    """Return the tokens from the start of the transcript up to the first sampled one.

    Args:
        tokenizer: of the checkpoint.
        language: code of the language; may be None for English-only checkpoints.
        task: transcribe or translate.
        timestamps: whether the model predicts timestamps.

    Raises:
        OptionError: the checkpoint does not support the language or the task.
    """
    ending = () if timestamps else (tokenizer.no_timestamps,)
    if not tokenizer.multilingual:
        _check_english_only(language, task)
        return (tokenizer.sot, *ending)
    tasks = {Task.TRANSCRIBE: tokenizer.transcribe, Task.TRANSLATE: tokenizer.translate}
    if task not in list(Task):
        raise OptionError(f"task={task!r}: choose one of transcribe, translate")
    return (tokenizer.sot, _language_token(tokenizer, language), tasks[Task(task)], *ending)


class PreviousText:
    """Collects the text before a window, if windows are conditioned on previous text.

    As in openai/whisper's ``transcribe.py``: the caller's prompt, then the tokens of each window
    with its timestamps; all of it is dropped after a window with a temperature above 0.5. Hotwords
    come before it, as in faster-whisper, and are never dropped. Together they have half of the text
    context, ``sot_prev`` included; the oldest text is left out first.

    Args:
        tokenizer: of the checkpoint.
        prompt: text that precedes the recording.
        n_text_ctx: maximum number of tokens of the decoder.
        hotwords: words to expect in every window.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str | None,
        n_text_ctx: int,
        hotwords: str | None = None,
    ) -> None:
        self._mark = tokenizer.sot_prev
        n_kept = n_text_ctx // 2 - 1
        self._hotwords = _encoded(tokenizer, hotwords)[:n_kept]
        self._n_kept = n_kept - len(self._hotwords)
        self._tokens = self._last(_encoded(tokenizer, prompt))

    def prefix(self) -> tuple[int, ...]:
        """Return the prompt of the next window: none, or ``sot_prev`` and the last text."""
        tokens = (*self._hotwords, *self._tokens)
        return (self._mark, *tokens) if tokens else ()

    def add(self, tokens: Sequence[int], temperature: float) -> None:
        """Add the tokens of a window; those of a silent window are empty and change nothing."""
        if not tokens:
            return
        self._tokens = (
            self._last((*self._tokens, *tokens)) if temperature <= _MAX_TEMPERATURE else ()
        )

    def _last(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(tokens[max(0, len(tokens) - self._n_kept) :])


def _encoded(tokenizer: Tokenizer, text: str | None) -> tuple[int, ...]:
    text = "" if text is None else text.strip()
    return tuple(tokenizer.encode(" " + text)) if text else ()


def _check_english_only(language: str | None, task: str) -> None:
    if language not in (None, "en"):
        name = LANGUAGES.get(language or "", language)
        raise OptionError(f"this model supports English only, not {name}; use a multilingual one")
    if task != Task.TRANSCRIBE:
        raise OptionError("this model supports English only; use a multilingual one to translate")


def _language_token(tokenizer: Tokenizer, language: str | None) -> int:
    if language is None:
        raise OptionError("a multilingual model needs a language; detect it first")
    if language not in tokenizer.language_tokens:
        name = LANGUAGES.get(language, language)
        raise OptionError(f"this model has no token for {name}; choose another model or language")
    return tokenizer.language_tokens[language]
