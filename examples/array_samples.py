"""Transcribe samples that are in memory: python examples/array_samples.py."""

from __future__ import annotations

import io
import sys
import wave
from pathlib import Path

import numpy as np

from batched_whisper import Whisper


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Read 16-bit samples, ``[n_samples, n_channels]``, and the sampling rate in Hz."""
    with wave.open(io.BytesIO(path.read_bytes())) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return samples.reshape(-1, file.getnchannels()), file.getframerate()


def main(path: Path) -> None:
    samples, rate = read_wav(path)
    half = samples[: len(samples) // 2].mean(axis=1) / 2**15  # mono, from -1 to 1
    with Whisper("base") as whisper:
        # Integers or floats, any number of channels, any sampling rate; pass the rate.
        print("all: ", whisper.transcribe(samples, sampling_rate=rate).text)
        print("half:", whisper.transcribe({"array": half, "sampling_rate": rate}).text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
