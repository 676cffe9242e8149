"""The commands' dependencies on the rest of the package, as one object that tests can replace.

Imports the model only when it is used, so that ``--help`` does not wait for an engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batched_whisper.config.options import Settings

if TYPE_CHECKING:
    from batched_whisper.models.model_files import ModelFiles
    from batched_whisper.whisper import Whisper


def _open_whisper(settings: Settings) -> Whisper:
    from batched_whisper.whisper import Whisper

    return Whisper(settings=settings)


def _download(model: str, revision: str | None) -> ModelFiles:
    from batched_whisper.models.sources import download

    return download(model, revision, cache_dir=Settings.from_environment().cache_dir)


@dataclass(frozen=True)
class Dependencies:
    """Opens a `Whisper` from settings, and downloads models."""

    open_whisper: Callable[[Settings], Whisper] = _open_whisper
    download: Callable[[str, str | None], ModelFiles] = _download
