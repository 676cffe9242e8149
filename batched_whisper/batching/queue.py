"""The queue before every batch: bounded, thread-safe, fair, and left by whoever gives up.

Callers `put` an item from any thread or event loop and get a future; those who take batches set
the results. It knows when a batch may be formed and of which items (`policy`, `fair_order`), but
not what a payload is nor what is done with it.

The laws:

- Priority first; then the groups take turns, one item each; within a group, first come, first
  served. An item without a group is a group of its own.
- A future that is cancelled takes its item out of the queue, and the place goes to whoever waits
  for one. An item that was taken can no longer be cancelled.
- A batch has room for items of so much size together; nobody overtakes one that has to wait until
  it fits.
- An item past its deadline is failed with `DeadlineExceeded` when a batch is formed.
- A full queue makes callers wait outside, first come, first served, or refuses with `QueueFull`.
- After `close` nobody comes in, and what was accepted can still be taken.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypedDict

from batched_whisper.batching.clock import Clock, MonotonicClock
from batched_whisper.batching.fair_order import FairOrder, Item, Payload, Result
from batched_whisper.batching.policy import Policy, WaitUntil
from batched_whisper.errors import (
    BatchingError,
    Closed,
    DeadlineExceeded,
    OptionError,
    QueueFull,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Item", "ItemQueue"]


class ItemTerms(TypedDict, total=False):
    """How an item is served. Each may be left out."""

    group: Hashable | None
    """Whose turn it takes; None, or left out: a group of its own."""
    priority: int
    """Lower first; 0 if left out."""
    deadline_s: float | None
    """When its result is of no use any more, on the queue's clock; None, or left out: never."""
    size: int
    """How much of a batch's room it takes; 1 if left out."""


@dataclass(frozen=True)
class _OwnGroup:
    """The group of an item that was given none."""

    ticket: int


@dataclass(frozen=True)
class _Sleep:
    """What the taker waits for: a time, or so many items; None for the time is forever."""

    until_s: float | None
    n_items: int


@dataclass(frozen=True, eq=False)
class _Overflowing(Generic[Payload, Result]):
    """A caller who waits for a place, with the item that shall have it."""

    item: Item[Payload, Result]
    admitted: Future[None] = field(default_factory=Future)


