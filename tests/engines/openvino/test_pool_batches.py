"""Grouping of rows into runs of the decoder's graph."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.engines.interface import StepRow
from batched_whisper.engines.openvino.pool_batches import PooledRow, group_by_length


def pooled_row(pool: int, pool_row: int, n_tokens: int) -> PooledRow:
    return PooledRow(
        pool,
        pool_row,
        StepRow(slot=10 * pool + pool_row, tokens=(7,) * n_tokens, position=0, allowed=None),
    )


rows = st.lists(
    st.builds(pooled_row, st.integers(0, 2), st.integers(0, 9), st.integers(2, 4)),
    unique_by=lambda each: (each.pool, each.pool_row),
)


@given(rows)
def test_group_by_length_groups_each_row_once_with_neighbours(given: list[PooledRow]) -> None:
    passes = group_by_length(given)
    assert sorted(each.row.slot for together in passes for each in together) == sorted(
        each.row.slot for each in given
    )
    for together in passes:
        assert len({len(each.row.tokens) for each in together}) == 1
        for _, here in groupby(together, key=lambda each: each.pool):
            places = [each.pool_row for each in here]
            assert places == list(range(places[0], places[0] + len(places)))


def test_group_by_length_makes_one_group_of_new_windows() -> None:
    new = [pooled_row(2, 0, 4), pooled_row(0, 5, 4), pooled_row(0, 6, 4), pooled_row(0, 7, 4)]
    assert len(group_by_length(new)) == 1


def test_group_by_length_splits_rows_that_are_not_neighbours() -> None:
    first, second = group_by_length([pooled_row(1, 4, 3), pooled_row(1, 2, 3)])
    assert [each.pool_row for each in first] == [2]
    assert [each.pool_row for each in second] == [4]
