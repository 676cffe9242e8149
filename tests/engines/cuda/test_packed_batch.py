"""Packed batches: windows of several lengths encoded together by the GPU engine."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

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

from batched_whisper.engines.cuda import packed_batch  # noqa: E402
from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.cuda.runners import encoder_runner  # noqa: E402
from batched_whisper.engines.interface import StepRow  # noqa: E402
from batched_whisper.engines.merged_padding import append_silence, layout  # noqa: E402

FULL = 1500
CONTEXTS = st.integers(1, FULL)


@given(st.lists(st.integers(1, 1564), max_size=80), st.sampled_from([1500, 6000, 12000]))
def test_split_batches_puts_each_window_in_one_batch_that_fits(
    lengths: list[int], most_positions: int
) -> None:
    found = packed_batch.split_batches(lengths, most_positions)
    assert [i for each in found for i in each] == list(range(len(lengths)))
    for each in found:
        assert 0 < len(each) <= packed_batch.MAX_WINDOWS
        assert len(each) == 1 or sum(lengths[i] for i in each) <= most_positions


@given(st.lists(st.integers(60, 1500), max_size=64))
def test_split_batches_makes_batches_as_large_as_possible(lengths: list[int]) -> None:
    found = packed_batch.split_batches(lengths, 12000)
    for each, after in pairwise(found):
        assert sum(lengths[i] for i in each) + lengths[after[0]] > 12000


def described(
    contexts: list[int], n_spare: int = 0
) -> tuple[packed_batch.PackedBatch, packed_batch.BatchShape]:
    layouts = [layout(context, FULL) for context in contexts]
    batch_shape = packed_batch.BatchShape(sum(map(len, layouts)) + n_spare, FULL, padding_slot=99)
    numbers = np.full(batch_shape.n_numbers + 7, -1, np.int32)
    packed_batch.write_batch(list(range(len(contexts))), layouts, batch_shape, numbers)
    assert (numbers[batch_shape.n_numbers :] == -1).all()
    return packed_batch.PackedBatch.of(torch.from_numpy(numbers), batch_shape), batch_shape


@given(st.lists(CONTEXTS, min_size=1, max_size=8), st.sampled_from([0, 1, 700]))
def test_packed_batch_maps_positions_and_frames_to_windows(
    contexts: list[int], n_spare: int
) -> None:
    found, _extent = described(contexts, n_spare)
    for i, context in enumerate(contexts):
        window_layout = layout(context, FULL)
        start, n = int(found.starts[i]), int(found.lengths[i])
        assert n == len(window_layout)
        assert (found.windows[start : start + n] == i).all()
        assert found.offsets[start : start + n].tolist() == list(range(n))
        assert found.positions[start : start + n].tolist() == window_layout.positions.tolist()
        # Convolved features of every second frame; each position reads its own window's.
        frames = 2 * found.frames[start : start + n]
        first = int((found.frame_windows == i).nonzero()[0])
        assert first % 2 == 0
        assert ((frames - first) // 2).tolist() == window_layout.frames.tolist()
        assert int((found.frame_windows == i).sum()) == window_layout.n_frames
        assert (
            window_layout.n_frames
            == append_silence(np.zeros((1, 2 * context), "f4"), FULL).shape[1]
        )
    n_all = int(found.lengths.sum())
    assert (found.windows[n_all:] == packed_batch.MAX_WINDOWS).all()
    assert (found.slots[len(contexts) :] == 99).all()
    for side in (-1, 1):  # zeros lie between windows, and around all
        beside = torch.nn.functional.pad(
            found.frame_windows, (1, 1), value=packed_batch.MAX_WINDOWS
        )
        moved = beside[1 + side : len(beside) - 1 + side]
        ours, theirs = found.frame_windows[found.is_window_frame], moved[found.is_window_frame]
        assert ((theirs == ours) | (theirs == packed_batch.MAX_WINDOWS)).all()


@given(st.lists(CONTEXTS, min_size=1, max_size=8), st.sampled_from([0, 700]))
def test_packed_batch_tiles_cover_every_query_once(contexts: list[int], n_spare: int) -> None:
    found, _extent = described(contexts, n_spare)
    seen = list[int]()
    for window, first in zip(found.tile_windows.tolist(), found.tile_firsts.tolist(), strict=True):
        if found.lengths[window]:
            end = int(found.starts[window] + found.lengths[window])
            seen += range(first, min(first + packed_batch.TILE, end))
    assert sorted(seen) == list(range(int(found.lengths.sum())))


CASES = [[7, 120, 61, 33, 119, 7], [30, 30, 30], [120, 120], [9, 8], [1], [120] * 9]


def heard_together(contexts: list[int], engine: CudaEngine) -> None:
    """Encode all windows in one call, and compare with plain NumPy."""
    heard = [Heard(i, context) for i, context in enumerate(contexts)]
    engine.encode([each.row(slot) for slot, each in enumerate(heard)])
    text = random_text(3, 6)
    rows = [StepRow(slot, text, 0, ANYTHING) for slot in range(len(contexts))]
    for each, row, result in zip(heard, rows, engine.step(rows), strict=True):
        check(result, row, reference_logits(each, text)[-1], 1e-3)


@pytest.mark.parametrize("contexts", CASES, ids=str)
def test_encode_of_any_packed_batch_agrees_with_numpy(
    contexts: list[int],
) -> None:
    heard_together(
        contexts, CudaEngine(tiny_checkpoint(), IDS, max_slots=len(contexts), device="cpu")
    )


class Played:
    """Replaces a CUDA graph."""

    def __init__(self, compute) -> None:  # type: ignore[no-untyped-def]
        self.replay = compute


def with_fixed_sizes(max_slots: int) -> CudaEngine:
    """Make an engine that runs batches and steps of a few sizes only, as a GPU replays its graphs.

    Unwritten memory is filled with NaN.
    """
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=max_slots, device="cpu")
    for graphs in (engine._encoder_runner.graphs, engine._decoder_runner.graphs):
        played = {n: Played(partial(graphs._compute, n)) for n in graphs.sizes}
        graphs._recorded = [played]
    engine._encoder_runner._device_pass.audio.fill_(float("nan"))
    return engine


@pytest.mark.parametrize("contexts", CASES, ids=str)
def test_padding_of_a_packed_batch_affects_no_window(contexts: list[int]) -> None:
    engine = with_fixed_sizes(len(contexts))
    heard_together(contexts, engine)
    heard_together(contexts[::-1], engine)
    for table in (engine._cache.cross_kv, engine._cache.self_kv):
        assert torch.isfinite(table).all()


@pytest.mark.parametrize("n_windows", [1, 5, 64, 65, 200])
def test_recorded_positions_cover_every_batch(n_windows: int) -> None:
    sizes = encoder_runner.recorded_positions(FULL)
    for context in (FULL, 320):
        lengths = [len(layout(context, FULL))] * n_windows
        for each in packed_batch.split_batches(lengths, sizes[-1]):
            n = sum(lengths[i] for i in each)
            size = min(size for size in sizes if size >= n)
            assert (n > 1000 and size <= 1.51 * n) or size <= 1000
    assert FULL in sizes  # a full window alone is not filled up


def test_recorded_positions_pad_the_short_mix_by_less_than_a_tenth() -> None:
    random = np.random.default_rng(0)
    seconds = np.clip(random.gamma(3.0, 7 / 3, 64), 1, 30)
    lengths = [len(layout(min(FULL, 32 * int(s * 50 / 32 + 2)), FULL)) for s in seconds]
    sizes = encoder_runner.recorded_positions(FULL)
    sums = [
        sum(lengths[i] for i in each) for each in packed_batch.split_batches(lengths, sizes[-1])
    ]
    filled = [min(size for size in sizes if size >= n) for n in sums]
    assert sum(filled) < 1.1 * sum(sums)


def test_encode_overwrites_all_of_a_slots_last_window() -> None:
    alone = CudaEngine(tiny_checkpoint(), IDS, max_slots=2, device="cpu")
    short, long = Heard(0, 8), Heard(1, N_AUDIO_CTX)
    alone.encode([short.row(0), long.row(1)])
    longer = Heard(2, 40)
    alone.encode([longer.row(0)])
    text = random_text(4, 5)
    row = StepRow(0, text, 0, ANYTHING)
    check(alone.step([row])[0], row, reference_logits(longer, text)[-1], 1e-3)
