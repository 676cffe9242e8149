"""Kernels are used where they work, and are tried out first."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda.attention import attend  # noqa: E402
from batched_whisper.engines.cuda.choosing import choose  # noqa: E402
from batched_whisper.engines.cuda.operations import PLAIN, best_operations, try_out  # noqa: E402

CPU = torch.device("cpu")


def test_the_processor_has_no_kernels() -> None:
    assert best_operations(CPU, torch.float32, 64) is PLAIN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_definitions_pass_their_own_trial(dtype: torch.dtype) -> None:
    try_out(attend, choose, CPU, dtype, 64)


def test_a_kernel_that_hears_too_much_does_not() -> None:
    def beyond(queries, table, rows, lengths, crowd=None):  # type: ignore[no-untyped-def]
        return attend(queries, table, rows, (lengths + 1).clamp(max=table.shape[3]), crowd)

    with pytest.raises(ValueError, match="off by"):
        try_out(beyond, choose, CPU, torch.float32, 64)


def test_a_kernel_that_counts_everything_once_does_not() -> None:
    def once(queries, table, rows, lengths, crowd=None):  # type: ignore[no-untyped-def]
        return attend(queries, table, rows, lengths)

    with pytest.raises(ValueError, match="off by"):
        try_out(once, choose, CPU, torch.float32, 64)


def test_a_choice_that_is_wrong_or_no_number_does_not() -> None:
    for wrong in (1.0, float("nan")):

        def badly(logits, hidden, feed, wrong=wrong):  # type: ignore[no-untyped-def]
            return choose(logits, hidden, feed) + wrong

        with pytest.raises(ValueError, match="off by"):
            try_out(attend, badly, CPU, torch.float32, 64)
