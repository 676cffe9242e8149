"""Dynamic time warping by rows is dynamic time warping by the book."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from batched_whisper.transcript.dtw import median_of_7, path_entries

costs = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-5, 5)
)


def by_the_book(cost: NDArray[np.float64]) -> float:
    """What the cheapest path costs: every cell from its three neighbours."""
    n_rows, n_columns = cost.shape
    best = np.full((n_rows + 1, n_columns + 1), np.inf)
    best[0, 0] = 0
    for i in range(n_rows):
        for j in range(n_columns):
            best[i + 1, j + 1] = cost[i, j] + min(best[i, j], best[i, j + 1], best[i + 1, j])
    return float(best[-1, -1])


def cost_of(cost: NDArray[np.float64], entered: NDArray[np.int64]) -> float:
    """What the cheapest path costs that enters the rows at these columns."""
    total = 0.0
    for i, first in enumerate(entered):
        if i + 1 == len(entered):
            return total + float(cost[i, first:].sum())
        following = int(entered[i + 1])
        last = min(  # the row may be left in the column before the next entry, or in its own
            (last for last in (following - 1, following) if last >= first),
            key=lambda last: cost[i, first : last + 1].sum(),
        )
        total += float(cost[i, first : last + 1].sum())
    return total


@given(costs)
@settings(deadline=None)
def test_dtw_finds_a_path_of_lowest_cost(cost: NDArray[np.float64]) -> None:
    entered = path_entries(cost)
    assert entered[0] == 0
    assert (np.diff(entered) >= 0).all()
    assert cost_of(cost, entered) == by_the_book(cost)


def test_dtw_follows_a_clear_diagonal() -> None:
    where = np.repeat(np.arange(5), [3, 1, 4, 2, 6])
    cost = (np.arange(5)[:, None] != where).astype(float)
    assert path_entries(cost).tolist() == [0, 3, 4, 8, 10]


def test_dtw_supports_more_rows_than_columns() -> None:
    assert path_entries(np.zeros((5, 2))).tolist()[0] == 0
    assert path_entries(np.zeros((1, 1))).tolist() == [0]


@pytest.mark.parametrize("length", [4, 5, 7, 50])
def test_median_of_7_equals_numpy(length: int) -> None:
    rows = np.random.default_rng(length).standard_normal((3, length), np.float32)
    padded = np.pad(rows, [(0, 0), (3, 3)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 7, axis=1)
    assert np.array_equal(median_of_7(rows), np.median(windows, axis=2))


def test_a_row_too_short_to_mirror_stays_as_it_is() -> None:
    rows = np.array([[3.0, 1.0, 2.0]], np.float32)
    assert np.array_equal(median_of_7(rows), rows)
