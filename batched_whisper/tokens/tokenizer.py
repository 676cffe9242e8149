"""Converts text to token IDs and back, for one checkpoint.

Reads Whisper's byte-pair vocabulary and the IDs of its special tokens from the files of the
checkpoint: the IDs differ between English-only and multilingual checkpoints, and large-v3 has one
more language. The rules of decoding are in `batched_whisper.decoding`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers

from batched_whisper.errors import ModelFileMissing, UnsupportedCheckpoint
from batched_whisper.tokens.languages import LANGUAGES

N_TIMESTAMPS = 1501
"""Timestamp tokens: one per 20 ms from 0.00 to 30.00 s, both included."""

MULTILINGUAL_VOCABULARY = 51_865
"""The smallest vocabulary of a multilingual checkpoint; the English-only ones have one less."""

_LETTERS = '"#()*+/:;<=>@[\\]^_`{|}~「」『』'
_GROUPS = "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪"
_MUSIC = "♩♪♫♬♭♮♯"  # their first token alone already identifies them


class Tokenizer:
    """The tokenizer of one checkpoint. Immutable, so threads may share it.

    Attributes:
        sot, eot: start of transcript, end of text.
        transcribe, translate: the task tokens.
        sot_prev, sot_lm: start of previous text (a prompt), start of language model.
        no_speech: its probability at ``sot`` is the probability that there is no speech.
        no_timestamps: selects text without timestamps.
        timestamp_begin: the token of 0.00 s; it and all greater IDs are timestamps.
        blank: the token of a single space.
        n_vocab: the number of tokens.
        multilingual: whether language and task tokens are used.
        language_tokens: language code -> token, in Whisper's order; empty if English-only.
    """

    def __init__(
        self, model: tokenizers.Tokenizer, vocabulary: Mapping[str, int], name: str
    ) -> None:
        """Wrap ``model``, which must not know special tokens, and the full vocabulary.

        Args:
            model: the byte-pair encoder of text alone.
            vocabulary: text of a token -> ID, special tokens included.
            name: the file, for messages.
        """
        self._model = model
        special = _SpecialTokens(vocabulary, name)
        self.sot = special("<|startoftranscript|>")
        self.eot = special("<|endoftext|>")
        self.transcribe = special("<|transcribe|>")
        self.translate = special("<|translate|>")
        self.sot_prev = special("<|startofprev|>")
        self.sot_lm = special("<|startoflm|>")
        self.no_speech = special("<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = special("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1
        self.n_vocab = self.timestamp_begin + N_TIMESTAMPS
        self.multilingual = self.n_vocab >= MULTILINGUAL_VOCABULARY
        self.language_tokens: Mapping[str, int] = MappingProxyType(
            special.languages() if self.multilingual else {}
        )
        self._bytes = _token_bytes(vocabulary, self.eot)
        self.blank = self.encode(" ")[0]

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read ``tokenizer.json``, or else ``vocab.json``, ``merges.txt`` and added tokens.

        Raises:
            ModelFileMissing: neither is there.
            UnsupportedCheckpoint: they are not from a Whisper checkpoint.
        """
        folder = Path(folder)
        if (folder / "tokenizer.json").is_file():
            return _from_tokenizer_json(folder / "tokenizer.json")
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _from_vocabulary(folder)
        raise ModelFileMissing(
            f"{folder} has no tokenizer.json (nor vocab.json with merges.txt); "
            "copy it from the repository of the model"
        )

    def encode(self, text: str) -> list[int]:
        """Encode ``text``; special tokens in it are encoded as plain text."""
        ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """Decode ``tokens``, without special tokens and timestamps.

        Invalid UTF-8, such as half a character at the end, becomes U+FFFD.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the UTF-8 bytes of the text tokens among ``tokens``."""
        return b"".join(self._bytes[token] for token in tokens if 0 <= token < self.eot)

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Tokens of non-speech symbols, such as brackets and notes, in ascending order.

        By the rule of openai/whisper's ``tokenizer.py``: symbols of one token, with and
        without a space before; hyphen and apostrophe only where they begin a word.
        """
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in [*_LETTERS, *_GROUPS.split(), *_MUSIC]:
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or symbol in _MUSIC:
                    found.add(tokens[0])
        return tuple(sorted(found))

    @cached_property
    def suppress_tokens(self) -> tuple[int, ...]:
        """Tokens that are never sampled, by the rule of openai/whisper's ``decoding.py``."""
        special = {self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm}
        return tuple(sorted({*self.non_speech_tokens, *special, self.no_speech}))

    @cached_property
    def begin_suppress_tokens(self) -> tuple[int, ...]:
        """Tokens that are not sampled first: a blank and the end of text."""
        return (self.blank, self.eot)


class _SpecialTokens:
    """Looks up the IDs of special tokens by their text."""

    def __init__(self, vocabulary: Mapping[str, int], name: str) -> None:
        self._vocabulary = vocabulary
        self._name = name

    def __call__(self, *spellings: str) -> int:
        for spelling in spellings:
            if spelling in self._vocabulary:
                return self._vocabulary[spelling]
        raise UnsupportedCheckpoint(
            f"{self._name} has no token {spellings[0]}: it is not a Whisper tokenizer"
        )

    def languages(self) -> dict[str, int]:
        written = {code: f"<|{code}|>" for code in LANGUAGES}
        known = self._vocabulary
        return {code: known[text] for code, text in written.items() if text in known}


def _from_tokenizer_json(path: Path) -> Tokenizer:
    try:
        content = json.loads(path.read_text("utf-8"))
        vocabulary = dict(content["model"]["vocab"])
        vocabulary.update({added["content"]: added["id"] for added in content["added_tokens"]})
        # Without its added tokens the encoder treats "<|en|>" in a prompt as plain text.
        content.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        model = tokenizers.Tokenizer.from_str(json.dumps(content))
    # tokenizers raises plain Exception for an invalid file
    except Exception as error:
        raise _unreadable(path, error) from error
    return Tokenizer(model, vocabulary, str(path))


def _from_vocabulary(folder: Path) -> Tokenizer:
    """Read the older layout, without tokenizer.json."""
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        bpe = tokenizers.models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
        if (folder / "added_tokens.json").is_file():
            vocabulary.update(json.loads((folder / "added_tokens.json").read_text("utf-8")))
    except Exception as error:
        raise _unreadable(folder / "vocab.json", error) from error
    model = tokenizers.Tokenizer(bpe)
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(model, vocabulary, str(folder / "vocab.json"))


def _unreadable(path: Path, error: Exception) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"{path} cannot be read as a tokenizer ({error}); download the model again"
    )


def _token_bytes(vocabulary: Mapping[str, int], n_text: int) -> tuple[bytes, ...]:
    """Return the bytes of each text token, by ID; empty for unused IDs."""
    byte_of = _byte_alphabet()
    table: list[Any] = [b""] * n_text
    for written, token in vocabulary.items():
        if 0 <= token < n_text:
            table[token] = bytes(byte_of[letter] for letter in written if letter in byte_of)
    return tuple(table)


def _byte_alphabet() -> dict[str, int]:
    """Return character -> byte of GPT-2's vocabulary, which writes bytes as visible characters.

    Printable Latin-1 characters stand for themselves; the other 68 bytes are the characters from
    U+0100 on, in ascending order (openai/gpt-2, ``encoder.py``).
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {chr(byte): byte for byte in visible}
    return {**alphabet, **{chr(0x100 + i): byte for i, byte in enumerate(hidden)}}
