"""Threads, futures and calls in flight. Knows nothing of speech."""
