"""Reads the header of a WAV file and compares it with the size of the file.

If a WAV file is shorter than its header declares, FFmpeg silently uses the size of the file, so
that a truncated file looks complete. Knows RIFF chunks and nothing of decoding.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Protocol

_UNKNOWN_SIZE = 0x7FFF_F000
"""Writers that cannot seek back leave a size of 0, or of at least this: the size is unknown."""

_MAX_CHUNKS = 1000


@dataclass(frozen=True)
class WavHeader:
    """``declared_s`` is the length of the audio by the header; ``fault`` an error in the header."""

    declared_s: float | None = None
    fault: str | None = None


class Readable(Protocol):
    """A seekable binary file."""

    def read(self, size: int, /) -> bytes:
        """Read up to ``size`` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position; returns it, counted from the beginning."""

    def tell(self) -> int:
        """Return the position."""


def read_wav_header(file: Readable) -> WavHeader | None:
    """Read a WAV file up to its data chunk; None for other files. Leaves the position at 0."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
            return None
        return _walk(file, size)
    finally:
        file.seek(0)


def _walk(file: Readable, file_size: int) -> WavHeader:
    bytes_per_second = 0
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack("<4sI", head)
        there = file_size - file.tell()
        if name == b"data":
            return _declared(length, bytes_per_second)
        if length > there:
            shown = name.decode("latin-1")
            return WavHeader(
                fault=f"its {shown!r} chunk should have {length:,} bytes, but only {there:,} follow"
            )
        if name == b"fmt " and length >= 16:
            _, _, rate, bytes_per_second = struct.unpack("<HHII", file.read(12))
            if rate == 0:
                return WavHeader(fault="its header declares a sampling rate of 0")
            length -= 12
        file.seek(length + length % 2, os.SEEK_CUR)
    return WavHeader(fault="it ends before its data chunk")


def _declared(length: int, bytes_per_second: int) -> WavHeader:
    if not 0 < length < _UNKNOWN_SIZE or bytes_per_second == 0:
        return WavHeader()
    return WavHeader(declared_s=length / bytes_per_second)
