"""Selection of kernels: each is checked before use, and replaced if it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import IDS, tiny_checkpoint  # noqa: E402

from batched_whisper.engines.cuda import engine  # noqa: E402
from batched_whisper.engines.cuda.cuda_graphs import StreamSlot  # noqa: E402
from batched_whisper.engines.cuda.kernels import dispatch  # noqa: E402
from batched_whisper.engines.cuda.kernels.dispatch import (  # noqa: E402
    PYTORCH,
    Heads,
    best_operations,
    check_operations,
    working_operations,
)
from batched_whisper.engines.cuda.kv_cache import LayerKV  # noqa: E402
from batched_whisper.engines.cuda.model import attention  # noqa: E402
from batched_whisper.engines.cuda.model.attention import MergedPositions  # noqa: E402
from batched_whisper.engines.cuda.runners.encoder_runner import EncoderRunner  # noqa: E402
from batched_whisper.engines.cuda.streams import Streams  # noqa: E402
from batched_whisper.errors import EngineError  # noqa: E402

CPU = torch.device("cpu")
HEADS = Heads(3, 64)


def test_best_operations_on_a_cpu_are_plain_pytorch() -> None:
    assert best_operations(CPU, torch.float32, HEADS) is PYTORCH


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_check_operations_accepts_plain_pytorch(dtype: torch.dtype) -> None:
    check_operations(PYTORCH, CPU, dtype, HEADS)


def too_much(queries, table, rows, lengths, merged=None):  # type: ignore[no-untyped-def]
    longest = table.numbers.shape[3]
    return PYTORCH.decoder_attention(queries, table, rows, (lengths + 9).clamp(max=longest), merged)


def once(queries, table, rows, lengths, merged=None):  # type: ignore[no-untyped-def]
    return PYTORCH.decoder_attention(queries, table, rows, lengths)


def all_windows(heads, batch):  # type: ignore[no-untyped-def]
    """Attends beyond the window."""
    longer = batch.lengths + (batch.lengths > 0).int()
    return PYTORCH.encoder_attention(heads, replace(batch, lengths=longer))


def everywhere_alike(pair, batch, table):  # type: ignore[no-untyped-def]
    """Writes all windows to the first slot."""
    PYTORCH.write_cross_kv(pair, replace(batch, slots=batch.slots * 0), table)


def at_the_next(heads, table, rows, positions):  # type: ignore[no-untyped-def]
    PYTORCH.write_self_kv(heads, table, rows, positions + 1)


def without_deferred_bias(x, weight, bias, deferred_bias):  # type: ignore[no-untyped-def]
    return PYTORCH.normalise(x, weight, bias, None)


def off_by(amount: float):  # type: ignore[no-untyped-def]
    return lambda logits, hidden, inputs: PYTORCH.choose(logits, hidden, inputs) + amount


WRONG = {
    "attends to too many positions": {"decoder_attention": too_much},
    "ignores merged positions": {"decoder_attention": once},
    "attends to the next window": {"encoder_attention": all_windows},
    "writes windows to other slots": {"write_cross_kv": everywhere_alike},
    "writes tokens to the next position": {"write_self_kv": at_the_next},
    "ignores deferred biases": {"normalise": without_deferred_bias},
    "gives a wrong token": {"choose": off_by(1)},
    "gives NaN": {"choose": off_by(float("nan"))},
}


@pytest.mark.parametrize("name", WRONG)
def test_check_operations_rejects_wrong_kernels(name: str) -> None:
    with pytest.raises(ValueError, match="off by"):
        check_operations(replace(PYTORCH, **WRONG[name]), CPU, torch.float32, HEADS)


def test_check_operations_covers_every_operation() -> None:
    """Each trial fails if its operation is wrong."""
    fields = {field for changes in WRONG.values() for field in changes}
    assert fields == {
        "decoder_attention",
        "encoder_attention",
        "write_cross_kv",
        "write_self_kv",
        "normalise",
        "choose",
    }
    assert fields | {"why"} == set(dispatch.Operations.__dataclass_fields__)


@pytest.mark.parametrize("name", WRONG)
def test_working_operations_replaces_only_the_failing_kernel(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other kernels, recognised by identity, stay."""
    others = {field: lambda *a, f=f: f(*a) for field, f in vars(PYTORCH).items() if field != "why"}
    [(broken, wrong)] = WRONG[name].items()
    kernels = replace(PYTORCH, **{**others, broken: wrong}, why="kernels")
    found = working_operations(kernels, CPU, torch.float32, HEADS)
    for field, other in others.items():
        assert getattr(found, field) is (getattr(PYTORCH, field) if field == broken else other)
    assert found.why.startswith(f"slower in plain PyTorch: {broken} (results are off by")
    assert caplog.messages == [f"slower than this GPU could be, in plain PyTorch: {found.why[25:]}"]


