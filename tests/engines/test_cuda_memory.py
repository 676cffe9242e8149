"""How many slots a GPU's memory holds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda.memory import (  # noqa: E402
    RESERVE_BYTES,
    Room,
    SlotCount,
    count_slots,
    reserve_bytes,
    take_what_fits,
)
from batched_whisper.engines.cuda.tables import slot_bytes  # noqa: E402
from batched_whisper.errors import EngineError  # noqa: E402
from batched_whisper.models.dimensions import SHAPES  # noqa: E402

SLOT = 300_000_000
GB = 1_000_000_000


def test_as_many_as_asked_for_where_they_fit() -> None:
    assert count_slots(64, SLOT, Room(80 * GB, 75 * GB, 0.9)).n_slots == 64
    assert count_slots(64, SLOT, None).n_slots == 64


@pytest.mark.parametrize("wanted", [64, 1024])
@pytest.mark.parametrize("fraction", [0.3, 0.9, 1.0])
def test_what_is_taken_stays_within_the_fraction_and_is_not_less_than_need_be(
    wanted: int, fraction: float
) -> None:
    room = Room(24 * GB, 20 * GB, fraction)
    count = count_slots(wanted, SLOT, room)
    used = 4 * GB + RESERVE_BYTES + (count.n_slots + 1) * SLOT  # one row is nobody's
    assert used <= 24 * GB * fraction
    assert count.n_slots == wanted or used + SLOT > 24 * GB * fraction
    assert count.n_slots == wanted or f"instead of {wanted}" in count.why


@pytest.mark.parametrize(("kept", "least"), [(torch.int8, 320), (torch.float16, 190)])
def test_an_80_gb_gpu_holds_so_many_windows_of_large_v3(kept: torch.dtype, least: int) -> None:
    sizes, dtype = SHAPES["large-v3"], torch.float16
    free = 85 * GB - int(3.1 * GB)  # beside the weights
    reserve = reserve_bytes(sizes, dtype, n_positions=8 * 1500, most_tokens=480)
    assert RESERVE_BYTES < reserve < 3 * GB
    larger = reserve_bytes(sizes, dtype, n_positions=8 * 1500, most_tokens=960)
    assert larger - reserve >= 4 * 480 * sizes.n_vocab  # the logits of more tokens
    apart = reserve_bytes(sizes, dtype, n_positions=8 * 1500, most_tokens=480, n_places=2)
    assert apart - reserve >= 8 * 1500 * 20 * sizes.n_audio_state * dtype.itemsize  # once more
    slot = slot_bytes(sizes, dtype, kept)
    count = count_slots(320, slot, Room(85 * GB, free, 0.9), reserve)
    assert least <= count.n_slots <= 320
    assert slot_bytes(sizes, dtype, torch.int8) < 0.62 * slot_bytes(sizes, dtype, dtype)


def test_where_not_one_fits_the_error_names_the_option() -> None:
    with pytest.raises(EngineError, match=r"gpu_memory_fraction=0\.2"):
        count_slots(1, SLOT, Room(24 * GB, 20 * GB, 0.2))


def test_where_memory_is_short_after_all_there_are_fewer_slots_and_a_reason() -> None:
    def take(n_slots: int) -> int:
        if n_slots > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return n_slots

    taken = take_what_fits(take, SlotCount(64, "as asked for"))
    assert (taken.thing, taken.count.n_slots) == (16, 16)
    assert "16 slots instead of 64" in taken.count.why
    assert take_what_fits(take, SlotCount(20, "as asked for")).count.why == "as asked for"


def test_where_there_is_no_memory_for_one_it_is_an_engine_error() -> None:
    def take(n_slots: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(EngineError, match="single window"):
        take_what_fits(take, SlotCount(3, ""))
