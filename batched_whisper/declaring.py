"""How an option is declared: a dataclass field with its default, help, range and variable.

From a declaration come the check of a value, and its reading from text. Knows no option.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batched_whisper.errors import OptionError

ENVIRONMENT_PREFIX = "BATCHED_WHISPER_"

Numbers = tuple[float, ...]
"""An option that is a list of numbers; as a text they are separated by commas, "none" is empty."""

T = TypeVar("T", bound="CheckedOptions")


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    environment: str | None = None,
    check: Callable[[str, Any], None] | None = None,
) -> Any:
    """Declare one option as a dataclass field.

    Args:
        default: its value when nobody says anything.
        help: one sentence, for the command line and the docs.
        minimum: the smallest number allowed, inclusive.
        maximum: the largest number allowed, inclusive.
        choices: the words allowed.
        environment: its variable, where that is not BATCHED_WHISPER_ and its name.
        check: given its name and value, raises `OptionError` for what the others cannot tell.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "environment": environment,
            "check": check,
        },
    )


@dataclass(frozen=True)
class CheckedOptions:
    """A dataclass of options that refuses values out of range."""

    def __post_init__(self) -> None:
        for declared in dataclasses.fields(self):
            value = _frozen(declared, getattr(self, declared.name))
            object.__setattr__(self, declared.name, value)
            _check(declared, value)

    @classmethod
    def of(cls: type[T], **values: Any) -> T:
        """Make one from keyword arguments; an unknown name is an `OptionError`."""
        known = {declared.name for declared in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise OptionError(
                    f"there is no option {name!r}; the options are {', '.join(sorted(known))}"
                )
        return cls(**values)

    @classmethod
    def from_environment(cls: type[T], environ: Mapping[str, str] | None = None) -> T:
        """The defaults, with what the environment variables say instead."""
        environ = os.environ if environ is None else environ
        values = {}
        for declared in dataclasses.fields(cls):
            text = environ.get(environment_variable(declared))
            if text:
                values[declared.name] = _parse(declared, text)
        return cls(**values)

    def replace(self: T, **values: Any) -> T:
        """A copy with some options changed.

        None is a value as any other: of an option that may lack one, and of no other. What shall
        stay as it is, is left out.
        """
        return type(self).of(**{**_values(self), **values})


def _values(options: CheckedOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}


def _frozen(declared: dataclasses.Field[Any], value: Any) -> Any:
    """A list of numbers as a tuple, so that options can be compared and kept."""
    is_list = "Numbers" in _kinds(declared) and isinstance(value, Sequence)
    return tuple(value) if is_list and not isinstance(value, str) else value


def environment_variable(declared: dataclasses.Field[Any]) -> str:
    """The variable that sets this option, such as BATCHED_WHISPER_WAIT_MS."""
    own = declared.metadata["environment"]
    return own or ENVIRONMENT_PREFIX + declared.name.upper()


def _kind(declared: dataclasses.Field[Any]) -> str:
    """Its annotated type's first word: str, int, float or bool."""
    return str(declared.type).split("|")[0].strip()


def can_be_off(declared: dataclasses.Field[Any]) -> bool:
    """Whether it has a value unless somebody takes it away, by None or the word none."""
    return declared.default is not None and may_be_none(declared)


def may_be_none(declared: dataclasses.Field[Any]) -> bool:
    """Whether None is one of its values."""
    return "None" in str(declared.type)


def _parse(declared: dataclasses.Field[Any], text: str) -> Any:
    kind = _kind(declared)
    try:
        if kind == "bool":
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        if kind in ("int", "float") and may_be_none(declared) and text.lower() == "none":
            return None
        if kind in ("int", "float"):
            return {"int": int, "float": float}[kind](text)
        if kind == "Numbers":
            listed = [] if text.strip().lower() == "none" else text.split(",")
            return tuple(float(part) for part in listed)
    except (KeyError, ValueError):
        if "str" not in str(declared.type):
            wanted = _IN_WORDS[kind] if kind == "Numbers" else f"a {kind}"
            raise OptionError(
                f"{environment_variable(declared)}={text!r} is not {wanted}"
            ) from None
    return text


def _check(declared: dataclasses.Field[Any], value: Any) -> None:
    name, kinds = declared.name, _kinds(declared)
    if value is None and may_be_none(declared):
        return
    if value is None:
        raise OptionError(f"{name}=None: it always has a value; leave it out for the default")
    if not any(_is_of_kind(value, kind) for kind in kinds):
        raise OptionError(
            f"{name}={value!r} is not {' or '.join(_IN_WORDS[kind] for kind in kinds)}"
        )
    choices = declared.metadata["choices"]
    if choices is not None and isinstance(value, str) and value not in choices:
        raise OptionError(f"{name}={value!r}: choose one of {', '.join(choices)}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)):
            _check_range(name, number, declared.metadata["minimum"], declared.metadata["maximum"])
    if declared.metadata["check"] is not None:
        declared.metadata["check"](name, value)


_CLASSES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
_IN_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "Numbers": "a list of numbers",
}


def _kinds(declared: dataclasses.Field[Any]) -> list[str]:
    """Its annotated types, without None."""
    return [kind for kind in str(declared.type).replace(" ", "").split("|") if kind != "None"]


def _is_of_kind(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if kind == "Numbers":
        return isinstance(value, tuple) and all(_is_of_kind(each, "float") for each in value)
    return isinstance(value, _CLASSES[kind])


def _check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    above = low is None or value >= low
    below = high is None or value <= high
    if above and below and not math.isnan(value):
        return
    bounds = [f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    raise OptionError(f"{name}={value!r} is out of range: it must be {' and '.join(bounds)}")
