"""``batched-whisper info``: the model, engine and device chosen on this machine."""

from __future__ import annotations

import platform
from contextlib import closing
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import typer

import batched_whisper
from batched_whisper.cli.messages import handle_errors
from batched_whisper.cli.options import takes_options
from batched_whisper.config.options import Settings

if TYPE_CHECKING:
    from batched_whisper.backends.base import WhisperInfo

PACKAGES = ("openvino", "av", "numpy", "tokenizers", "huggingface_hub", "torch")


@handle_errors
@takes_options
def info(ctx: typer.Context, *, settings: Settings) -> None:
    """Show the model, engine, precision and threads that would be used, and why."""
    with closing(ctx.obj.open_whisper(settings)) as whisper:
        _print_info(whisper.info)
    print()
    _print_rows(
        {
            "batched-whisper": batched_whisper.__version__,
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            **{package: installed_version(package) for package in PACKAGES},
        }
    )


def _print_info(info: WhisperInfo) -> None:
    _print_rows(
        {
            "model": info.model + (f" at {info.revision}" if info.revision else ""),
            "from": _word(info.source),
            "engine": _word(info.engine),
            "device": _word(info.device),
            "precision": _word(info.precision),
            "threads": str(info.threads or "all"),
        }
    )
    print()
    for sentence in info.why:
        print(f"- {sentence}")


def _word(value: str) -> str:
    """The text of a string or of an enum member."""
    return str(value.value) if isinstance(value, Enum) else value


def _print_rows(rows: dict[str, str]) -> None:
    for name, value in rows.items():
        print(f"{name:<16} {value}")


def installed_version(package: str) -> str:
    """The version of a package, or ``not installed``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
