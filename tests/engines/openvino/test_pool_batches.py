"""Which rows are fed together in one pass."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.engines.interface import StepRow
from batched_whisper.engines.openvino.pool_batches import Fed, fed_together


def fed(pool: int, place: int, n_tokens: int) -> Fed:
    return Fed(
        pool,
        place,
        StepRow(slot=10 * pool + place, tokens=(7,) * n_tokens, position=0, allowed=None),
    )


rows = st.lists(
    st.builds(fed, st.integers(0, 2), st.integers(0, 9), st.integers(2, 4)),
    unique_by=lambda each: (each.pool, each.place),
)


@given(rows)
def test_every_row_is_fed_once_with_neighbours_of_the_same_length(given: list[Fed]) -> None:
    passes = fed_together(given)
    assert sorted(each.row.slot for together in passes for each in together) == sorted(
        each.row.slot for each in given
    )
    for together in passes:
        assert len({len(each.row.tokens) for each in together}) == 1
        for _, here in groupby(together, key=lambda each: each.pool):
            places = [each.place for each in here]
            assert places == list(range(places[0], places[0] + len(places)))


def test_prompts_of_new_windows_are_one_pass() -> None:
    new = [fed(2, 0, 4), fed(0, 5, 4), fed(0, 6, 4), fed(0, 7, 4)]
    assert len(fed_together(new)) == 1


def test_a_row_between_two_is_left_out() -> None:
    first, second = fed_together([fed(1, 4, 3), fed(1, 2, 3)])
    assert [each.place for each in first] == [2]
    assert [each.place for each in second] == [4]
