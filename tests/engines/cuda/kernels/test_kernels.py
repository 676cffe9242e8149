"""The Triton kernels against their definitions in plain PyTorch, on a CPU by Triton's interpreter.

The interpreter cannot show whether a GPU's compiler accepts them, or how fast they are.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported
pytest.importorskip("triton", reason="Triton is not installed: pip install --no-deps triton")

import numpy as np  # noqa: E402
from tiny_whisper import (  # noqa: E402
    ANYTHING,
    IDS,
    N_AUDIO_CTX,
    Heard,
    check,
    random_text,
    reference_logits,
    tiny_checkpoint,
)

from batched_whisper.engines.cuda import engine as engine_module  # noqa: E402
from batched_whisper.engines.cuda import packed_batch  # noqa: E402
from batched_whisper.engines.cuda.kernels import (  # noqa: E402
    decoder_kernels,
    dispatch,
    encoder_kernels,
    launch_config,
)
from batched_whisper.engines.cuda.kv_cache import LayerKV  # noqa: E402
from batched_whisper.engines.cuda.model import attention, layers, token_choice  # noqa: E402
from batched_whisper.engines.cuda.model.decode_inputs import Field, float_bits  # noqa: E402
from batched_whisper.engines.interface import StepRow  # noqa: E402
from batched_whisper.engines.merged_padding import layout  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NEAR = {"cpu": 1e-5, "cuda": 1e-4}[DEVICE]
N_ROWS, N_HEADS, WIDTH = 5, 3, 16


def attention_case(seed: int, longest: int, dtype: torch.dtype, n: int = 4):  # type: ignore[no-untyped-def]
    """Return queries, a layer's keys and values, rows and lengths."""
    random = torch.Generator().manual_seed(seed)
    queries = torch.randn((n, 3, N_HEADS, WIDTH), generator=random)
    table = torch.randn((2, N_ROWS, N_HEADS, longest, WIDTH), generator=random)
    rows = torch.randint(0, N_ROWS, (n,), generator=random)
    lengths = torch.randint(1, longest + 1, (n,), generator=random)
    lengths[0], lengths[-1] = 1, longest
    parts = [each.to(DEVICE) for each in (queries.to(dtype), table.to(dtype), rows, lengths)]
    # One of three parts: queries with a stride.
    return parts[0][:, 1], LayerKV(parts[1]), *parts[2:]


def merged_case(lengths: torch.Tensor) -> attention.MergedPositions:
    """Make some positions of each query merged, but none of the last query."""
    random = torch.Generator().manual_seed(1)
    n_own = (lengths.cpu() * torch.rand(len(lengths), generator=random)).int()
    n_own[-1] = lengths[-1]
    log_sizes = 4 * torch.rand(len(lengths), generator=random)
    return attention.MergedPositions(n_own.to(DEVICE), log_sizes.to(DEVICE))


@pytest.mark.parametrize("longest", [1, 16, 17, 100, 129])
@pytest.mark.parametrize("n_programs", [1, 24, 1000])
@pytest.mark.parametrize("has_merged", [False, True])
def test_decoder_attention_kernel_equals_the_definition(
    longest: int, n_programs: int, has_merged: bool
) -> None:
    case = attention_case(longest, longest, torch.float32)
    launch = launch_config.DecoderAttentionLaunch(block=16, n_programs=n_programs)
    merged = merged_case(case[-1]) if has_merged else None
    found = decoder_kernels.decoder_attention(*case, merged, launch)
    torch.testing.assert_close(
        found, attention.decoder_attention(*case, merged), atol=NEAR, rtol=NEAR
    )


