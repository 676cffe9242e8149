"""Passes of the GPU engine: which sizes are recorded."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda.passes import recorded_sizes


@pytest.mark.parametrize("most", [1, 2, 3, 16, 17, 64, 100, 256, 1024])
def test_every_number_of_tokens_fits_a_size_that_is_not_much_larger(most: int) -> None:
    sizes = recorded_sizes(most)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for n in range(1, most + 1):
        assert min(size for size in sizes if size >= n) <= max(2 * n - 1, 1)
    assert len(sizes) <= 20


def test_large_sizes_waste_less_than_half_of_what_is_used() -> None:
    sizes = recorded_sizes(256)
    for n in range(17, 257):
        assert min(size for size in sizes if size >= n) <= 1.5 * n
