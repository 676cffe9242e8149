"""Laws of the plan and of the slots."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_windows import window

from batched_whisper.batching.decode_request import DecodeRequest
from batched_whisper.batching.scheduler import Limits, plan
from batched_whisper.batching.sequence import Sequence
from batched_whisper.batching.slots import SlotTable
from batched_whisper.decoding.beam import Beams


def take(table: SlotTable, request: DecodeRequest) -> Sequence:
    return table.allocate(request.n_slots, partial(Sequence, request))


counts = st.integers(0, 100)
limits = st.builds(Limits, st.integers(1, 64), st.integers(1, 16))


@given(n_waiting=counts, n_taken=counts, n_encodes_due=counts, limits=limits)
def test_a_plan_keeps_within_its_limits(
    n_waiting: int, n_taken: int, n_encodes_due: int, limits: Limits
) -> None:
    todo = plan(n_waiting, n_taken, n_encodes_due, limits)
    assert 0 <= todo.n_admit <= n_waiting
    assert todo.n_free == max(0, limits.max_batch_size - n_taken)
    assert todo.n_admit == 0 or n_taken + todo.n_admit <= limits.max_batch_size
    assert todo.n_admit == 0 or n_encodes_due + todo.n_admit <= limits.max_encodes


@given(n_waiting=counts, n_taken=counts, n_encodes_due=counts, limits=limits)
def test_a_plan_leaves_no_window_waiting_without_need(
    n_waiting: int, n_taken: int, n_encodes_due: int, limits: Limits
) -> None:
    todo = plan(n_waiting, n_taken, n_encodes_due, limits)
    assert (
        todo.n_admit == n_waiting
        or n_taken + todo.n_admit >= limits.max_batch_size
        or n_encodes_due + todo.n_admit >= limits.max_encodes
    )
    assert todo.step == (n_taken + todo.n_admit > 0)


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 9), st.randoms())
def test_a_slot_has_one_sequence_at_a_time(comes: list[int], n_slots: int, random: Random) -> None:
    """Each new sequence takes one slot per beam; zero beams remove a sequence."""
    table, holders = SlotTable(n_slots), list[Sequence]()
    for number, n_beams in enumerate(comes):
        if 0 < n_beams <= table.n_free:
            sequence = take(table, window(number, beams=Beams(n_beams)))
            assert len(sequence.slots) == n_beams
            holders.append(sequence)
        elif holders:
            table.free(holders.pop(random.randrange(len(holders))))
        taken = [slot for sequence in holders for slot in sequence.slots]
        assert len(set(taken)) == len(taken) == table.n_taken == n_slots - table.n_free
        assert set(taken) <= set(range(n_slots))
        assert set(table) == set(holders)
        assert len(table) == len(holders)


def test_no_sequence_gets_a_slot_that_is_not_there() -> None:
    table = SlotTable(1)
    take(table, window(0))
    with pytest.raises(IndexError):
        take(table, window(1))


def test_too_few_slots_are_as_bad_as_none() -> None:
    table = SlotTable(3)
    take(table, window(0))
    with pytest.raises(IndexError):
        take(table, window(1, beams=Beams(3)))
    assert (table.n_free, len(table)) == (2, 1)


def test_the_table_may_change_while_it_is_walked_through() -> None:
    table = SlotTable(3)
    given_out = [take(table, window(number)) for number in range(3)]
    seen = []
    for sequence in table:
        seen.append(sequence)
        table.free(sequence)
    assert seen == given_out
    assert table.n_free == 3
