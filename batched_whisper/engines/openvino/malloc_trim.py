"""Memory that was freed and that the process still has, back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def trim() -> None:
    """Return what the allocator keeps of freed memory; where it is not glibc's, do nothing.

    Passes of ever new shapes leave holes in glibc's arenas, which it does not close by itself:
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
