"""Whisper's constants of sound, each derived from the few that were chosen.

From section 2.2 of "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al.,
2022): log-mel spectrograms of 16 kHz sound on 25 ms frames every 10 ms, of 30 s windows. Knows
numbers only; what depends on a checkpoint (such as the number of mel bands) is not here.
"""

from __future__ import annotations

from batched_whisper.types import SAMPLING_RATE

WINDOW_S = 30
"""The longest window that the model can see, in seconds."""

N_SAMPLES = WINDOW_S * SAMPLING_RATE
"""Samples of a full window: 480,000."""

N_FFT = SAMPLING_RATE * 25 // 1000
"""Samples under one spectrum: 25 ms, 400."""

N_FREQUENCIES = N_FFT // 2 + 1
"""Frequencies of one spectrum, from 0 to 8 kHz: 201, 40 Hz apart."""

HOP_LENGTH = SAMPLING_RATE * 10 // 1000
"""Samples from one spectrum to the next: 10 ms, 160."""

N_FRAMES = N_SAMPLES // HOP_LENGTH
"""Spectra of a full window: 3000."""

FRAMES_PER_POSITION = 2
"""Spectra for each position of the encoder, whose second convolution has a stride of 2."""

SAMPLES_PER_POSITION = HOP_LENGTH * FRAMES_PER_POSITION
"""Samples for each position of the encoder: 20 ms, 320."""

POSITIONS_PER_SECOND = SAMPLING_RATE // SAMPLES_PER_POSITION
"""Positions of the encoder a second: 50. Whisper's timestamps count in these too."""

POSITION_S = SAMPLES_PER_POSITION / SAMPLING_RATE
"""Seconds for each position of the encoder: 0.02."""
