"""Decoding rules, sampling, beam search and fallback. Knows no device and no thread."""
