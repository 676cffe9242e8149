"""The folder of a model and its source. Knows nothing of the contents of the files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Source(str, Enum):
    """The sources of models, in the order in which they are tried."""

    FOLDER = "folder"
    CACHE = "cache"
    WHEEL = "wheel"
    HUB = "hub"


@dataclass(frozen=True)
class ModelFiles:
    """A folder with a model's weights, config.json and tokenizer."""

    name: str  # as requested
    revision: str | None  # the commit, if known
    folder: Path
    source: Source
    tried: tuple[str, ...] = ()  # sources tried before, for messages
    sha256: str | None = None  # of the weights, if pinned and verified
