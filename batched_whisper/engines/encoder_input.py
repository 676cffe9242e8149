"""What an engine is given of a window's audio, for an audio context of any length."""

from __future__ import annotations

from batched_whisper.audio.features import pad_features
from batched_whisper.types import Features, Samples


def encoder_input(audio: Features | Samples, audio_context: int) -> Features | Samples:
    """The audio as an engine encodes it on that many positions (20 ms each).

    Args:
        audio: features ``[n_mels, n_frames]``, or samples ``[n_samples]`` for an engine that makes
            the features itself.
        audio_context: encoder positions.

    Returns:
        Features ``[n_mels, 2 * audio_context]``, with silence after them where they were shorter;
        samples as they are.
    """
    return audio if audio.ndim == 1 else pad_features(audio, 2 * audio_context)
