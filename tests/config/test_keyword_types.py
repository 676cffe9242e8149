"""What an editor shows of the options is what is declared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from batched_whisper.config.fields import Numbers
from batched_whisper.config.keyword_types import DecodingArguments, SettingArguments
from batched_whisper.config.options import DecodingOptions, Settings

WRITTEN = [(SettingArguments, Settings), (DecodingArguments, DecodingOptions)]


def as_argument(declared: Any) -> Any:
    """A tuple of numbers may be given as any other list of them."""
    if declared == Numbers:
        return Sequence[float]
    return Sequence[float] | None if declared == Numbers | None else declared


@pytest.mark.parametrize(("arguments", "declared"), WRITTEN)
def test_keyword_types_have_exactly_the_declared_options_and_types(
    arguments: type[Any], declared: type[Any]
) -> None:
    options = {
        field.name: as_argument(field.type)
        for field in dataclasses.fields(declared)
        if field.name != "model"  # has a place of its own
    }
    assert list(get_type_hints(arguments).items()) == list(options.items())
    assert not arguments.__required_keys__


@pytest.mark.parametrize(("arguments", "declared"), WRITTEN)
def test_literal_types_equal_the_declared_choices(
    arguments: type[Any], declared: type[Any]
) -> None:
    written = {name: words_of(kind) for name, kind in get_type_hints(arguments).items()}
    words = {field.name: field.metadata["choices"] or () for field in dataclasses.fields(declared)}
    assert written == {name: words[name] for name in written}
    assert sum(map(bool, written.values())) > 1


def words_of(kind: Any) -> tuple[str, ...]:
    """The words of a choice, alone or beside other types."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(word for each in get_args(kind) for word in words_of(each))


@pytest.mark.parametrize("numbers", [[-1], (-1,), range(-1, 0)])
def test_a_list_option_accepts_any_sequence(numbers: Any) -> None:
    made = DecodingOptions(suppress_tokens=numbers)
    assert made == DecodingOptions.of(suppress_tokens=numbers) == DecodingOptions()
    assert hash(made) == hash(DecodingOptions())
