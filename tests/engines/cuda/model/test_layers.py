"""The layers of the GPU engine."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda.model.layers import Linear, add_deferred_bias, convolve, normalise  # noqa: E402

WIDTH, N = 48, 37


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_layer_norm_adds_deferred_biases() -> None:
    x, ys = some(N, WIDTH), [some(N, 20, seed=i) for i in (1, 2)]
    layers = [Linear(some(WIDTH, 20, seed=i), some(WIDTH, seed=9 + i)) for i in (3, 4)]
    weight, bias = some(WIDTH, seed=5), some(WIDTH, seed=6)
    plain = x + layers[0](ys[0]) + layers[1](ys[1])
    kept, deferred_bias = x.clone(), None
    for layer, y in zip(layers, ys, strict=True):
        layer.add_to(kept, y)
        deferred_bias = add_deferred_bias(deferred_bias, layer)
    torch.testing.assert_close(
        normalise(kept, weight, bias, deferred_bias), normalise(plain, weight, bias, None)
    )


def test_layer_without_bias_defers_nothing() -> None:
    deferred_bias = some(WIDTH)
    layer = Linear(some(WIDTH, 20), None)
    assert add_deferred_bias(deferred_bias, layer) is deferred_bias
    assert add_deferred_bias(None, layer) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_linear_gelu_is_as_accurate_as_its_type_allows(dtype: torch.dtype) -> None:
    layer = Linear(some(200, WIDTH, seed=1, dtype=dtype) / 5, some(200, seed=2, dtype=dtype))
    x = some(N, WIDTH, seed=3, dtype=dtype)
    product = torch.nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    exact = torch.nn.functional.gelu(product)
    near = 3 * torch.finfo(dtype).eps * exact.norm()
    assert (layer.gelu(x).double() - exact).norm() < near


@pytest.mark.parametrize("stride", [1, 2])
def test_convolve_equals_conv1d(stride: int) -> None:
    weight, bias, x = some(32, 7, 3, seed=1), some(32, seed=2), some(20, 7, seed=3)
    layer = Linear(weight.transpose(1, 2).flatten(1), bias)
    expected = torch.nn.functional.conv1d(x.T[None], weight, bias, stride, padding=1)[0].T
    torch.testing.assert_close(
        convolve(x, layer, stride),
        torch.nn.functional.gelu(expected),
        atol=1e-4,
        rtol=1e-4,
    )
