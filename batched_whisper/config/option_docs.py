"""Describes options in text, and adds them to the signatures and docstrings of calls.

`help`, notebooks and documentation generators read those; editors and type checkers read
`keyword_types`. Everything comes from the declarations. Knows no option by name.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from batched_whisper.config.fields import CheckedOptions

F = TypeVar("F", bound=Callable[..., Any])

WIDTH = 88
"""Columns per docstring line; `help` indents the lines of a method by 8 more."""


def shows_options_of(owner: type[CheckedOptions]) -> Callable[[F], F]:
    """Replace ``**overrides`` of a function or class by the options of ``owner``.

    In the signature each option becomes a keyword argument with its type and default, unless the
    function already has an argument of that name; the docstring ends with their descriptions.
    """

    def show(function: F) -> F:
        called: Any = function.__init__ if inspect.isclass(function) else function
        plain = inspect.signature(called)
        options = [each for each in dataclasses.fields(owner) if each.name not in plain.parameters]
        called.__signature__ = _with_options(plain, options)
        if function.__doc__ is not None:  # python -OO has none
            function.__doc__ = f"{inspect.cleandoc(function.__doc__)}\n\n{_section(tuple(options))}"
        return function

    return show


def _with_options(
    plain: inspect.Signature, options: Iterable[dataclasses.Field[Any]]
) -> inspect.Signature:
    own = [each for each in plain.parameters.values() if each.kind is not each.VAR_KEYWORD]
    shown = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=each.type,
        )
        for each in options
    ]
    return plain.replace(parameters=[*own, *shown])


@cache  # most calls have the same options
def _section(options: tuple[dataclasses.Field[Any], ...]) -> str:
    return "Keyword Args:\n" + "\n".join(
        textwrap.fill(
            f"{each.name}: {describe(each)}",
            width=WIDTH,
            initial_indent=" " * 4,
            subsequent_indent=" " * 8,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for each in options
    )


def describe(option: dataclasses.Field[Any]) -> str:
    """Describe an option: help, choices and range; the signature has its type and default."""
    parts = [option.metadata["help"]]
    if option.metadata["choices"] is not None:
        parts.append(f"One of: {', '.join(option.metadata['choices'])}.")
    if describe_range(option):
        parts.append(f"[{describe_range(option)}]")
    return " ".join(parts)


def describe_range(option: dataclasses.Field[Any]) -> str:
    """Describe the allowed numbers, such as "1 to 1,024"; empty if there is no limit."""
    low, high = option.metadata["minimum"], option.metadata["maximum"]
    if low is None and high is None:
        return ""
    if high is None:
        return f"from {low:,.10g}"
    return f"up to {high:,.10g}" if low is None else f"{low:,.10g} to {high:,.10g}"


def describe_default(option: dataclasses.Field[Any]) -> str:
    """Describe the default, such as "default: on"; empty if there is none."""
    value: Any = option.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"default: {'on' if value else 'off'}"
    if isinstance(value, tuple):
        return f"default: {','.join(f'{number:g}' for number in value)}"
    return f"default: {value:g}" if isinstance(value, float) else f"default: {value}"
