"""Threads, futures and concurrent calls. Knows nothing of speech."""