def test_working_operations_gives_a_shared_reason_once() -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    kernels = replace(PYTORCH, **{field: broken for field in vars(PYTORCH) if field != "why"})
    found = working_operations(kernels, CPU, torch.float32, HEADS)
    assert replace(found, why=PYTORCH.why) == PYTORCH
    assert found.why == (
        "slower in plain PyTorch: decoder_attention, encoder_attention, write_cross_kv, "
        "write_self_kv, normalise, choose "
        "(Failed to find C compiler. Please specify one)"
    )


def test_working_operations_keeps_kernels_that_work() -> None:
    kernels = replace(PYTORCH, why="kernels")
    assert working_operations(kernels, CPU, torch.float32, HEADS) is kernels


def test_best_operations_skips_encoder_attention_on_old_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It works there, but slower than PyTorch's own."""
    tried = []
    kernels = replace(PYTORCH, encoder_attention=lambda *given: tried.append(given), why="kernels")
    monkeypatch.setattr(dispatch, "triton_operations", lambda: kernels)
    monkeypatch.setattr(dispatch, "find_spec", lambda name: name)
    monkeypatch.setattr(dispatch, "check_operations", lambda *given: None)
    for capability, encoder_attention in (
        ((7, 5), PYTORCH.encoder_attention),
        ((8, 0), kernels.encoder_attention),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        found = best_operations(torch.device("cuda", 0), torch.float16, HEADS)
        assert found.encoder_attention is encoder_attention
        assert ("encoder_attention (Triton supports" in found.why) == (capability < (8, 0))
    assert not tried


@pytest.mark.parametrize("has_merged", [False, True])
def test_decoder_attention_of_many_rows_equals_each_row_alone(
    has_merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "ROWS_PER_COPY", 4)
    n, random = 11, torch.Generator().manual_seed(0)
    queries = torch.randn((n, 2, 8), generator=random)
    table = LayerKV(torch.randn((2, 5, 2, 30, 8), generator=random))
    rows, lengths = torch.arange(n) % 5, torch.arange(1, n + 1)
    merged = MergedPositions(lengths // 2, torch.rand(n, generator=random)) if has_merged else None
    found = attention.decoder_attention(queries, table, rows, lengths, merged)
    for i in range(n):
        own = None if merged is None else MergedPositions(*(each[i : i + 1] for each in merged))
        one = slice(i, i + 1)
        alone = attention.decoder_attention(queries[one], table, rows[one], lengths[one], own)
        assert torch.allclose(found[one], alone, atol=1e-6)


def test_encoding_is_not_recorded_if_encoder_attention_syncs_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream_slots = []

    def recorded(*given: Any, **options: Any) -> EncoderRunner:
        stream_slots.append(options.pop("stream_slots"))
        return EncoderRunner(*given, **options)

    class Placed(Streams):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.encoding = [StreamSlot("a stream")]

    monkeypatch.setattr(engine, "EncoderRunner", recorded)
    monkeypatch.setattr(engine, "Streams", Placed)
    for encoder_attention in (
        PYTORCH.encoder_attention,
        lambda *given: PYTORCH.encoder_attention(*given),
    ):
        chosen = replace(PYTORCH, encoder_attention=encoder_attention)
        monkeypatch.setattr(engine, "best_operations", lambda *given, c=chosen: c)
        engine.CudaEngine(tiny_checkpoint(), IDS, max_slots=1, device="cpu")
    assert stream_slots == [(), [StreamSlot("a stream")]]


def test_failure_at_start_is_an_engine_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(*given: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    monkeypatch.setattr(engine, "Streams", busy)
    with pytest.raises(EngineError, match="PyTorch failed on cpu while starting: CUDA error: all"):
        engine.CudaEngine(tiny_checkpoint(), IDS, max_slots=1, device="cpu")