class ItemQueue(Generic[Payload, Result]):
    """Items that wait to be batched.

    Any number of threads and event loops may put, and any number of threads take.

    Args:
        max_size: the places in the queue; further callers wait outside.
        clock: what its waiting and the deadlines go by.
        name: how error messages call it.
    """

    def __init__(self, max_size: int, clock: Clock | None = None, name: str = "the queue") -> None:
        if max_size < 1:
            raise OptionError(f"max_queue_size={max_size!r}: {name} needs at least 1 place")
        self._max_size = max_size
        self._clock: Clock = clock or MonotonicClock()
        self._name = name
        self._tickets = itertools.count()
        self._lock = threading.Lock()
        self._takeable = threading.Condition(self._lock)
        self._admitted: FairOrder[Payload, Result] = FairOrder()
        self._overflow: OrderedDict[int, _Overflowing[Payload, Result]] = OrderedDict()
        self._departed: deque[int] = deque()  # tickets of the cancelled, not yet removed
        self._closed = False
        self._woken = False
        self._sleepers: list[int] = []  # of how many items each waiting taker wants to hear

    def __len__(self) -> int:
        """The items that wait inside."""
        with self._exclusive():
            return len(self._admitted)

    @property
    def n_overflow(self) -> int:
        """The callers who wait for a place."""
        with self._exclusive():
            return len(self._overflow)

    @property
    def max_size(self) -> int:
        """The places in the queue."""
        return self._max_size

    @property
    def closed(self) -> bool:
        """Whether it was closed; it may still hold items."""
        return self._closed

    @property
    def drained(self) -> bool:
        """Whether it was closed and nothing is left: there will never be another batch."""
        with self._exclusive():
            return self._closed and not self._admitted

    # --- callers -------------------------------------------------------------------------------

    def put(
        self, payload: Payload, *, block: bool = True, **terms: Unpack[ItemTerms]
    ) -> Future[Result]:
        """Bring an item; blocks while the queue is full.

        Args:
            payload: what the taker gets.
            block: whether to wait for a place when the queue is full.
            terms: see `ItemTerms`.

        Returns:
            The future of its result; cancel it to give up.

        Raises:
            Closed: the queue was closed, before the call or while it waited for a place.
            QueueFull: no place, and ``block`` is false.
        """
        item, place = self._enter(payload, block, terms)
        try:
            if place is not None:
                place.result()
        except BaseException:  # Closed, or Ctrl-C while waiting
            item.future.cancel()
            raise
        return item.future

    def put_queued(self, payload: Payload, **terms: Unpack[ItemTerms]) -> Future[Result]:
        """Bring an item as `put` does, without waiting: from the taker's thread, for example.

        Where the queue is full the item waits outside in turn, as a caller would, and its future
        fails with `Closed` if it is still there when the queue is closed. How many wait outside
        is for those to bound who call this.
        """
        item, place = self._enter(payload, True, terms)
        if place is not None:
            place.add_done_callback(partial(_without_place, item.future))
        return item.future

    async def put_async(
        self, payload: Payload, *, block: bool = True, **terms: Unpack[ItemTerms]
    ) -> Future[Result]:
        """Bring an item as `put` does; a full queue suspends the task and holds no thread."""
        item, place = self._enter(payload, block, terms)
        try:
            if place is not None:
                await asyncio.wrap_future(place)
        except BaseException:  # Closed, or the waiting task was cancelled
            item.future.cancel()
            raise
        return item.future

    # --- the taker -----------------------------------------------------------------------------

    def take(
        self, max_items: int, policy: Policy, *, room: int | None = None
    ) -> list[Item[Payload, Result]]:
        """Block until the policy lets a batch start, and form it.

        A closed queue starts at once: no company will come. The items' futures are running: the
        taker must set their result or exception.

        Args:
            max_items: the most items.
            policy: when a batch starts.
            room: the most that their sizes may add up to, at least the largest item's; None takes
                any.

        Returns:
            1 to ``max_items`` items; none if `wake` was called, or if the queue is `drained`.
        """
        while True:
            late: list[Item[Payload, Result]] = []
            with self._exclusive():
                sleep = self._sleep_before_batch(max_items, policy)
                if sleep is not None:
                    self._sleep(sleep)
                    continue
                if self._woken:
                    self._woken = False
                    return []
                is_over = self._closed and not self._admitted
                batch = self._form(max_items, room, late)
            self._fail_late(late)
            if batch or is_over:
                return batch

    def take_now(self, max_items: int, *, room: int | None = None) -> list[Item[Payload, Result]]:
        """Form a batch of what waits, perhaps nothing; never blocks."""
        late: list[Item[Payload, Result]] = []
        with self._exclusive():
            batch = self._form(max_items, room, late)
        self._fail_late(late)
        return batch

    def wake(self) -> None:
        """Make the `take` that blocks, or else the next one, return nothing at once."""
        with self._exclusive():
            self._woken = True
            self._takeable.notify_all()

    def close(self, drain: bool = True) -> None:
        """Let nobody in any more; callers who wait for a place get `Closed`. May be repeated.

        Args:
            drain: whether what waits inside can still be taken; otherwise it fails with `Closed`.
        """
        with self._exclusive():
            self._closed = True
            outside = tuple(self._overflow.values())
            self._overflow.clear()
            abandoned = [] if drain else self._admitted.take_all()
            self._takeable.notify_all()
        for waiting in outside:
            _fail(waiting.admitted, self._closed_error())
        for item in abandoned:
            _fail(item.future, self._closed_error())

    # --- inside --------------------------------------------------------------------------------

    def _enter(
        self, payload: Payload, block: bool, terms: ItemTerms
    ) -> tuple[Item[Payload, Result], Future[None] | None]:
        """Make an item and let it in, or give the place that it has to wait for."""
        place: Future[None] | None = None
        with self._exclusive():
            if self._closed:
                raise self._closed_error()
            is_full = len(self._admitted) >= self._max_size
            if is_full and not block:
                raise QueueFull(
                    f"{self._name} is full: {self._max_size} wait already; "
                    "try again later, or let the call wait for a place"
                )
            ticket = next(self._tickets)
            item = self._item(payload, ticket, terms)
            if is_full:
                waiting = self._overflow[ticket] = _Overflowing(item)
                place = waiting.admitted
            else:
                self._admitted.add(item)
            self._tell_takers()
        # The callback holds the ticket, not the item: a caller who keeps the future of a result
        # does not keep the payload.
        item.future.add_done_callback(partial(self._when_done, ticket))
        return item, place

    def _item(self, payload: Payload, ticket: int, terms: ItemTerms) -> Item[Payload, Result]:
        group = terms.get("group")
        return Item(
            payload=payload,
            ticket=ticket,
            arrival_s=self._clock.now_s(),
            group=_OwnGroup(ticket) if group is None else group,
            priority=terms.get("priority", 0),
            size=terms.get("size", 1),
            deadline_s=terms.get("deadline_s"),
        )

    def _n_known(self) -> int:
        """Those inside and outside; a batch may be larger than the queue, so both count."""
        return len(self._admitted) + len(self._overflow)

    def _sleep(self, sleep: _Sleep) -> None:
        self._sleepers.append(sleep.n_items)
        try:
            self._clock.wait(self._takeable, sleep.until_s)
        finally:
            self._sleepers.remove(sleep.n_items)

    def _tell_takers(self) -> None:
        """Wake those who sleep, if there is something for any of them."""
        if self._sleepers and self._n_known() >= min(self._sleepers):
            self._takeable.notify_all()

    def _sleep_before_batch(self, max_items: int, policy: Policy) -> _Sleep | None:
        """What the taker has to wait for now; None if it has something to do."""
        if self._woken or self._closed:
            return None
        if not self._admitted:
            return _Sleep(until_s=None, n_items=1)
        now_s = self._clock.now_s()
        decision = policy.decide(
            self._n_known(), self._admitted.oldest_arrival_s(), now_s, max_items
        )
        if isinstance(decision, WaitUntil) and decision.time_s > now_s:
            return _Sleep(decision.time_s, decision.n_items or 1)
        return None

    def _form(
        self, max_items: int, room: int | None, late: list[Item[Payload, Result]]
    ) -> list[Item[Payload, Result]]:
        """Take the batch whose turn it is; those past their deadline go to ``late`` instead.

        One that does not fit into the room ends the batch: nobody overtakes it.
        """
        now_s = self._clock.now_s()
        batch: list[Item[Payload, Result]] = []
        late += self._admitted.take_late(now_s)
        self._admit()
        left = math.inf if room is None else room
        while self._admitted and len(batch) < max_items and self._admitted.next().size <= left:
            item = self._admitted.take()
            self._admit()
            if item.is_late(now_s):  # it came in from outside just now
                late.append(item)
            elif item.future.set_running_or_notify_cancel():
                batch.append(item)
                left -= item.size
        return batch

    def _admit(self) -> None:
        """Give free places to those who wait outside, in the order of their arrival."""
        while self._overflow and len(self._admitted) < self._max_size:
            _, waiting = self._overflow.popitem(last=False)
            self._admitted.add(waiting.item)
            if waiting.admitted.set_running_or_notify_cancel():
                waiting.admitted.set_result(None)

    def _when_done(self, ticket: int, future: Future[Any]) -> None:
        if future.cancelled():
            self._departed.append(ticket)
            self._purge_if_free()

    def _purge(self) -> None:
        """Remove the cancelled; the lock is held."""
        while self._departed:
            ticket = self._departed.popleft()
            if self._overflow.pop(ticket, None) is None:
                self._admitted.remove(ticket)
        self._admit()

    def _purge_if_free(self) -> None:
        """Remove the cancelled unless somebody holds the lock: he will look when he is done.

        A cancellation never waits for the lock, because it can come from a finaliser that the
        garbage collector runs in the very thread that holds it.
        """
        while self._departed and self._lock.acquire(blocking=False):
            try:
                self._purge()
            finally:
                self._lock.release()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with self._lock:
                self._purge()
                yield
        finally:
            self._purge_if_free()

    def _fail_late(self, late: list[Item[Payload, Result]]) -> None:
        """Outside the lock, because this runs the callers' callbacks."""
        for item in late:
            _fail(
                item.future,
                DeadlineExceeded(
                    f"its deadline passed while the call waited in {self._name}; "
                    "allow more time, or send less at once"
                ),
            )

    def _closed_error(self) -> Closed:
        return Closed(f"{self._name} was closed; make a new one to go on")


def _without_place(future: Future[Any], place: Future[None]) -> None:
    """Fail an item whose place was refused."""
    refusal = place.exception()
    if isinstance(refusal, BatchingError):
        _fail(future, refusal)


def _fail(future: Future[Any], error: BatchingError) -> None:
    """Fail a future that nobody has started, unless its caller gave up."""
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
