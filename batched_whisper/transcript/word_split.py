"""From tokens to the words that they spell, by openai/whisper's rules (``tokenizer.py``).

In languages written without spaces a word is as many tokens as make whole characters.
Knows writing, and nothing of time. The words of a text, put together, are the text.
"""

from __future__ import annotations

import codecs
import string
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace

from batched_whisper.tokens.languages import WITHOUT_SPACES

OPENING = frozenset("\"'“¿([{-")
"""Punctuation that belongs to the word after it, where a space comes before."""
CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
"""Punctuation that belongs to the word before it."""

DecodeBytes = Callable[[Iterable[int]], bytes]


@dataclass(frozen=True)
class WordTokens:
    """A word and its tokens, ``first`` to ``last`` (exclusive) of the text's.

    Punctuation that was added to it is in its text, but not among its tokens: it is not said.
    Its text begins at the token ``begin`` and ends where that of the next word begins.
    """

    text: str
    begin: int
    first: int
    last: int
    after_pause: bool = False
    """Whether it begins the text, or punctuation stands before it."""

    def moved(self, n_tokens: int) -> WordTokens:
        """The same word where so many tokens come before."""
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
    """The words of a text with their punctuation.

    Args:
        tokens: of text alone.
        language: the code of what it is written in.
        decode_bytes: gives the UTF-8 bytes of tokens.
    """
    pieces = _characters(tokens, decode_bytes)
    if language not in WITHOUT_SPACES:
        pieces = _spaced(pieces)
    return tuple(_closed(_opened(pieces)))


def _characters(tokens: Sequence[int], decode_bytes: DecodeBytes) -> list[WordTokens]:
    """As few tokens as make whole characters; what never does comes out as U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces, text, first = list[WordTokens](), "", 0
    for last, token in enumerate(tokens, start=1):
        at_end = last == len(tokens)
        text += decoder.decode(decode_bytes([token]), at_end)
        if at_end or not decoder.getstate()[0]:
            pieces.append(WordTokens(text, first, first, last))
            text, first = "", last
    return pieces


def _spaced(pieces: list[WordTokens]) -> list[WordTokens]:
    """A word goes on until a space, or until punctuation."""
    words = list[WordTokens]()
    for piece in pieces:
        begins = piece.text.startswith(" ") or _all_among(string.punctuation, piece.text)
        if begins or not words:
            words.append(piece)
        else:
            before = words[-1]
            words[-1] = replace(before, text=before.text + piece.text, last=piece.last)
    return words


def _opened(pieces: list[WordTokens]) -> list[WordTokens]:
    """Opening punctuation goes to the word after it."""
    words, held, begin = list[WordTokens](), "", 0
    for i, piece in enumerate(pieces):
        is_last = i == len(pieces) - 1
        if piece.text.startswith(" ") and _all_among(OPENING, piece.text.strip()) and not is_last:
            begin = begin if held else piece.begin
            held += piece.text
        elif held:
            words.append(replace(piece, text=held + piece.text, begin=begin, after_pause=True))
            held = ""
        else:
            words.append(piece)
    return words


def _closed(pieces: list[WordTokens]) -> list[WordTokens]:
    """Closing punctuation goes to the word before it."""
    words, after_pause = list[WordTokens](), True
    for piece in pieces:
        if words and _all_among(CLOSING, piece.text) and not words[-1].text.endswith(" "):
            words[-1] = replace(words[-1], text=words[-1].text + piece.text)
            after_pause = True
        else:
            words.append(replace(piece, after_pause=after_pause or piece.after_pause))
            after_pause = False
    return words


def _all_among(marks: Container[str], text: str) -> bool:
    return bool(text) and all(letter in marks for letter in text)
