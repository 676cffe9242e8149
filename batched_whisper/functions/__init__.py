"""``@batched``: batches single calls of any function. Knows nothing of speech."""
