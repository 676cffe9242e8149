"""Linear layers in 8-bit floating point, as far as a CPU can test them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import IDS, tiny_checkpoint  # noqa: E402

from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.cuda.kernels.fp8_linear import FP8_MAX, make_fp8_linear, quantise  # noqa: E402
from batched_whisper.errors import EngineError  # noqa: E402


def test_quantise_uses_the_full_fp8_range_and_keeps_zeros() -> None:
    rows = torch.randn(5, 64) * torch.tensor([[1e-4], [1.0], [1e4], [0.0], [3.0]])
    found = quantise(rows)
    peaks = found.numbers.float().abs().amax(1)
    assert peaks.tolist() == [FP8_MAX, FP8_MAX, FP8_MAX, 0.0, FP8_MAX]
    back = found.numbers.float() * found.scales
    assert (back - rows).abs().max() <= rows.abs().max() / 16  # three bits after the first
    assert (back[0] - rows[0]).norm() < 0.04 * rows[0].norm()


def test_fp8_linear_is_close_to_linear() -> None:
    x, weight, bias = torch.randn(2, 48, 64), torch.randn(32, 64) / 8, torch.randn(32)
    x, weight, bias = (each.to(torch.bfloat16) for each in (x, weight, bias))
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    layer = make_fp8_linear(weight, bias)
    try:
        found = layer(x)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        pytest.skip(f"this PyTorch has no scaled product on the processor: {error}")
    assert found.shape == exact.shape
    assert (found.double() - exact).norm() < 0.06 * exact.norm()


def test_precision_fp8_needs_a_gpu() -> None:
    with pytest.raises(EngineError, match="fp8 needs a GPU"):
        CudaEngine(tiny_checkpoint(), IDS, max_slots=1, precision="fp8", device="cpu")


@pytest.mark.parametrize("precision", ["int8", "float8"])
def test_unknown_precision_error_lists_the_choices(precision: str) -> None:
    with pytest.raises(EngineError, match=f"{precision}.*float16"):
        CudaEngine(tiny_checkpoint(), IDS, max_slots=1, precision=precision, device="cpu")
