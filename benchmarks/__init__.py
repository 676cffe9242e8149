"""Measurements: this engine beside every peer, in one run on one machine. See README.md."""
