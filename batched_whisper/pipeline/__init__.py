"""Transcribes one recording: from audio to transcript. Knows no device."""
