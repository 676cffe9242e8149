"""What a WAV file's header promises, read without believing it.

FFmpeg quietly takes the size of the file for the size of the sound where the header promises
more, so that a WAV file that was cut off looks whole. Here the header is held against the file.
Knows RIFF's chunks and nothing of decoding.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Protocol

_UNKNOWN_SIZE = 0x7FFF_F000
"""A writer that cannot seek back leaves a size of 0, or one from here on: it promises nothing."""

_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class WavHeader:
    """``declared_s`` is the sound's length by its header; ``fault`` what is wrong with that."""

    declared_s: float | None = None
    fault: str | None = None


class Readable(Protocol):
    """A file that can be read from any place."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, fewer at the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go somewhere; gives the place from the beginning."""

    def tell(self) -> int:
        """The place."""


def read_wav_header(file: Readable) -> WavHeader | None:
    """Read a WAV file's chunks up to its sound; None of any other file. Leaves it at 0."""
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
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack("<4sI", head)
        there = file_size - file.tell()
        if name == b"data":
            return _promise(length, bytes_per_second)
        if length > there:
            shown = name.decode("latin-1")
            return WavHeader(
                fault=f"its header's {shown!r} part should be {length:,} bytes, but only "
                f"{there:,} follow"
            )
        if name == b"fmt " and length >= 16:
            _, _, rate, bytes_per_second = struct.unpack("<HHII", file.read(12))
            if rate == 0:
                return WavHeader(fault="its header gives a sampling rate of 0")
            length -= 12
        file.seek(length + length % 2, os.SEEK_CUR)
    return WavHeader(fault="its header ends before any sound")


def _promise(length: int, bytes_per_second: int) -> WavHeader:
    if not 0 < length < _UNKNOWN_SIZE or bytes_per_second == 0:
        return WavHeader()
    return WavHeader(declared_s=length / bytes_per_second)
