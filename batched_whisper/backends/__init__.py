"""Backends of `Whisper`, which transcribe recordings in this process or elsewhere."""
