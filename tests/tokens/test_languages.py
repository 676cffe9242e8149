import pytest

from batched_whisper.errors import OptionError
from batched_whisper.tokens.languages import (
    ALIASES,
    LANGUAGES,
    known_language,
    language_code,
    language_code_or_none,
)


def test_there_are_a_hundred_languages_and_cantonese_came_last():
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


def test_a_misspelt_language_is_refused_with_the_near_one():
    with pytest.raises(OptionError, match="german"):
        language_code("germann")


@pytest.mark.parametrize("text", ["", "klingon language", "123", "-"])
def test_no_language_is_refused(text):
    with pytest.raises(OptionError, match="language="):
        language_code(text)


@pytest.mark.parametrize(
    ("option", "code"), [("Japanese", "ja"), ("EN", "en"), ("per_window", None), (None, None)]
)
def test_an_option_tells_a_code_or_nothing(option, code):
    assert language_code_or_none(option) == known_language(option) == code


def test_what_is_no_language_is_refused_as_an_option_and_unknown_elsewhere():
    with pytest.raises(OptionError, match="klingon"):
        language_code_or_none("klingon")
    assert known_language("klingon") is None
