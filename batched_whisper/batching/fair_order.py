"""The order in which waiting items are served, and their deadlines.

Lower priority numbers come first. Within a priority the groups take turns, one item each; within
a group, first come, first served. It has no lock, no clock and no bound; `queue.ItemQueue` adds
those. Every operation is O(1), or O(log n) for an item with a deadline.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Payload = TypeVar("Payload")
Result = TypeVar("Result")


class ItemFuture(Future[Result]):
    """The result of an item.

    While the item waits, `cancel` works as for any future. After the item was taken, `cancel` only
    sets `is_wanted` to false, so that the taker can drop the item.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_wanted = True
        """Whether `cancel` was never called."""

    def cancel(self) -> bool:
        """Request cancellation. Return whether the item had not been taken yet."""
        self.is_wanted = False
        return super().cancel()


@dataclass(frozen=True, eq=False)
class Item(Generic[Payload, Result]):
    """A waiting item, and the future of its result."""

    payload: Payload
    ticket: int
    """Its number in the order of arrival, unique in its queue."""
    arrival_s: float
    """The time of the call that added it, even if it then waited for a place."""
    group: Hashable
    """The items that share turns: a recording, or a run of ``map``."""
    priority: int = 0
    """Lower first."""
    size: int = 1
    """The part of a batch's room that it takes."""
    deadline_s: float | None = None
    """The time after which the result is useless; None for never."""
    future: ItemFuture[Result] = field(default_factory=ItemFuture)

    def is_late(self, now_s: float) -> bool:
        """Return whether its deadline has passed."""
        return self.deadline_s is not None and now_s > self.deadline_s


Members = OrderedDict[int, Item[Payload, Result]]
Ring = OrderedDict[Hashable, Members[Payload, Result]]


class FairOrder(Generic[Payload, Result]):
    """The waiting items, in the order in which they will be served."""

    def __init__(self) -> None:
        self._by_ticket: Members[Payload, Result] = OrderedDict()
        self._rings: dict[int, Ring[Payload, Result]] = {}
        # Tickets, not items: the heap must not keep the payload of a served item alive.
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._by_ticket)

    def add(self, item: Item[Payload, Result]) -> None:
        """Add an item at the end of its group; a new group goes behind the other groups."""
        self._by_ticket[item.ticket] = item
        ring = self._rings.setdefault(item.priority, OrderedDict())
        ring.setdefault(item.group, OrderedDict())[item.ticket] = item
        if item.deadline_s is not None:
            heapq.heappush(self._deadlines, (item.deadline_s, item.ticket))
            self._forget_stale_deadlines()

    def oldest_arrival_s(self) -> float:
        """Return the arrival time of the oldest item. There must be an item."""
        return next(iter(self._by_ticket.values())).arrival_s

    def next(self) -> Item[Payload, Result]:
        """Return the next item to be served. There must be an item."""
        ring = self._rings[min(self._rings)]
        members = next(iter(ring.values()))
        return next(iter(members.values()))

    def take(self) -> Item[Payload, Result]:
        """Remove and return the next item; its group goes behind the other groups."""
        item = self.next()
        self._rings[item.priority].move_to_end(item.group)
        self._remove(item)
        return item

    def remove(self, ticket: int) -> bool:
        """Remove the item with that ticket. Return False if it does not wait here."""
        item = self._by_ticket.get(ticket)
        if item is None:
            return False
        self._remove(item)
        return True

    def take_late(self, now_s: float) -> list[Item[Payload, Result]]:
        """Remove and return all items past their deadline."""
        late = []
        while self._deadlines and self._deadlines[0][0] < now_s:
            item = self._by_ticket.get(heapq.heappop(self._deadlines)[1])
            if item is not None:
                self._remove(item)
                late.append(item)
        return late

    def take_all(self) -> list[Item[Payload, Result]]:
        """Remove and return all items, in the order of arrival."""
        items = list(self._by_ticket.values())
        self._by_ticket.clear()
        self._rings.clear()
        self._deadlines.clear()
        return items

    def _remove(self, item: Item[Payload, Result]) -> None:
        del self._by_ticket[item.ticket]
        ring = self._rings[item.priority]
        members = ring[item.group]
        del members[item.ticket]
        if not members:
            del ring[item.group]
        if not ring:
            del self._rings[item.priority]

    def _forget_stale_deadlines(self) -> None:
        """Keep the heap in proportion to the number of waiting items; amortised O(1)."""
        if len(self._deadlines) > 64 + 2 * len(self._by_ticket):
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._by_ticket]
            heapq.heapify(self._deadlines)
