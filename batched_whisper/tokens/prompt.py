"""What the decoder is given before it says its first word.

Knows the order of Whisper's special tokens, as in openai/whisper's decoding.py. Knows nothing of
what is said afterwards.
"""

from __future__ import annotations

from batched_whisper.errors import OptionError
from batched_whisper.tokens.languages import LANGUAGES
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Task


def sot_sequence(
    tokenizer: Tokenizer,
    language: str | None,
    task: str = Task.TRANSCRIBE,
    timestamps: bool = False,
) -> tuple[int, ...]:
    """The tokens from the start of the transcript to the first one that is sampled.

    Args:
        tokenizer: the checkpoint's.
        language: its code; may be None for English-only checkpoints.
        task: transcribe or translate.
        timestamps: whether the model may time its segments.

    Raises:
        OptionError: the checkpoint does not know the language or the task.
    """
    ending = () if timestamps else (tokenizer.no_timestamps,)
    if not tokenizer.multilingual:
        _check_english_only(language, task)
        return (tokenizer.sot, *ending)
    tasks = {Task.TRANSCRIBE: tokenizer.transcribe, Task.TRANSLATE: tokenizer.translate}
    if task not in list(Task):
        raise OptionError(f"task={task!r}: choose one of transcribe, translate")
    return (tokenizer.sot, _language_token(tokenizer, language), tasks[Task(task)], *ending)


def prompt_tokens(tokenizer: Tokenizer, text: str | None, n_text_ctx: int) -> tuple[int, ...]:
    """The tokens of text that came before the window: none, or ``sot_prev`` and its last part.

    Half of the text context is for the prompt, its mark included; what is older is left out.
    """
    if text is None or not text.strip():
        return ()
    tokens = tokenizer.encode(" " + text.strip())
    return (tokenizer.sot_prev, *tokens[-(n_text_ctx // 2 - 1) :])


def _check_english_only(language: str | None, task: str) -> None:
    if language not in (None, "en"):
        name = LANGUAGES.get(language or "", language)
        raise OptionError(f"this model knows English only, not {name}; use a multilingual one")
    if task != Task.TRANSCRIBE:
        raise OptionError("this model knows English only; use a multilingual one to translate")


def _language_token(tokenizer: Tokenizer, language: str | None) -> int:
    if language is None:
        raise OptionError("a multilingual model needs a language here; detect it first")
    if language not in tokenizer.language_tokens:
        name = LANGUAGES.get(language, language)
        raise OptionError(f"this model has no token for {name}; choose another model or language")
    return tokenizer.language_tokens[language]
