"""Batched Whisper: many small calls become few full batches, all the time."""

__version__ = "0.1.0"
