"""Whisper's audio constants, derived from a few chosen numbers.

From section 2.2 of "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al.,
2022): log-mel spectrograms of 16 kHz audio with 25 ms frames every 10 ms, of 30 s windows. What
depends on a checkpoint (such as the number of mel bands) is not here.
"""

from __future__ import annotations

from batched_whisper.types import SAMPLES_PER_POSITION, SAMPLING_RATE

WINDOW_S = 30
"""Maximum length of a window, in seconds."""

N_SAMPLES = WINDOW_S * SAMPLING_RATE
"""Samples per full window: 480,000."""

N_FFT = SAMPLING_RATE * 25 // 1000
"""Samples per frame of the short-time Fourier transform: 25 ms, 400."""

N_FREQUENCIES = N_FFT // 2 + 1
"""Frequency bins per frame, from 0 to 8 kHz: 201, 40 Hz apart."""

HOP_LENGTH = SAMPLING_RATE * 10 // 1000
"""Samples between the starts of two frames: 10 ms, 160."""

N_FRAMES = N_SAMPLES // HOP_LENGTH
"""Frames per full window: 3000."""

FRAMES_PER_POSITION = SAMPLES_PER_POSITION // HOP_LENGTH
"""Frames per encoder position: 2, because the second convolution has a stride of 2."""
