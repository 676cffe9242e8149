"""Pools of slots: memory of a burst of windows is released without affecting other rows."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from batched_whisper.engines.merged_padding import layout
from batched_whisper.engines.openvino.pools import RETAINED_BYTES, CacheShape, SlotPool

CONTEXT = 1033  # a row is no whole number of pages
RETAINED_ROWS = RETAINED_BYTES // (4 * 2 * CONTEXT * 64 * 4)
SHAPE = CacheShape(
    n_slots=3 * RETAINED_ROWS,
    n_layers=2,
    n_heads=2,
    head_width=64,
    n_text_ctx=64,
    element=np.float32,
)


WHOLE, SHORTER = layout(CONTEXT, CONTEXT), layout(CONTEXT - 1, CONTEXT - 1)


def encoded(number: int, context: int = CONTEXT) -> list[np.ndarray]:
    return [np.full((2, context, 64), number + part / 10, np.float32) for part in range(4)]


def filled(n_rows: int) -> SlotPool:
    pool = SlotPool(CONTEXT, SHAPE)
    for slot in range(n_rows):
        pool.write_cross_kv(pool.add(slot), encoded(slot + 1), WHOLE)
    return pool


def empty(pool: SlotPool) -> None:
    while pool.slots:
        pool.remove(len(pool.slots) // 2)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system takes no such advice")
def test_empty_slot_pool_releases_cross_kv_memory() -> None:
    pool = filled(SHAPE.n_slots)
    empty(pool)
    # Pages that were given back are zeros; a page at either end belongs to a neighbour too.
    n_page = mmap.PAGESIZE // 4
    for part in pool.cross_kv:
        assert not part[RETAINED_ROWS:].reshape(-1)[n_page:-n_page].any()
        assert part[: RETAINED_ROWS - 1].all()


def test_empty_slot_pool_releases_self_kv_memory() -> None:
    pool = filled(SHAPE.n_slots)
    pool.fit_text(SHAPE.n_text_ctx)
    layers, heads, width = 2 * SHAPE.n_layers, SHAPE.n_heads, SHAPE.head_width
    rows = np.arange(SHAPE.n_slots)
    new = np.ones((layers, len(rows), heads, SHAPE.n_text_ctx, width), np.float32)
    pool.write_self_kv(rows, np.zeros_like(rows), new)
    empty(pool)
    n_page = mmap.PAGESIZE // 4
    for part in pool.self_kv:
        assert not part[RETAINED_ROWS:].reshape(-1)[n_page:-n_page].any()
        assert part[: RETAINED_ROWS - 1].all()


@pytest.mark.parametrize("n_rows", [1, RETAINED_ROWS, RETAINED_ROWS + 1, SHAPE.n_slots])
def test_slot_pool_stores_windows_after_releasing_memory(n_rows: int) -> None:
    pool = filled(SHAPE.n_slots)
    for _ in range(2):
        empty(pool)
        for slot in range(n_rows):
            pool.write_cross_kv(pool.add(slot), encoded(slot + 1, context=CONTEXT - 1), SHORTER)
        for slot in range(n_rows):
            for part, expected in zip(pool.cross_kv, encoded(slot + 1, CONTEXT - 1), strict=True):
                assert (part[slot, :, : CONTEXT - 1] == expected).all()


def test_slot_pool_keeps_rows_in_use() -> None:
    pool = filled(SHAPE.n_slots)
    while len(pool.slots) > 1:
        pool.remove(len(pool.slots) - 1)
    for part, expected in zip(pool.cross_kv, encoded(1), strict=True):
        assert (part[0] == expected).all()
