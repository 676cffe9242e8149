"""Splits tokens into words, by openai/whisper's rules (``tokenizer.py``).

In languages without spaces a word is the fewest tokens that form whole characters. The words of a
text, concatenated, are the text. Knows nothing of time.
"""

from __future__ import annotations

import codecs
import string
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace

from batched_whisper.tokens.languages import WITHOUT_SPACES

OPENING = frozenset("\"'“¿([{-")
"""Punctuation that is attached to the next word, if a space precedes it."""
CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
"""Punctuation that is attached to the previous word."""

DecodeBytes = Callable[[Iterable[int]], bytes]


@dataclass(frozen=True)
class WordTokens:
    """A word and its tokens, ``first`` to ``last`` (exclusive) of the text.

    Attached punctuation is part of its text, but not of its tokens, because it is not spoken.
    Its text begins at the token ``begin`` and ends where the text of the next word begins.
    """

    text: str
    begin: int
    first: int
    last: int
    after_pause: bool = False
    """Whether it is the first word, or follows punctuation."""

    def moved(self, n_tokens: int) -> WordTokens:
        """Return the same word shifted by ``n_tokens``."""
        return WordTokens(
            self.text,
            self.begin + n_tokens,
            self.first + n_tokens,
            self.last + n_tokens,
            self.after_pause,
        )


def split_words(
    tokens: Sequence[int], language: str, decode_bytes: DecodeBytes
) -> tuple[WordTokens, ...]:
    """Split tokens into words with their punctuation.

    Args:
        tokens: text tokens, without timestamps and special tokens.
        language: code of the language of the text.
        decode_bytes: converts tokens to UTF-8 bytes.
    """
    pieces = _characters(tokens, decode_bytes)
    if language not in WITHOUT_SPACES:
        pieces = _join_at_spaces(pieces)
    return tuple(_attach_closing(_attach_opening(pieces)))


def _characters(tokens: Sequence[int], decode_bytes: DecodeBytes) -> list[WordTokens]:
    """Group the fewest tokens that form whole characters; invalid bytes become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces, text, first = list[WordTokens](), "", 0
    for last, token in enumerate(tokens, start=1):
        at_end = last == len(tokens)
        text += decoder.decode(decode_bytes([token]), at_end)
        if at_end or not decoder.getstate()[0]:
            pieces.append(WordTokens(text, first, first, last))
            text, first = "", last
    return pieces


def _join_at_spaces(pieces: list[WordTokens]) -> list[WordTokens]:
    """Join pieces into words, which end before a space or punctuation."""
    words = list[WordTokens]()
    for piece in pieces:
        begins = piece.text.startswith(" ") or _consists_of(string.punctuation, piece.text)
        if begins or not words:
            words.append(piece)
        else:
            before = words[-1]
            words[-1] = replace(before, text=before.text + piece.text, last=piece.last)
    return words


def _attach_opening(pieces: list[WordTokens]) -> list[WordTokens]:
    """Attach opening punctuation to the next word."""
    words, held, begin = list[WordTokens](), "", 0
    for i, piece in enumerate(pieces):
        is_last = i == len(pieces) - 1
        if piece.text.startswith(" ") and _consists_of(OPENING, piece.text.strip()) and not is_last:
            begin = begin if held else piece.begin
            held += piece.text
        elif held:
            words.append(replace(piece, text=held + piece.text, begin=begin, after_pause=True))
            held = ""
        else:
            words.append(piece)
    return words


def _attach_closing(pieces: list[WordTokens]) -> list[WordTokens]:
    """Attach closing punctuation to the previous word."""
    words, after_pause = list[WordTokens](), True
    for piece in pieces:
        if words and _consists_of(CLOSING, piece.text) and not words[-1].text.endswith(" "):
            words[-1] = replace(words[-1], text=words[-1].text + piece.text)
            after_pause = True
        else:
            words.append(replace(piece, after_pause=after_pause or piece.after_pause))
            after_pause = False
    return words


def _consists_of(marks: Container[str], text: str) -> bool:
    return bool(text) and all(letter in marks for letter in text)
