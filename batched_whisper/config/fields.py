"""Declares an option: a dataclass field with its default, help, range and environment variable.

Validates values and parses them from text by the declaration. Knows no option by name.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from batched_whisper.errors import OptionError

ENVIRONMENT_PREFIX = "BATCHED_WHISPER_"

Numbers = tuple[float, ...]
"""The type of a list option; in text, numbers are separated by commas and "none" is empty."""

T = TypeVar("T", bound="CheckedOptions")


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    fallback: str | None = None,
    check: Callable[[str, Any], None] | None = None,
) -> Any:
    """Declare one option as a dataclass field.

    Args:
        default: its value if none is given.
        help: one or a few sentences, for the command line and the docs.
        minimum: the smallest number allowed, inclusive.
        maximum: the largest number allowed, inclusive.
        choices: the allowed words.
        fallback: a second environment variable, read if BATCHED_WHISPER_<NAME> is not set.
        check: called with the name and the value; raises `OptionError` for other wrong values.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "fallback": fallback,
            "check": check,
        },
    )


@dataclass(frozen=True)
class CheckedOptions:
    """A dataclass of options that rejects values out of range."""

    def __init_subclass__(cls) -> None:
        """Resolve the annotations, which are strings, so that each field has its type."""
        super().__init_subclass__()
        hints = get_type_hints(cls)
        cls.__annotations__.update({name: hints[name] for name in cls.__annotations__})

    def __post_init__(self) -> None:
        for declared in dataclasses.fields(self):
            value = _frozen(declared, getattr(self, declared.name))
            object.__setattr__(self, declared.name, value)
            _check(declared, value)

    @classmethod
    def of(cls: type[T], **values: Any) -> T:
        """Create an instance from keyword arguments; raises `OptionError` for an unknown name."""
        known = {declared.name for declared in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise OptionError(
                    f"there is no option {name!r}; the options are {', '.join(sorted(known))}"
                )
        return cls(**values)

    @classmethod
    def from_environment(cls: type[T], environ: Mapping[str, str] | None = None) -> T:
        """Create an instance from the defaults and the environment variables."""
        environ = os.environ if environ is None else environ
        values = {}
        for declared in dataclasses.fields(cls):
            variable = variable_set(declared, environ)
            if variable is not None:
                values[declared.name] = _parse(declared, variable, environ[variable])
        return cls(**values)

    @classmethod
    def from_base(cls: type[T], start: object, **values: Any) -> T:
        """Return the caller's object with some options replaced.

        Raises:
            OptionError: ``start`` is not an instance of this class.
        """
        if not isinstance(start, cls):
            name = cls.__name__
            raise OptionError(
                f"{start!r} is not a {name}: give {name}(...), or its options by name"
            )
        return start.replace(**values) if values else start

    def replace(self: T, **values: Any) -> T:
        """Return a copy with some options replaced.

        None is accepted for optional options only; omit an option to keep its value.
        """
        return type(self).of(**{**_values(self), **values})


def _values(options: CheckedOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}


def _frozen(declared: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a list of numbers to a tuple, so that options are hashable."""
    is_list = Numbers in kinds(declared) and isinstance(value, Sequence)
    return tuple(value) if is_list and not isinstance(value, str) else value


def environment_variables(declared: dataclasses.Field[Any]) -> tuple[str, ...]:
    """List the variables that set this option, such as BATCHED_WHISPER_WAIT_MS; the first wins."""
    own = ENVIRONMENT_PREFIX + declared.name.upper()
    fallback = declared.metadata["fallback"]
    return (own,) if fallback is None else (own, fallback)


def variable_set(declared: dataclasses.Field[Any], environ: Mapping[str, str]) -> str | None:
    """Return the first of these variables that is set and not empty, or None."""
    return next((name for name in environment_variables(declared) if environ.get(name)), None)


def kinds(declared: dataclasses.Field[Any]) -> tuple[Any, ...]:
    """Return its types except None: bool, int, float, str or `Numbers`; a Literal counts as str."""
    annotated: Any = declared.type
    return _kinds(annotated)


@cache
def _kinds(annotated: Any) -> tuple[Any, ...]:
    types = [kind for kind in _members(annotated) if kind is not type(None)]
    return tuple(str if get_origin(kind) is Literal else kind for kind in types)


def _members(annotated: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotated) in (Union, UnionType)
    return get_args(annotated) if is_union else (annotated,)


def can_be_disabled(declared: dataclasses.Field[Any]) -> bool:
    """Whether it has a default value that None, or the word none, disables."""
    return declared.default is not None and is_optional(declared)


def is_optional(declared: dataclasses.Field[Any]) -> bool:
    """Whether None is an allowed value."""
    return type(None) in _members(declared.type)


_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _parse(declared: dataclasses.Field[Any], variable: str, text: str) -> Any:
    kind = kinds(declared)[0]
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        if kind in (int, float) and is_optional(declared) and text.lower() == "none":
            return None
        if kind in (int, float):
            return kind(text)
        if kind == Numbers:
            listed = [] if text.strip().lower() == "none" else text.split(",")
            return tuple(float(part) for part in listed)
    except (KeyError, ValueError):
        if str not in kinds(declared):
            raise OptionError(f"{variable}={text!r} is not {_IN_WORDS[kind]}") from None
    return text


def _check(declared: dataclasses.Field[Any], value: Any) -> None:
    name = declared.name
    if value is None and is_optional(declared):
        return
    if value is None:
        raise OptionError(f"{name}=None: None is not allowed; omit the option for the default")
    if not any(_is_of_kind(value, kind) for kind in kinds(declared)):
        wanted = " or ".join(_IN_WORDS[kind] for kind in kinds(declared))
        raise OptionError(f"{name}={value!r} is not {wanted}")
    choices = declared.metadata["choices"]
    if choices is not None and isinstance(value, str) and value not in choices:
        raise OptionError(f"{name}={value!r}: choose one of {', '.join(choices)}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)):
            _check_range(name, number, declared.metadata["minimum"], declared.metadata["maximum"])
    if declared.metadata["check"] is not None:
        declared.metadata["check"](name, value)


_CLASSES: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}
_IN_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Numbers: "a list of numbers",
}


def _is_of_kind(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind == Numbers:
        return isinstance(value, tuple) and all(_is_of_kind(each, float) for each in value)
    return isinstance(value, _CLASSES[kind])


def _check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    above = low is None or value >= low
    below = high is None or value <= high
    if above and below and not math.isnan(value):
        return
    bounds = [f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    raise OptionError(f"{name}={value!r} is out of range: it must be {' and '.join(bounds)}")
