"""Locates the cache folder of this package: assembled models, compiled graphs.

Creates nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

_NAME = "batched-whisper"


def user_cache_folder() -> Path:
    """The user's folder for this package: in XDG_CACHE_HOME, or in the system's own place."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:  # platformdirs reads it on Linux alone, and knows no ~ in it
        return Path(chosen).expanduser() / _NAME
    return user_cache_path(_NAME, appauthor=False)
