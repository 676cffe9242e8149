"""Error messages for users and exit codes for scripts.

0: success. 1: something failed. 2: wrong usage. 130: interrupted with Ctrl-C. 141: the reader
of standard output closed the pipe. Knows nothing of what the commands do.
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
    """A recording that could not be transcribed, and why."""

    name: str
    why: str


def one_line(error: BaseException) -> str:
    """Format an error as one line; an unexpected one with its type."""
    message = " ".join(str(error).split())
    if isinstance(error, BatchedWhisperError):
        return message or type(error).__name__
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def print_err(message: str) -> None:
    """Print a line to standard error."""
    print(message, file=sys.stderr, flush=True)


def report(failures: Iterable[Failure]) -> None:
    """Print what failed and why, one line per recording."""
    failures = list(failures)
    if failures:
        print_err(f"{count(len(failures), 'recording')} failed:")
    for failure in failures:
        print_err(f"  {about(failure.name, failure.why)}")


def about(name: str, message: str) -> str:
    """Prefix a message with the recording's name, unless it begins with it."""
    return message if message.startswith(f"{name}: ") else f"{name}: {message}"


def count(n: int, noun: str) -> str:
    """Format a count with its noun: 1 recording, 2 recordings."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn exceptions of a command into one line of text and an exit code."""

    @functools.wraps(command)
    def with_messages(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            print_err("Interrupted.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _discard_standard_output()
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            raise typer.Exit(_explain(error)) from error

    return with_messages


def _explain(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    print_err(f"Error: {one_line(error)}")
    if isinstance(error, BatchedWhisperError):
        return USAGE if isinstance(error, OptionError) else FAILED
    print_err(f"Unexpected error; set {DEBUG_VARIABLE}=1 to see the traceback.")
    return FAILED


def _discard_standard_output() -> None:
    """Prevent the interpreter's error at exit about output that cannot be flushed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def escape_unencodable_output() -> None:
    """Escape characters that standard output or standard error cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
