"""Dynamic time warping (DTW) and a median filter, in NumPy.

Aligns rows (tokens) with columns (audio positions). Knows nothing of words or seconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MEDIAN_OF_7 = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6),
    (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip
"""A sorting network: after these compare-exchanges of seven values, the fourth is the median."""
_MEDIAN_REACH = 3


def path_entries(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the column in which the path of lowest cost enters each row, ``[n_rows]``.

    The path goes from the first row and column to the last ones, in steps of one row, one column
    or both. Its cost is the sum of its elements (openai/whisper, ``timing.py``). Of two paths of
    equal cost it is the one that leaves later rows earlier.

    Computed row by row: with the cumulative ``sums`` of a row, the lowest cost to reach its column
    ``j`` is the minimum, over the columns ``k`` up to ``j``, of entering at ``k`` plus
    ``sums[j] - sums[k]``.

    Args:
        cost: ``[n_rows, n_columns]``, finite, at least one row and column.
    """
    n_rows, n_columns = cost.shape
    sums = np.zeros((n_rows, n_columns + 1))
    np.cumsum(cost, axis=1, dtype=np.float64, out=sums[:, 1:])
    entering = np.empty(
        (n_rows, n_columns)
    )  # minus the cumulative cost of the row up to that column
    from_left = np.zeros((n_rows, n_columns), bool)
    arriving = np.full(n_columns, np.inf)
    arriving[0] = 0.0
    for i in range(n_rows):
        np.subtract(arriving, sums[i, :-1], out=entering[i])
        total = np.minimum.accumulate(entering[i]) + sums[i, 1:]
        if i + 1 < n_rows:
            np.less_equal(total[:-1], total[1:], out=from_left[i + 1, 1:])
            arriving = np.where(from_left[i + 1], np.roll(total, 1), total)
    return _trace(entering, from_left)


def _trace(entering: NDArray[np.float64], from_left: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Trace the path back: find where each row was entered from where it was left."""
    n_rows, n_columns = entering.shape
    found = np.zeros(n_rows, np.int64)
    left_at = n_columns - 1
    for i in range(n_rows - 1, -1, -1):
        found[i] = entering[i, : left_at + 1].argmin()
        left_at = int(found[i]) - int(from_left[i, found[i]])
    return found


def median_of_7(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a median filter of width 7 along the last axis.

    The ends are mirrored; rows of at most three values are returned unchanged.
    """
    n = rows.shape[-1]
    if n <= _MEDIAN_REACH:
        return rows
    reach = (_MEDIAN_REACH, _MEDIAN_REACH)
    padded = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [reach], mode="reflect")
    seven = [padded[..., i : i + n] for i in range(2 * _MEDIAN_REACH + 1)]
    for low, high in _MEDIAN_OF_7:
        pair = seven[low], seven[high]
        seven[low], seven[high] = np.minimum(*pair), np.maximum(*pair)
    return seven[_MEDIAN_REACH]
