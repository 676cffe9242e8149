"""Turns bytes into features: decoding, windows, log-mel spectrograms. Knows no models."""
