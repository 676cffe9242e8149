"""Combines single calls into batches, and runs an engine on them."""
