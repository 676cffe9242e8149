"""``@batched``: anybody's own functions, many single calls in few full batches."""
