"""The recording whose memory is measured is as long as it says."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from batched_whisper.audio.decode import decode
from benchmarks import memory


def test_the_recording_is_as_long_as_asked_for_and_sounds_the_same(tmp_path: Path) -> None:
    blocks = [np.full(700, 0.5, np.float32), np.full(700, -0.25, np.float32)] * 2
    path = tmp_path / "long.wav"
    memory.write_wav(path, blocks, 1500)
    samples = decode(path).samples
    assert len(samples) == 1500
    np.testing.assert_allclose(samples, np.concatenate(blocks)[:1500], atol=1e-4)


def test_the_recordings_come_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2000))
    blocks = memory.endless([path])
    assert [len(next(blocks)) for _ in range(3)] == [1000] * 3
