"""Returns freed memory that the process still holds to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def trim() -> None:
    """Return freed memory from glibc's allocator to the system; do nothing with other allocators.

    Decoder runs of ever new shapes leave holes in glibc's arenas that it does not return by itself:
    about a fifth of the process after some hundred windows. Takes some milliseconds.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # TypeError: on Windows
        return None
