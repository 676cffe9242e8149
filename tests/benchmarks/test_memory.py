"""The recording whose memory is measured is as long as it says, and its own process tells of it."""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path

import numpy as np
import pytest

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


def test_more_is_counted_from_the_first_length() -> None:
    arguments = argparse.Namespace(model="base", threads=None, vad=True)
    readings = [memory.Reading(m, 1, int(1e9 + m * 1e6), 1, 1) for m in (10, 120)]
    written = json.loads(json.dumps(memory.document(arguments, readings)))
    assert [each["more_bytes"] for each in written["readings"]] == [0, 110_000_000]
    assert "+110 MB against 10 minutes" in memory.described(readings[1], readings[0])


def test_a_length_is_measured_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = list[list[str]]()

    class Ran:
        stdout = json.dumps(
            {"minutes": 2.0, "loaded_bytes": 1, "peak_bytes": 2, "n_windows": 3, "n_words": 4}
        )

    def run(command: list[str], **_: object) -> Ran:
        asked.append(command)
        return Ran()

    monkeypatch.setattr("subprocess.run", run)
    arguments = argparse.Namespace(model="tiny.en", threads=2, vad=False)
    reading = memory.in_a_process_of_its_own(arguments, 2.0, tmp_path / "a.wav")
    assert reading == memory.Reading(2.0, 1, 2, 3, 4)
    [command] = asked
    assert {"--no-vad", "tiny.en", str(tmp_path / "a.wav")} <= set(command)
