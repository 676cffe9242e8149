"""A WAV file's header against the file."""

from __future__ import annotations

import io
import struct

import pytest

from batched_whisper.audio.decode import decode
from batched_whisper.audio.wav_header import read_wav_header


def wav(n_samples: int = 16_000, *, size: int | None = None, before: bytes = b"") -> bytes:
    """A 16 kHz, 16-bit WAV file; `size` is what its header gives for that of its sound."""
    sound = b"\x01\x02" * n_samples
    size = len(sound) if size is None else size
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVE" + layout + before + struct.pack("<4sI", b"data", size) + sound
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def test_wav_header_declares_the_length_of_the_audio() -> None:
    header = read_wav_header(io.BytesIO(wav()))
    assert header is not None
    assert header.declared_s == 1.0
    assert header.fault is None


def test_wav_header_skips_chunks_before_the_data() -> None:
    odd = struct.pack("<4sI", b"JUNK", 3) + b"abc\x00"
    assert decode(wav(before=odd)).warnings == ()
    header = read_wav_header(io.BytesIO(wav(before=odd)))
    assert header is not None
    assert header.declared_s == 1.0


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_streamed_wav_file_declares_no_length_and_gives_no_warning(size: int) -> None:
    recording = decode(wav(size=size))
    assert recording.duration_s == 1.0
    assert recording.warnings == ()


@pytest.mark.parametrize("n_left", [44 + 8192, 44 + 8193, 44 + 20_000])
def test_a_truncated_wav_file_gives_a_warning(n_left: int) -> None:
    recording = decode(wav()[:n_left])
    assert recording.duration_s == pytest.approx((n_left - 44) / 32_000, abs=1e-4)
    assert "truncated" in recording.warnings[0]
    assert "1.00 s" in recording.warnings[0]


def test_wav_header_is_none_for_other_files() -> None:
    file = io.BytesIO(b"fLaC and so on and so on")
    assert read_wav_header(file) is None
    assert file.tell() == 0
