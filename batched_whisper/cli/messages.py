"""What a user reads when something goes wrong, and the exit code that a script reads.

0: all went well. 1: something failed. 2: the command line is wrong. 130: stopped with Ctrl-C.
141: whoever read our output went away. Knows nothing of what the commands do.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import typer

from batched_whisper.config.fields import ENVIRONMENT_PREFIX
from batched_whisper.errors import BatchedWhisperError, OptionError

P = ParamSpec("P")
R = TypeVar("R")

FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
DEBUG_VARIABLE = f"{ENVIRONMENT_PREFIX}DEBUG"


@dataclass(frozen=True)
class Failure:
    """One recording that there is no transcript of."""

    name: str
    why: str


def one_line(error: BaseException) -> str:
    """The error as one sentence; an unexpected one with its type."""
    message = " ".join(str(error).split())
    if isinstance(error, BatchedWhisperError):
        return message or type(error).__name__
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def print_err(message: str) -> None:
    """A line for the user, apart from the results."""
    print(message, file=sys.stderr, flush=True)


def report(failures: Iterable[Failure]) -> None:
    """What failed and why, a line each."""
    failures = list(failures)
    if failures:
        print_err(f"{count(len(failures), 'recording')} failed:")
    for failure in failures:
        print_err(f"  {about(failure.name, failure.why)}")


def about(name: str, message: str) -> str:
    """The message after the recording's name, which many messages begin with already."""
    return message if message.startswith(f"{name}: ") else f"{name}: {message}"


def count(n: int, noun: str) -> str:
    """1 recording, 2 recordings."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """End with a sentence and an exit code where a command would end with a traceback."""

    @functools.wraps(command)
    def explained(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            print_err("Interrupted.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _forget_standard_output()
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            raise typer.Exit(_explain(error)) from error

    return explained


def _explain(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    print_err(f"Error: {one_line(error)}")
    if isinstance(error, BatchedWhisperError):
        return USAGE if isinstance(error, OptionError) else FAILED
    print_err(f"That is unexpected; set {DEBUG_VARIABLE}=1 for the traceback.")
    return FAILED


def _forget_standard_output() -> None:
    """Keep the interpreter from complaining, at its end, of what it cannot flush any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def escape_unencodable_output() -> None:
    """Let file names that are not UTF-8, and terminals that are not either, be printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
