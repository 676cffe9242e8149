import pytest

from batched_whisper.errors import OptionError
from batched_whisper.tokens.languages import (
    ALIASES,
    LANGUAGES,
    known_language,
    language_code,
    language_code_or_none,
)


def test_languages_has_100_entries_with_cantonese_last():
    assert len(LANGUAGES) == 100
    assert next(iter(LANGUAGES)) == "en"
    assert list(LANGUAGES)[-1] == "yue"


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_is_found_by_its_code_and_its_name(code):
    assert language_code(code) == code
    assert language_code(LANGUAGES[code].title()) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mandarin", "zh"),
        ("Castilian", "es"),
        ("burmese", "my"),
        ("pt-BR", "pt"),
        ("zh_CN", "zh"),
        (" EN ", "en"),
        ("haitian creole", "ht"),
    ],
)
def test_a_language_is_found_by_other_names_and_tags(text, code):
    assert language_code(text) == code


def test_every_alias_stands_for_a_language():
    assert set(ALIASES.values()) <= set(LANGUAGES)


def test_language_code_of_a_misspelt_name_suggests_similar_ones():
    with pytest.raises(OptionError, match="german"):
        language_code("germann")


@pytest.mark.parametrize("text", ["", "klingon language", "123", "-"])
def test_language_code_of_unknown_text_raises_option_error(text):
    with pytest.raises(OptionError, match="language="):
        language_code(text)


@pytest.mark.parametrize(
    ("option", "code"), [("Japanese", "ja"), ("EN", "en"), ("per_window", None), (None, None)]
)
def test_language_code_or_none_returns_a_code_or_none(option, code):
    assert language_code_or_none(option) == known_language(option) == code


def test_an_unknown_language_raises_in_options_and_is_none_in_known_language():
    with pytest.raises(OptionError, match="klingon"):
        language_code_or_none("klingon")
    assert known_language("klingon") is None
