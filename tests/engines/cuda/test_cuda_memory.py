"""The number of slots that fit into a GPU's memory."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda import kv_cache  # noqa: E402
from batched_whisper.engines.cuda.kv_cache import SlotCopy, slot_bytes  # noqa: E402
from batched_whisper.engines.cuda.memory import (  # noqa: E402
    RESERVE_BYTES,
    MemoryBudget,
    SlotCount,
    allocate_slots,
    count_slots,
    reserve_bytes,
)
from batched_whisper.errors import EngineError  # noqa: E402
from batched_whisper.models.dimensions import SHAPES  # noqa: E402

SLOT = 300_000_000
GB = 1_000_000_000


def test_count_slots_gives_the_wanted_number_if_it_fits() -> None:
    assert count_slots(64, SLOT, MemoryBudget(80 * GB, 75 * GB, 0.9)).n_slots == 64
    assert count_slots(64, SLOT, None).n_slots == 64


@pytest.mark.parametrize("wanted", [64, 1024])
@pytest.mark.parametrize("fraction", [0.3, 0.9, 1.0])
def test_count_slots_fills_the_memory_fraction(wanted: int, fraction: float) -> None:
    budget = MemoryBudget(24 * GB, 20 * GB, fraction)
    count = count_slots(wanted, SLOT, budget)
    used = 4 * GB + RESERVE_BYTES + (count.n_slots + 1) * SLOT  # one row is the padding slot
    assert used <= 24 * GB * fraction
    assert count.n_slots == wanted or used + SLOT > 24 * GB * fraction
    assert count.n_slots == wanted or f"instead of {wanted}" in count.why


@pytest.mark.parametrize(("kept", "least"), [(torch.int8, 320), (torch.float16, 190)])
def test_slot_bytes_of_large_v3_on_an_80_gb_gpu(kept: torch.dtype, least: int) -> None:
    sizes, dtype = SHAPES["large-v3"], torch.float16
    free = 85 * GB - int(3.1 * GB)  # beside the weights
    reserve = reserve_bytes(sizes, dtype, n_positions=8 * 1500, max_tokens=480)
    assert RESERVE_BYTES < reserve < 3 * GB
    larger = reserve_bytes(sizes, dtype, n_positions=8 * 1500, max_tokens=960)
    assert larger - reserve >= 4 * 480 * sizes.n_vocab  # the logits of more tokens
    apart = reserve_bytes(sizes, dtype, n_positions=8 * 1500, max_tokens=480, n_stream_slots=2)
    assert apart - reserve >= 8 * 1500 * 20 * sizes.n_audio_state * dtype.itemsize  # once more
    slot = slot_bytes(sizes, dtype, kept)
    count = count_slots(320, slot, MemoryBudget(85 * GB, free, 0.9), reserve)
    assert least <= count.n_slots <= 320
    assert slot_bytes(sizes, dtype, torch.int8) < 0.62 * slot_bytes(sizes, dtype, dtype)


def test_count_slots_error_names_gpu_memory_fraction() -> None:
    with pytest.raises(EngineError, match=r"gpu_memory_utilization=0\.2"):
        count_slots(1, SLOT, MemoryBudget(24 * GB, 20 * GB, 0.2))


def test_allocate_slots_halves_the_slots_when_out_of_memory() -> None:
    def take(n_slots: int) -> int:
        if n_slots > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return n_slots

    taken = allocate_slots(take, SlotCount(64, "as asked for"))
    assert (taken.value, taken.count.n_slots) == (16, 16)
    assert "16 slots instead of 64" in taken.count.why
    assert allocate_slots(take, SlotCount(20, "as asked for")).count.why == "as asked for"


def test_allocate_slots_raises_engine_error_without_memory_for_one() -> None:
    def take(n_slots: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(EngineError, match="single window"):
        allocate_slots(take, SlotCount(3, ""))


@pytest.mark.parametrize("copy_chunk_bytes", [1, 5_000, 20_000, 1 << 28])
def test_copy_rows_does_not_depend_on_the_chunk_size(
    copy_chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "COPY_CHUNK_BYTES", copy_chunk_bytes)
    random = torch.Generator().manual_seed(0)
    table = torch.randint(-127, 128, (5, 2, 9, 3, 20, 4), generator=random, dtype=torch.int8)
    before, copies = table.clone(), [SlotCopy(source, 8 - source, None, 7) for source in range(4)]
    kv_cache._copy_rows(table, copies, 7)
    for source in range(4):
        assert torch.equal(table[:, :, 8 - source, :, :7], before[:, :, source, :, :7])
        table[:, :, 8 - source, :, :7] = before[:, :, 8 - source, :, :7]
    assert torch.equal(table, before)  # nothing else was written


def test_copy_rows_uses_temporary_memory_of_at_most_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If every window of a batch of large-v3 branches, it would be gigabytes."""
    monkeypatch.setattr(kv_cache, "COPY_CHUNK_BYTES", 10_000)
    table = torch.zeros((6, 2, 41, 3, 50, 4), dtype=torch.int8)  # a row of a layer: 1,200 bytes
    sizes = list[int]()

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            found = func(*args, **(kwargs or {}))
            if func is torch.Tensor.__getitem__ and found.data_ptr() != args[0].data_ptr():
                sizes.append(found.numel() * found.itemsize)
            return found

    with Watched():
        kv_cache._copy_rows(table, [SlotCopy(i, 40 - i, None, 50) for i in range(20)], 50)
    assert max(sizes) <= 10_000
    assert sum(sizes) == 20 * 6 * 1_200
