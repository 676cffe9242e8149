"""The derived constants are the ones in openai/whisper's audio.py."""

from __future__ import annotations

from batched_whisper import types
from batched_whisper.audio import constants


def test_derived_audio_constants_equal_whispers() -> None:
    assert constants.N_FFT == 400
    assert constants.HOP_LENGTH == 160
    assert constants.N_FREQUENCIES == 201
    assert constants.N_SAMPLES == 480_000
    assert constants.N_FRAMES == 3000
    assert constants.FRAMES_PER_POSITION == 2
    assert types.SAMPLES_PER_POSITION == 320
    assert types.POSITION_S == types.TIMESTAMP_STEP_S == 0.02
