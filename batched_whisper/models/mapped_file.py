"""Arrays that are views of a file mapped into memory, so that nothing is read before its use.

Knows offsets, types and the end of the file. Knows no file format.
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
"""The one type of checkpoints that NumPy lacks; its arrays are widened to float32."""

_MAXIMUM_AXES = 8
"""More than any checkpoint's tensor has, and fewer than NumPy can."""


class MappedFile:
    """A file's bytes, read-only. The views it gives keep the mapping alive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise UnsupportedCheckpoint(f"{path} is empty; fetch the model again")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._bytes)

    def read(self, start: int, n_bytes: int) -> bytes:
        """A copy of some bytes.

        Raises:
            UnsupportedCheckpoint: the file ends before them.
        """
        self._check_end(start + n_bytes)
        return self._bytes[start : start + n_bytes]

    def array(self, kind: str, shape: tuple[int, ...], start: int) -> NDArray[Any]:
        """An array of NumPy's type ``kind``, or bfloat16, that begins at byte ``start``.

        A view where the file has it at an address that processors like, else a copy.
        """
        item = np.dtype("<u2" if kind == BFLOAT16 else kind)
        if len(shape) > _MAXIMUM_AXES or any(n < 0 for n in shape):
            raise UnsupportedCheckpoint(
                f"{self.path} is damaged: no tensor has {len(shape)} axes or a negative length; "
                "fetch the model again"
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
                f"{self.path} is cut short: it has {len(self)} bytes and needs at least {end}; "
                "fetch the model again"
            )
