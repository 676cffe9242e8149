"""The same by Triton's kernels, and which of both is used."""
