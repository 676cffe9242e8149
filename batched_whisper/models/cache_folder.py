"""Locates the cache folder of this package: assembled models, compiled graphs.

Knows the conventions of each system. Creates nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "batched-whisper"


def user_cache_folder() -> Path:
    """The user's folder for this package: XDG_CACHE_HOME, or the system's own place."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen).expanduser() / _NAME
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / _NAME
    return Path.home() / ".cache" / _NAME
