"""The engine for every CPU."""

from batched_whisper import without_telemetry as without_telemetry
