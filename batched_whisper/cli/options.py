"""Makes command-line flags from the declarations in `config`.

A command declares ``settings: Settings`` or ``options: DecodingOptions`` and gets one flag per
field, with the declared default, help, range, choices and environment variable. Precedence: flag,
then variable, then default. `config` reads the variables, for the command line as for Python.
Knows no option by name.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from batched_whisper.config.fields import (
    ENVIRONMENT_PREFIX,
    can_be_disabled,
    environment_variables,
    kinds,
    variable_set,
)
from batched_whisper.config.option_docs import describe_default, describe_range
from batched_whisper.config.options import (
    CueLayout,
    DecodingOptions,
    Settings,
)
from batched_whisper.errors import OptionError

PANELS: dict[type[Any], str] = {
    Settings: "Model",
    DecodingOptions: "Decoding",
    CueLayout: "Subtitles",
}
"""Option classes that become flags, and their headings in the help."""

ENVIRONMENT_NOTE = (
    "Options under Model, Decoding and Subtitles can also be set by environment variables: "
    f"{ENVIRONMENT_PREFIX}WAIT_MS for --wait-ms, and so on. A flag overrides its variable."
)

_PLAIN = (str, int, float, bool)
_LONGEST_NEGATED = 22
"""Longest flag that also gets --no-flag; longer ones would not fit the help's column."""

_METAVARS: dict[Any, str] = {int: "N", float: "N", bool: ""}


def takes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag to a command for each field of its option parameters."""
    # Not get_type_hints: before Python 3.11 it wraps parameters with the default None in Optional,
    # and Typer then sees no Annotated.
    declared = inspect.signature(command, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    owners: dict[str, list[str]] = {}  # parameter of the command -> its flags
    for parameter in declared.values():
        owner = parameter.annotation
        if owner in PANELS:
            flags = [_flag(field, PANELS[owner]) for field in dataclasses.fields(owner)]
            owners[parameter.name] = [flag.name for flag in flags]
            parameters += flags
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def with_flags(*args: Any, **given: Any) -> Any:
        for name, flags in owners.items():
            given[name] = _gather(
                declared[name].annotation, {flag: given.pop(flag) for flag in flags}
            )
        return command(*args, **given)

    annotations = {parameter.name: parameter.annotation for parameter in parameters}
    with_flags.__annotations__ = annotations
    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_flags


def written_flag(field: dataclasses.Field[Any]) -> str:
    """The flag of an option, with its negation if it has one: ``--vad/--no-vad``."""
    flag = _flag_name(field.name)
    has_opposite = field.type is bool and len(flag) <= _LONGEST_NEGATED
    return f"{flag}/--no-{flag[2:]}" if has_opposite else flag


def is_set(ctx: typer.Context, owner: type[Any], name: str) -> bool:
    """Whether the user set this option, by its flag or its variable."""
    if ctx.params.get(name) is not None:
        return True
    declared = {field.name: field for field in dataclasses.fields(owner)}
    return variable_set(declared[name], os.environ) is not None


def _gather(owner: type[Any], given: dict[str, Any]) -> Any:
    """Build the option object from flags; omitted ones come from the environment."""
    declared = {field.name: field for field in dataclasses.fields(owner)}
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        if _is_plain(declared[name]):
            values[name] = value
        else:
            texts[environment_variables(declared[name])[0]] = value
    try:
        return owner.from_environment({**os.environ, **texts}).replace(**values)
    except OptionError as error:
        raise OptionError(_named_as_flag(owner, str(error), given)) from error


def _named_as_flag(owner: type[Any], message: str, given: dict[str, Any]) -> str:
    """Replace the option's name by its flag, if the user gave the flag."""
    name, mark, rest = message.partition("=")
    of_variable = {
        environment_variables(field)[0]: field.name for field in dataclasses.fields(owner)
    }
    name = of_variable.get(name, name)
    return f"{_flag_name(name)}{mark}{rest}" if given.get(name) is not None else message


def _flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_plain(field: dataclasses.Field[Any]) -> bool:
    """Whether the flag has one plain type; others are parsed from text.

    An option that accepts "none" is parsed from text too.
    """
    types = kinds(field)
    return len(types) == 1 and types[0] in _PLAIN and not can_be_disabled(field)


def _flag(field: dataclasses.Field[Any], panel: str) -> inspect.Parameter:
    kind: Any = kinds(field)[0] if _is_plain(field) else str
    metavar = "N|none" if can_be_disabled(field) else _METAVARS.get(kind, "TEXT")
    details: dict[str, Any] = {"metavar": metavar}
    choices = field.metadata["choices"]
    if choices is not None:
        words = _alternatives(choices) or "WORD"
        details = {"metavar": f"N|{words}" if {int, float} & set(kinds(field)) else words}
    flag = written_flag(field)
    declaration = typer.Option(
        flag,
        help=_help(field),
        show_default=False,  # an omitted flag is left to the environment
        # Flags with --no-x get their own panel: the extra column would narrow the help.
        rich_help_panel=f"{panel}, on or off" if "/" in flag else panel,
        **details,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, declaration],
    )


def _alternatives(choices: tuple[str, ...]) -> str | None:
    """The choices as ``a|b``, if that fits the flag's column."""
    written = "|".join(choices)
    return written if len(written) <= 16 else None


def _help(field: dataclasses.Field[Any]) -> str:
    """The declared help, with the choices, range, default and variables."""
    parts = [field.metadata["help"]]
    choices = field.metadata["choices"]
    if choices is not None and _alternatives(choices) is None:
        parts.append(f"One of {', '.join(choices)}.")
    variable, *others = environment_variables(field)
    if others:  # a single variable follows from the flag
        parts.append(f"[variable: {variable}, else {', '.join(others)}]")
    facts = [fact for fact in (describe_range(field), describe_default(field)) if fact]
    if facts:
        parts.append(f"[{', '.join(facts)}]")
    return " ".join(parts).replace("[", r"\[")
