"""Compares the queue with a naive model, over random sequences of calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.queue import ItemQueue
from batched_whisper.errors import DeadlineExceeded, QueueFull

MAX_SIZE = 4
groups = st.sampled_from([None, "a", "b", "c"])
priorities = st.integers(0, 1)


@dataclass(eq=False)
class Known:
    """The data of an item in the model."""

    number: int
    group: object
    priority: int
    deadline_s: float | None
    future: Future[int] | None = None
    task: asyncio.Task[Future[int]] | None = None


@dataclass
class Model:
    """The laws of the queue, implemented with lists, without regard to speed."""

    inside: list[Known] = field(default_factory=list)
    outside: list[Known] = field(default_factory=list)
    turns: list[tuple[int, object]] = field(default_factory=list)

    def enter(self, known: Known) -> None:
        (self.outside if len(self.inside) >= MAX_SIZE else self.inside).append(known)
        self.settle()

    def settle(self) -> None:
        """An emptied group loses its turn, even if one of its items is admitted afterwards."""
        self.turns = [turn for turn in self.turns if turn in self.present()]
        while self.outside and len(self.inside) < MAX_SIZE:
            self.inside.append(self.outside.pop(0))
        self.turns += [t for t in dict.fromkeys(self.present()) if t not in self.turns]

    def present(self) -> list[tuple[int, object]]:
        return [(k.priority, k.group) for k in self.inside]

    def leave(self, known: Known) -> None:
        (self.inside if known in self.inside else self.outside).remove(known)
        self.settle()

    def take(self, max_items: int, now_s: float) -> tuple[list[int], list[int]]:
        late = [k.number for k in self.inside if self._is_late(k, now_s)]
        self.inside = [k for k in self.inside if k.number not in late]
        self.settle()
        taken: list[int] = []
        while self.inside and len(taken) < max_items:
            turn = min(self.turns, key=lambda t: t[0])  # the first of the lowest
            known = next(k for k in self.inside if (k.priority, k.group) == turn)
            self.turns.remove(turn)
            self.inside.remove(known)
            if any((k.priority, k.group) == turn for k in self.inside):
                self.turns.append(turn)
            self.settle()
            (late if self._is_late(known, now_s) else taken).append(known.number)
        return taken, late

    @staticmethod
    def _is_late(known: Known, now_s: float) -> bool:
        return known.deadline_s is not None and known.deadline_s < now_s


class QueueLives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.queue: ItemQueue[int, int] = ItemQueue(MAX_SIZE, self.clock)
        self.model = Model()
        self.all: list[Known] = []
        self.fates: Counter[int] = Counter()

    def teardown(self) -> None:
        self.queue.close(drain=False)
        self.run_tasks()
        for known in self.all:
            if known.task is not None and known.task.done() and not known.task.cancelled():
                known.task.exception()
        self.loop.close()

    def run_tasks(self) -> None:
        for _ in range(4):  # a result passes from future to future, a turn of the loop for each
            self.loop.run_until_complete(asyncio.sleep(0))

    def known(
        self, group: str | None, priority: int, allowed_s: float | None
    ) -> tuple[Known, float | None]:
        number = len(self.all)
        deadline_s = None if allowed_s is None else self.clock.now_s() + allowed_s
        return Known(number, number if group is None else group, priority, deadline_s), deadline_s

    @rule(group=groups, priority=priorities, allowed_s=st.none() | st.integers(0, 3))
    def put(self, group: str | None, priority: int, allowed_s: float | None) -> None:
        known, deadline_s = self.known(group, priority, allowed_s)
        known.task = self.loop.create_task(
            self.queue.put_async(
                known.number, group=group, priority=priority, deadline_s=deadline_s
            )
        )
        self.all.append(known)
        self.model.enter(known)
        self.run_tasks()

    @rule(group=groups, priority=priorities)
    def put_without_waiting(self, group: str | None, priority: int) -> None:
        known, _ = self.known(group, priority, None)
        is_full = len(self.model.inside) >= MAX_SIZE
        try:
            known.future = self.queue.put(known.number, group=group, priority=priority, block=False)
        except QueueFull:
            assert is_full
            return
        assert not is_full
        self.all.append(known)
        self.model.enter(known)

    @precondition(lambda self: self.model.inside or self.model.outside)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.model.inside + self.model.outside))
        if known.task is not None and not known.task.done():
            known.task.cancel()
        else:
            assert self.future_of(known).cancel()
        self.model.leave(known)
        self.fates[known.number] += 1
        self.run_tasks()

    @rule(max_items=st.integers(1, 6))
    def take(self, max_items: int) -> None:
        expected, late = self.model.take(max_items, self.clock.now_s())
        batch = self.queue.take_now(max_items)
        assert [item.payload for item in batch] == expected
        for item in batch:
            item.future.set_result(item.payload)
        self.run_tasks()
        for number in expected:
            assert self.future_of(self.all[number]).result(0) == number
        for number in late:
            error = self.future_of(self.all[number]).exception(0)
            assert isinstance(error, DeadlineExceeded)
        self.fates.update(expected + late)

    @rule(by_s=st.integers(1, 2))
    def time_passes(self, by_s: float) -> None:
        self.clock.advance(by_s)

    def future_of(self, known: Known) -> Future[int]:
        if known.future is None:
            assert known.task is not None
            known.future = known.task.result()
        return known.future

    @invariant()
    def as_many_wait_as_the_model_says(self) -> None:
        assert len(self.queue) == len(self.model.inside) <= MAX_SIZE
        assert self.queue.n_overflow == len(self.model.outside)

    @invariant()
    def every_item_has_one_fate_or_still_waits(self) -> None:
        waiting = {k.number for k in self.model.inside + self.model.outside}
        for known in self.all:
            assert self.fates[known.number] == (0 if known.number in waiting else 1)


QueueLives.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueueLives = QueueLives.TestCase


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), max_size=60))
def test_while_a_group_waits_no_other_has_two_turns(puts: list[tuple[int, int]]) -> None:
    """The bound of fairness: between two turns of a group, at most one turn of each other one."""
    queue: ItemQueue[int, int] = ItemQueue(1000, ManualClock())
    waiting: Counter[int] = Counter()
    turns_since: dict[int, Counter[int]] = {}
    for group, n_taken in puts:
        for _ in range(2):
            queue.put(group, group=group)
            waiting[group] += 1
            turns_since.setdefault(group, Counter())
        for item in queue.take_now(n_taken):
            served = item.payload
            waiting[served] -= 1
            for other, counts in turns_since.items():
                counts[served] += other != served
                assert not (waiting[other] and counts[served] > 1)
            turns_since[served] = Counter()
            turns_since = {g: c for g, c in turns_since.items() if waiting[g]}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9))
def test_within_a_group_no_item_is_overtaken(group_of: list[int], max_items: int) -> None:
    queue: ItemQueue[int, int] = ItemQueue(1000, ManualClock())
    for number, group in enumerate(group_of):
        queue.put(number, group=group)
    served: list[int] = []
    while batch := queue.take_now(max_items):
        served += [item.payload for item in batch]
    assert sorted(served) == list(range(len(group_of)))
    for group in set(group_of):
        of_group = [number for number in served if group_of[number] == group]
        assert of_group == sorted(of_group)
