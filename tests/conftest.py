"""What tests share: where the real speech and the real models are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SPEECH_VARIABLE = "BATCHED_WHISPER_SPEECH"


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real speech with its manifest; tests that need it skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "speech"
    folder = Path(os.environ.get(SPEECH_VARIABLE, beside))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip(f"no speech collection at {folder}; set {SPEECH_VARIABLE} to its folder")
    return folder
