"""Laws of the slots of a window's texts when they branch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.batching.beam_slots import BeamSlots

N_SLOTS = 5
branchings = st.lists(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=N_SLOTS), min_size=1, max_size=12
)


@given(branchings, st.permutations(range(10, 10 + N_SLOTS)))
def test_every_text_finds_in_its_slot_what_it_continues(
    branchings: list[list[int]], slots: list[int]
) -> None:
    """For all branches, no slot is both read and overwritten, and no copy is unnecessary."""
    beams, known = BeamSlots(slots), {slots[0]: "first"}
    assert beams.taken == (slots[0],)
    for turn, picks in enumerate(branchings):
        live = [known[slot] for slot in beams.taken]
        sources = [pick % len(live) for pick in picks]
        copies = beams.branch(sources)
        assert not {row.source for row in copies} & {row.target for row in copies}
        assert len(copies) == len(sources) - len(set(sources))
        assert set(beams.taken) <= set(slots)
        assert len(set(beams.taken)) == len(sources)
        before = dict(known)
        for row in copies:
            known[row.target] = before[row.source]
        assert [known[slot] for slot in beams.taken] == [live[source] for source in sources]
        for i, slot in enumerate(beams.taken):
            known[slot] = f"{known[slot]}, {turn}: {i}"


def test_a_single_text_never_moves() -> None:
    beams = BeamSlots([3])
    for _ in range(4):
        assert beams.branch([0]) == ()
        assert beams.taken == (3,)
