"""Arrays as views of a memory-mapped file, which is read only when they are used.

Checks offsets, types and the end of the file. Knows no file format.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.errors import UnsupportedCheckpoint

BFLOAT16 = "bfloat16"
"""A data type that NumPy lacks; its arrays are converted to float32."""

_MAXIMUM_AXES = 8
"""Maximum number of axes: more than any checkpoint has, and fewer than NumPy supports."""


class MappedFile:
    """A read-only memory-mapped file. Its views keep the mapping alive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise UnsupportedCheckpoint(f"{path} is empty; download the model again")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._bytes)

    def read(self, start: int, n_bytes: int) -> bytes:
        """Copy ``n_bytes`` from ``start`` on.

        Raises:
            UnsupportedCheckpoint: the file is too short.
        """
        self._check_end(start + n_bytes)
        return self._bytes[start : start + n_bytes]

    def array(self, kind: str, shape: tuple[int, ...], start: int) -> NDArray[Any]:
        """Return an array of NumPy's type ``kind``, or bfloat16, that starts at byte ``start``.

        A view if the data is aligned, else a copy.
        """
        item = np.dtype("<u2" if kind == BFLOAT16 else kind)
        if len(shape) > _MAXIMUM_AXES or any(n < 0 for n in shape):
            raise UnsupportedCheckpoint(
                f"{self.path} is damaged: no tensor has {len(shape)} axes or a negative length; "
                "download the model again"
            )
        count = math.prod(shape)
        self._check_end(start + count * item.itemsize)
        flat: NDArray[Any] = np.frombuffer(self._bytes, item, count, start)
        if kind == BFLOAT16:  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return np.require(flat, requirements="A").reshape(shape)

    def _check_end(self, end: int) -> None:
        if end > len(self):
            raise UnsupportedCheckpoint(
                f"{self.path} is truncated: it has {len(self)} bytes and needs at least {end}; "
                "download the model again"
            )
