"""From bytes to features: decode, windows, features. Knows nothing of models."""

from batched_whisper import without_telemetry as without_telemetry
