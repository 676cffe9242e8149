"""A bounded, thread-safe and fair queue, from which batches are formed.

Callers `put` an item from any thread or event loop and get a future. The taker of a batch sets
the results. The queue knows when a batch may be formed and from which items (`policy`,
`fair_order`), but not what a payload is or how it is processed.

The laws:

- Priority first; then the groups take turns, one item each; within a group, first come, first
  served. An item without a group is a group of its own.
- Cancelling a future removes its item from the queue and frees its place. An item that was taken
  can no longer be cancelled.
- The sizes of a batch's items add up to at most its room. No item overtakes one that waits until
  it fits.
- An item past its deadline fails with `DeadlineExceeded` when a batch is formed.
- If the queue is full, callers wait outside, first come, first served, or get `QueueFull`.
- After `close` no items are accepted. Those accepted before can still be taken.
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
    """How an item is served. All are optional."""

    group: Hashable | None
    """The group whose turns it uses; default None: a group of its own."""
    priority: int
    """Lower first; default 0."""
    deadline_s: float | None
    """The time after which the result is useless, on the queue's clock; default None: never."""
    size: int
    """The part of a batch's room that it takes; default 1."""


@dataclass(frozen=True)
class _OwnGroup:
    """The group of an item without a given group."""

    ticket: int


@dataclass(frozen=True)
class _Sleep:
    """What a taker waits for: a time (None is forever) or a number of items."""

    until_s: float | None
    n_items: int


@dataclass(frozen=True, eq=False)
class _Overflowing(Generic[Payload, Result]):
    """An item that waits outside for a place, and the future of that place."""

    item: Item[Payload, Result]
    admitted: Future[None] = field(default_factory=Future)


class ItemQueue(Generic[Payload, Result]):
    """The items that wait to be batched.

    Any number of threads and event loops may put, and any number of threads take.

    Args:
        max_size: the places in the queue; further callers wait outside.
        clock: times waiting and deadlines.
        name: its name in error messages.
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
        self._departed: deque[int] = deque()  # tickets of cancelled items, not yet removed
        self._closed = False
        self._woken = False
        self._sleepers: list[int] = []  # the number of items that each waiting taker waits for

    def __len__(self) -> int:
        """Return the number of items inside."""
        with self._exclusive():
            return len(self._admitted)

    @property
    def n_overflow(self) -> int:
        """The number of callers that wait for a place."""
        with self._exclusive():
            return len(self._overflow)

    @property
    def max_size(self) -> int:
        """The places in the queue."""
        return self._max_size

    @property
    def closed(self) -> bool:
        """Whether the queue was closed; it may still hold items."""
        return self._closed

    @property
    def drained(self) -> bool:
        """Whether the queue was closed and is empty, so that no batch will follow."""
        with self._exclusive():
            return self._closed and not self._admitted

    # --- callers -------------------------------------------------------------------------------

    def put(
        self, payload: Payload, *, block: bool = True, **terms: Unpack[ItemTerms]
    ) -> Future[Result]:
        """Add an item; block while the queue is full.

        Args:
            payload: what the taker gets.
            block: whether to wait for a place when the queue is full.
            terms: see `ItemTerms`.

        Returns:
            The future of its result; cancelling it removes the item.

        Raises:
            Closed: the queue was closed, before the call or while it waited for a place.
            QueueFull: there is no place, and ``block`` is false.
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
        """Add an item without waiting, for example from the taker's thread.

        If the queue is full, the item waits outside in turn. Its future fails with `Closed` if it
        is still there when the queue is closed. The caller must bound the number of such items.
        """
        item, place = self._enter(payload, True, terms)
        if place is not None:
            place.add_done_callback(partial(_without_place, item.future))
        return item.future

    async def put_async(
        self, payload: Payload, *, block: bool = True, **terms: Unpack[ItemTerms]
    ) -> Future[Result]:
        """Add an item as `put` does; a full queue suspends the task and blocks no thread."""
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

        A closed queue starts immediately, because no items will follow. The items' futures are
        running: the taker must set their result or exception.

        Args:
            max_items: the most items.
            policy: decides when a batch starts.
            room: the limit of the sum of the items' sizes, at least the size of the largest item;
                None for no limit.

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
        """Form a batch of the waiting items, perhaps empty; never block."""
        late: list[Item[Payload, Result]] = []
        with self._exclusive():
            batch = self._form(max_items, room, late)
        self._fail_late(late)
        return batch

    def wake(self) -> None:
        """Make the blocked `take`, or else the next one, return an empty batch immediately."""
        with self._exclusive():
            self._woken = True
            self._takeable.notify_all()

    def close(self, drain: bool = True) -> None:
        """Accept no more items; callers that wait for a place get `Closed`. May be repeated.

        Args:
            drain: whether items inside can still be taken; otherwise they fail with `Closed`.
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
        """Make an item and admit it, or return the future of the place that it waits for."""
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
        # The callback holds the ticket, not the item, so that the future of a result does not keep
        # the payload alive.
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
        """Count the items inside and outside; a batch may be larger than the queue."""
        return len(self._admitted) + len(self._overflow)

    def _sleep(self, sleep: _Sleep) -> None:
        self._sleepers.append(sleep.n_items)
        try:
            self._clock.wait(self._takeable, sleep.until_s)
        finally:
            self._sleepers.remove(sleep.n_items)

    def _tell_takers(self) -> None:
        """Wake the waiting takers, if there are enough items for any of them."""
        if self._sleepers and self._n_known() >= min(self._sleepers):
            self._takeable.notify_all()

    def _sleep_before_batch(self, max_items: int, policy: Policy) -> _Sleep | None:
        """Return what the taker must wait for; None if it can continue."""
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
        """Take the next batch; items past their deadline go to ``late`` instead.

        An item that does not fit into the room ends the batch, so that no item overtakes it.
        """
        now_s = self._clock.now_s()
        batch: list[Item[Payload, Result]] = []
        late += self._admitted.take_late(now_s)
        self._admit()
        left = math.inf if room is None else room
        while self._admitted and len(batch) < max_items and self._admitted.next().size <= left:
            item = self._admitted.take()
            self._admit()
            if item.is_late(now_s):  # admitted from outside in this loop
                late.append(item)
            elif item.future.set_running_or_notify_cancel():
                batch.append(item)
                left -= item.size
        return batch

    def _admit(self) -> None:
        """Give free places to the items outside, in the order of their arrival."""
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
        """Remove cancelled items; the lock is held."""
        while self._departed:
            ticket = self._departed.popleft()
            if self._overflow.pop(ticket, None) is None:
                self._admitted.remove(ticket)
        self._admit()

    def _purge_if_free(self) -> None:
        """Remove cancelled items, unless the lock is held; its holder removes them at release.

        A cancellation never waits for the lock, because it can come from a finaliser that the
        garbage collector runs in the thread that holds it.
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
        """Fail late items. Called without the lock, because this runs the callers' callbacks."""
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
    """Fail the future of an item that did not get its place."""
    refusal = place.exception()
    if isinstance(refusal, BatchingError):
        _fail(future, refusal)


def _fail(future: Future[Any], error: BatchingError) -> None:
    """Fail a future that is not running yet, unless it was cancelled."""
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
