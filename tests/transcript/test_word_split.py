"""Words from tokens; a token here is any few bytes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.transcript.word_split import split_words


class Vocabulary:
    """Tokens numbered as they come."""

    def __init__(self, *tokens: str | bytes) -> None:
        self.bytes = [each if isinstance(each, bytes) else each.encode() for each in tokens]

    @property
    def tokens(self) -> range:
        return range(len(self.bytes))

    def decode(self, tokens: Iterable[int]) -> bytes:
        return b"".join(self.bytes[token] for token in tokens)

    def words(self, language: str = "en") -> list[str]:
        return [word.text for word in split_words(self.tokens, language, self.decode)]


anything: st.SearchStrategy[list[str | bytes]] = st.lists(
    st.one_of(st.binary(max_size=4), st.text(" .,\"'(ab。的é", max_size=3)), max_size=12
)


@given(anything, st.sampled_from(["en", "ja"]))
def test_concatenated_words_are_the_text(tokens: list[str | bytes], language: str) -> None:
    vocabulary = Vocabulary(*tokens)
    text = vocabulary.decode(vocabulary.tokens).decode("utf-8", errors="replace")
    assert "".join(vocabulary.words(language)) == text


@given(anything, st.sampled_from(["en", "ja"]))
def test_words_follow_each_other_in_the_tokens(tokens: list[str | bytes], language: str) -> None:
    vocabulary = Vocabulary(*tokens)
    last = 0
    for word in split_words(vocabulary.tokens, language, vocabulary.decode):
        assert last <= word.first < word.last <= len(tokens)
        last = word.last


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([" Print", "ing", ",", " in"], [" Printing,", " in"]),
        ([" he", " said", ' "', "No", '!"', "."], [" he", " said", ' "No!".']),
        ([" so", "...", " -", " well"], [" so...", " - well"]),
        ([" (", "see", ")", " it"], [" (see)", " it"]),
        ([" don", "'t", " go"], [" don't", " go"]),
        ([" a", " ¿", "qué", "?"], [" a", " ¿qué?"]),
        ([' "'], [' "']),
        ([], []),
    ],
)
def test_a_word_has_its_punctuation(tokens: list[str], words: list[str]) -> None:
    assert Vocabulary(*tokens).words() == words


def test_where_no_spaces_are_written_a_word_is_whole_characters() -> None:
    kan = "観".encode()
    tokens: list[str | bytes] = ["客", kan[:1], kan[1:], "的", "。", "の"]
    assert Vocabulary(*tokens).words("ja") == ["客", "観", "的。", "の"]
    assert Vocabulary(*tokens).words("en") == ["客観的。の"]


@pytest.mark.parametrize(("language", "text"), [("km", "ភាសាខ្មែរ"), ("bo", "བོད་སྐད")])
def test_all_languages_without_spaces_are_split_so(language: str, text: str) -> None:
    assert len(Vocabulary(*text).words(language)) > len(Vocabulary(*text).words("en")) == 1


def test_punctuation_that_stands_alone_is_not_among_the_tokens_of_its_word() -> None:
    vocabulary = Vocabulary(" -", " No", "!", " go")
    no, go = split_words(vocabulary.tokens, "en", vocabulary.decode)
    assert (no.text, no.first, no.last, no.after_pause) == (" - No!", 1, 2, True)
    assert (go.text, go.first, go.last, go.after_pause) == (" go", 3, 4, True)
