"""Laws of a model's number of threads: those of its engine, and those needed so far."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_speech import SOON_S

import batched_whisper

PROGRAM = """
import os, threading
import numpy as np
from batched_whisper import Whisper

def report():
    print(*sorted(t.name for t in threading.enumerate()), sep=",", end=" ")
    print(len(os.listdir("/proc/self/task")))

whisper = Whisper("base", device="cpu", threads=2).load()
report()
sound = np.random.default_rng(0).normal(0, 0.01, 16_000).astype(np.float32)
whisper.transcribe(sound, language="en", vad=False)
report()
list(whisper.transcribe.map([sound] * 3, language="en", vad=False))
for future in [whisper.submit(sound, language="en", vad=False) for _ in range(3)]:
    future.result()
report()
"""


@pytest.mark.usefixtures("base_model")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="there is no /proc here")
def test_there_are_few_and_they_are_started_when_they_are_first_needed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(batched_whisper.__file__).parents[1]),
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=2 * SOON_S,
        check=True,
    )
    loaded, after_one, after_many = [line.split() for line in ended.stdout.splitlines()]
    assert loaded[0] == "MainThread,whisper-engine"
    assert after_one[0] == "MainThread,whisper-engine,whisper-worker_0"
    assert after_many[0].count("whisper-worker") <= 4
    assert int(loaded[1]) <= 8 - 1
    assert int(after_one[1]) <= 8
