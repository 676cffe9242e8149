"""The derived constants are the ones in openai/whisper's audio.py."""

from __future__ import annotations

from batched_whisper.audio import constants


def test_derived_audio_constants_equal_whispers() -> None:
    assert constants.N_FFT == 400
    assert constants.HOP_LENGTH == 160
    assert constants.N_FREQUENCIES == 201
    assert constants.N_SAMPLES == 480_000
    assert constants.N_FRAMES == 3000
    assert constants.SAMPLES_PER_POSITION == 320
    assert constants.POSITIONS_PER_SECOND == 50
    assert constants.POSITION_S == 0.02