def test_merged_positions_equal_repeated_positions() -> None:
    queries, table, rows, lengths = attention_case(5, 40, torch.float32, n=N_ROWS)
    n_own, times = lengths // 2, torch.arange(1, N_ROWS + 1, device=DEVICE)
    merged = attention.MergedPositions(n_own, times.log())
    for decoder_attention in (attention.decoder_attention, decoder_kernels.decoder_attention):
        found = decoder_attention(queries, table, rows, lengths, merged)
        for i, (row, length, own, n) in enumerate(
            zip(*(each.tolist() for each in (rows, lengths, n_own, times)), strict=True)
        ):
            kept = table.numbers[:, row, :, :own]
            several = table.numbers[:, row, :, own:length]
            repeated = LayerKV(torch.cat([kept, *[several] * n], 2)[:, None])
            row_of, length_of = rows[:1] * 0, lengths[:1] * 0 + own + n * (length - own)
            expected = attention.decoder_attention(queries[i : i + 1], repeated, row_of, length_of)
            torch.testing.assert_close(found[i : i + 1], expected, atol=NEAR, rtol=NEAR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_decoder_attention_kernel_in_16_bits_is_as_accurate_as_the_definition(
    dtype: torch.dtype,
) -> None:
    queries, table, rows, lengths = attention_case(3, 70, dtype)
    exact = attention.decoder_attention(
        queries.double(), LayerKV(table.numbers.double()), rows, lengths
    )
    found = decoder_kernels.decoder_attention(
        queries,
        table,
        rows,
        lengths,
        launch=launch_config.DecoderAttentionLaunch(16, n_programs=30),
    )
    assert found.dtype is dtype
    error = (found.double() - exact).norm() / exact.norm()
    assert error < 2 * torch.finfo(dtype).eps


def test_decoder_attention_kernel_never_reads_beyond_a_rows_length() -> None:
    queries, table, rows, lengths = attention_case(4, 40, torch.float32, n=N_ROWS)
    rows = torch.arange(N_ROWS, device=DEVICE)
    expected = attention.decoder_attention(queries, table, rows, lengths)
    poisoned = table.numbers.clone()
    for row, length in zip(rows.tolist(), lengths.tolist(), strict=True):
        poisoned[:, row, :, length:] = float("nan")
    found = decoder_kernels.decoder_attention(
        queries,
        LayerKV(poisoned),
        rows,
        lengths,
        launch=launch_config.DecoderAttentionLaunch(block=16, n_programs=60),
    )
    torch.testing.assert_close(found, expected, atol=NEAR, rtol=NEAR)


@pytest.mark.parametrize("n_programs", [1, 1000])
def test_int8_attention_kernel_equals_attention_over_dequantised_keys(n_programs: int) -> None:
    queries, table, rows, lengths = attention_case(6, 70, torch.float32)
    random = torch.Generator().manual_seed(2)
    numbers = torch.randint(-127, 128, table.numbers.shape, generator=random).to(DEVICE, torch.int8)
    scales = torch.rand((2, N_ROWS, N_HEADS, WIDTH), generator=random).to(DEVICE) / 50
    expected = attention.decoder_attention(
        queries, LayerKV(numbers * scales[..., None, :]), rows, lengths, merged_case(lengths)
    )
    launch = launch_config.DecoderAttentionLaunch(block=16, n_programs=n_programs)
    kept = LayerKV(numbers, scales)
    merged = merged_case(lengths)
    found = attention.decoder_attention(queries, kept, rows, lengths, merged)
    torch.testing.assert_close(found, expected, atol=NEAR, rtol=NEAR)
    found = decoder_kernels.decoder_attention(queries, kept, rows, lengths, merged, launch)
    # Bytes in the middle of a float32's are exact to a hundredth of a step (`int8_attention`).
    step = 0.01 * float(scales.max())
    torch.testing.assert_close(found, expected, atol=step, rtol=NEAR)
    if DEVICE == "cuda":
        plain = replace(launch, use_ptx=False)
        again = decoder_kernels.decoder_attention(queries, kept, rows, lengths, merged, plain)
        torch.testing.assert_close(again, found, atol=step, rtol=NEAR)


FULL = 300
BATCHES = [[FULL], [3, 64, 200], [130, FULL, 1], [236, 237]]


def windows_of(contexts: list[int], n_spare: int = 9) -> packed_batch.PackedBatch:
    layouts = [layout(context, FULL) for context in contexts]
    batch_shape = packed_batch.BatchShape(
        sum(map(len, layouts)) + n_spare, FULL, padding_slot=len(contexts)
    )
    numbers = np.zeros(batch_shape.n_numbers, np.int32)
    packed_batch.write_batch(list(range(len(contexts)))[::-1], layouts, batch_shape, numbers)
    return packed_batch.PackedBatch.of(torch.from_numpy(numbers).to(DEVICE), batch_shape)


@pytest.mark.parametrize("contexts", BATCHES, ids=str)
@pytest.mark.parametrize("block", [32, 64])
def test_encoder_attention_kernel_equals_the_definition(contexts: list[int], block: int) -> None:
    windows = windows_of(contexts)
    random = torch.Generator().manual_seed(block)
    heads = torch.randn((len(windows.windows), 3, 2, WIDTH), generator=random).to(DEVICE)
    n = int(windows.lengths.sum())
    heads[n:] = float("nan")  # what is no window's
    found = encoder_kernels.encoder_attention(
        heads, windows, launch_config.EncoderAttentionLaunch(block)
    )
    expected = attention.encoder_attention(heads, windows)
    torch.testing.assert_close(found[:n], expected[:n], atol=NEAR, rtol=NEAR)


@pytest.mark.parametrize("kind", [torch.int8, torch.float16, torch.float32])
def test_write_cross_kv_kernel_equals_the_definition(kind: torch.dtype) -> None:
    windows, n_slots = windows_of([130, 3, FULL]), 3
    random = torch.Generator().manual_seed(3)
    pair = torch.randn((len(windows.windows), 2, N_HEADS, WIDTH), generator=random).to(DEVICE)
    pair[:, :, :, 5] *= 100  # a channel that is louder than others
    pair[:, :, :, 7] = 0
    pair[int(windows.lengths.sum()) :] = float("nan")

    def kept(write_cross_kv) -> LayerKV:  # type: ignore[no-untyped-def]
        shape = (2, n_slots + 1, N_HEADS)
        scales = torch.ones((*shape, WIDTH), device=DEVICE) if kind is torch.int8 else None
        table = LayerKV(torch.full((*shape, FULL, WIDTH), 77, dtype=kind, device=DEVICE), scales)
        write_cross_kv(pair, windows, table)
        return table

    found, expected = kept(encoder_kernels.write_cross_kv), kept(attention.write_cross_kv)
    assert (found.numbers[:, n_slots] == 77).all()  # the padding slot
    torch.testing.assert_close(found.numbers[:, :n_slots], expected.numbers[:, :n_slots])
    if kind is torch.int8:
        torch.testing.assert_close(found.scales[:, :n_slots], expected.scales[:, :n_slots])
        start, length = int(windows.starts[0]), int(windows.lengths[0])
        slot = int(windows.slots[0])
        back = found.numbers[:, slot, :, :length] * found.scales[:, slot, :, None]
        given = pair[start : start + length].permute(1, 2, 0, 3)
        off = (back - given).abs().amax(2) / found.scales[:, slot]
        assert off.max() <= 0.5 + 1e-3  # half a step of the channel's own scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_write_self_kv_kernel_equals_the_definition(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(4)
    heads = torch.randn((4, 3, N_HEADS, WIDTH), generator=random).to(DEVICE, dtype)
    rows, positions = torch.tensor([[2, 0, 2, 4], [5, 0, 6, 6]], device=DEVICE)

    def said(write_self_kv) -> torch.Tensor:  # type: ignore[no-untyped-def]
        table = LayerKV(torch.full((2, N_ROWS, N_HEADS, 7, WIDTH), 77, dtype=dtype, device=DEVICE))
        write_self_kv(heads, table, rows, positions)
        return table.numbers

    torch.testing.assert_close(
        said(decoder_kernels.write_self_kv), said(attention.write_self_kv), atol=0, rtol=0
    )


@pytest.mark.parametrize("width", [48, 1280])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("has_deferred_bias", [True, False])
def test_normalise_kernel_equals_the_definition(
    width: int, dtype: torch.dtype, has_deferred_bias: bool
) -> None:
    random = torch.Generator().manual_seed(width)
    x = (3 + 40 * torch.randn((5, width), generator=random)).to(DEVICE, dtype)
    weight, bias, deferred_bias = (
        torch.randn(width, generator=random).to(DEVICE) for _ in range(3)
    )
    deferred_bias = 30 * deferred_bias if has_deferred_bias else None
    found = encoder_kernels.normalise(x, weight, bias, deferred_bias)
    expected = layers.normalise(x, weight, bias, deferred_bias)
    assert found.dtype is dtype
    near = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(found, expected, atol=near, rtol=near)


def test_decoder_attention_launch_splits_only_if_programs_are_few() -> None:
    launch = launch_config.DecoderAttentionLaunch(block=64, n_programs=4096)
    assert launch.n_parts(256 * 20, 1500) == 1
    assert launch.n_parts(20, 1500) == 32  # of 24 blocks; a power of two
    assert launch.n_parts(20, 10) == 1


def choice_case(n_vocab: int, begin: int, temperatures: list[float], n: int = 6):  # type: ignore[no-untyped-def]
    random = torch.Generator().manual_seed(n_vocab)
    logits = 4 * torch.randn((n, n_vocab), generator=random)
    hidden = torch.rand((4, begin), generator=random) < 0.5
    hidden[0] = True
    inputs = torch.zeros((len(Field), n), dtype=torch.int64)
    inputs[Field.MASK] = torch.tensor([0, 1, 2, 3, 1, 2])
    inputs[Field.TIME_FIRST] = torch.tensor([begin, begin + 3, 0, begin, 0, n_vocab - 1])
    inputs[Field.TIME_STOP] = torch.tensor([n_vocab, begin + 9, 0, n_vocab, 0, n_vocab])
    inputs[Field.PROBE] = torch.tensor([0, 5, begin, n_vocab - 1, 7, 1])
    inputs[Field.TEMPERATURE] = torch.tensor([float_bits(t) for t in temperatures])
    inputs[Field.STREAM] = torch.tensor([0, 1, 2**32 - 1, 2**31, 12345, 77])
    inputs[Field.POSITION] = torch.arange(3, 9)
    logits[3, : begin // 2] += 20  # text wins here, and timestamps in the first row
    return logits.to(DEVICE), hidden.to(DEVICE), inputs.to(DEVICE)


@pytest.mark.parametrize(("n_vocab", "begin"), [(221, 160), (9001, 7800), (8192, 4096)])
@pytest.mark.parametrize("temperatures", [[0.0] * 6, [0.2, 0.0, 1.0, 0.6, 0.0, 2.0], [1.0] * 6])
def test_choose_kernel_equals_the_definition(
    n_vocab: int, begin: int, temperatures: list[float]
) -> None:
    case = choice_case(n_vocab, begin, temperatures)
    found, expected = decoder_kernels.choose(*case), token_choice.choose(*case)
    assert found[0].tolist() == expected[0].tolist()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU runs the engine's own tests on kernels")
@pytest.mark.parametrize("kv_cache_dtype", ["model", "int8"])
def test_engine_on_triton_kernels_agrees_with_numpy(
    monkeypatch: pytest.MonkeyPatch, kv_cache_dtype: str
) -> None:
    """Tests strides, addresses and types as the engine has them."""
    every = replace(dispatch.triton_operations(), why="kernels by the interpreter")
    monkeypatch.setattr(engine_module, "best_operations", lambda *given: every)
    engine = engine_module.CudaEngine(
        tiny_checkpoint(), IDS, max_slots=3, device="cpu", kv_cache_dtype=kv_cache_dtype
    )
    assert "kernels by the interpreter" in engine.info.why
    heard = [Heard(1, 30), Heard(2, N_AUDIO_CTX)]
    engine.encode([each.row(slot) for slot, each in zip((2, 0), heard, strict=True)])
    text = random_text(3, 4)
    rows = [StepRow(slot, text, 0, ANYTHING) for slot in (2, 0)]
    for each, row, result in zip(heard, rows, engine.step(rows), strict=True):
        near = 1e-3 if kv_cache_dtype == "model" else 0.5
        check(result, row, reference_logits(each, text)[-1], near)
