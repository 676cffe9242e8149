"""What `help` and a notebook show of a call is every option, as it is declared."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
from collections.abc import Callable
from typing import Any

import pytest

from batched_whisper import DecodingOptions, Settings, Whisper
from batched_whisper.config.fields import CheckedOptions, option
from batched_whisper.config.option_docs import shows_options_of

WHISPER = Whisper("base")  # not loaded
CALLS: list[Callable[..., Any]] = [
    WHISPER.transcribe,
    WHISPER.transcribe.aio,
    WHISPER.transcribe.map,
    WHISPER.transcribe.map.aio,
    WHISPER.transcribe.segments,
    WHISPER.transcribe.segments.aio,
    WHISPER.transcribe_batch,
    WHISPER.submit,
]
SHOWN = [(call, DecodingOptions) for call in CALLS] + [(Whisper, Settings)]


@pytest.mark.parametrize(("call", "owner"), SHOWN, ids=lambda value: type(value).__name__)
def test_the_signature_has_every_option_with_its_type_and_default(
    call: Callable[..., Any], owner: type[CheckedOptions]
) -> None:
    parameters = inspect.signature(call).parameters
    for field in dataclasses.fields(owner):
        if field.name != "model":  # has a place of its own
            shown = parameters[field.name]
            assert (shown.annotation, shown.default) == (field.type, field.default)
            assert shown.kind is shown.KEYWORD_ONLY
    assert not any(each.kind is each.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize(("call", "owner"), SHOWN, ids=lambda value: type(value).__name__)
def test_help_describes_every_option(call: Callable[..., Any], owner: type[CheckedOptions]) -> None:
    told = pydoc.render_doc(call, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    told = " ".join(told.replace("|", " ").split())
    for field in dataclasses.fields(owner):
        explained = " ".join(field.metadata["help"].replace("|", " ").split())
        assert explained in told or field.name == "model"


@dataclasses.dataclass(frozen=True)
class Sample(CheckedOptions):
    count: int = option(3, "How many.", minimum=1, maximum=5000)
    word: str = option("a", "A word.", choices=("a", "b"))


def test_own_arguments_of_a_function_are_kept_and_not_repeated() -> None:
    @shows_options_of(Sample)
    def call(word: str, /, other: int = 1, *, word_too: str = "", **overrides: Any) -> str:
        """Do it.

        Args:
            word: its own.
        """
        return f"{word} {overrides}"

    assert str(inspect.signature(call)) == (
        "(word: 'str', /, other: 'int' = 1, *, word_too: 'str' = '', count: int = 3) -> 'str'"
    )
    assert call.__doc__ == (
        "Do it.\n\nArgs:\n    word: its own.\n\nKeyword Args:\n    count: How many. [1 to 5,000]"
    )
    assert call("x", count=9) == "x {'count': 9}"


def test_the_signature_is_set_without_docstrings() -> None:
    def call(**overrides: Any) -> None:
        pass

    shown = shows_options_of(Sample)(call)
    assert shown.__doc__ is None and list(inspect.signature(shown).parameters) == ["count", "word"]
