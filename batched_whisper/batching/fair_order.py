"""Whose turn it is among the items that wait, and who is late.

Priorities come first, the lowest number before the others. Within a priority the groups take
turns, one item each, and within a group it is first come, first served. It knows no lock, no clock
and no bound: `queue.ItemQueue` adds those. Every operation is O(1), or O(log n) for an item with a
deadline.
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

    Cancelled while the item waits, it is cancelled like any other. Once the item was taken that is
    too late, and the future stays as it is; but who took the item can see that nobody waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_wanted = True
        """Whether nobody has asked to cancel it."""

    def cancel(self) -> bool:
        """Give up the result; whether the item had not been taken yet."""
        self.is_wanted = False
        return super().cancel()


@dataclass(frozen=True, eq=False)
class Item(Generic[Payload, Result]):
    """One piece of work that waits, and the future in which its caller waits for the result."""

    payload: Payload
    ticket: int
    """Its number in the order of arrival, unique in its queue."""
    arrival_s: float
    """When its caller brought it, even if it then had to wait for a place."""
    group: Hashable
    """Those who share a turn: a recording, a call of ``map``."""
    priority: int = 0
    """Lower first."""
    size: int = 1
    """How much of the room in a batch it takes."""
    deadline_s: float | None = None
    """After this time nobody wants the result any more."""
    future: ItemFuture[Result] = field(default_factory=ItemFuture)

    def is_late(self, now_s: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline_s is not None and now_s > self.deadline_s


Members = OrderedDict[int, Item[Payload, Result]]
Ring = OrderedDict[Hashable, Members[Payload, Result]]


class FairOrder(Generic[Payload, Result]):
    """The items that wait, in the order in which they will be served."""

    def __init__(self) -> None:
        self._by_ticket: Members[Payload, Result] = OrderedDict()
        self._rings: dict[int, Ring[Payload, Result]] = {}
        # Tickets, not items: the heap must not keep a payload alive that has long been served.
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._by_ticket)

    def add(self, item: Item[Payload, Result]) -> None:
        """Put it behind the others of its group; a group that is new goes behind the others."""
        self._by_ticket[item.ticket] = item
        ring = self._rings.setdefault(item.priority, OrderedDict())
        ring.setdefault(item.group, OrderedDict())[item.ticket] = item
        if item.deadline_s is not None:
            heapq.heappush(self._deadlines, (item.deadline_s, item.ticket))
            self._forget_stale_deadlines()

    def oldest_arrival_s(self) -> float:
        """When the one came that has waited longest. There must be one."""
        return next(iter(self._by_ticket.values())).arrival_s

    def next(self) -> Item[Payload, Result]:
        """The one whose turn it is. There must be one."""
        ring = self._rings[min(self._rings)]
        members = next(iter(ring.values()))
        return next(iter(members.values()))

    def take(self) -> Item[Payload, Result]:
        """Remove the one whose turn it is; its group then waits for its next turn."""
        item = self.next()
        self._rings[item.priority].move_to_end(item.group)
        self._remove(item)
        return item

    def remove(self, ticket: int) -> bool:
        """Take that one out of turn; False if it does not wait here."""
        item = self._by_ticket.get(ticket)
        if item is None:
            return False
        self._remove(item)
        return True

    def take_late(self, now_s: float) -> list[Item[Payload, Result]]:
        """Remove all whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] < now_s:
            item = self._by_ticket.get(heapq.heappop(self._deadlines)[1])
            if item is not None:
                self._remove(item)
                late.append(item)
        return late

    def take_all(self) -> list[Item[Payload, Result]]:
        """Remove all, in the order of arrival."""
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
        """Keep the heap in proportion to what waits; amortised O(1)."""
        if len(self._deadlines) > 64 + 2 * len(self._by_ticket):
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._by_ticket]
            heapq.heapify(self._deadlines)
