"""The heart: many single calls in, few full batches out."""
