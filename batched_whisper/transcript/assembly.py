"""Windows of several channels in, in any order; segments in the order of time out.

A segment is given as soon as it is ready: its window is not stitched to a later one any more, and
no channel can still bring an earlier one. What is given does not depend on the order in which
windows are done. Knows no engine and no thread.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from batched_whisper.transcript.stitching import Stitched
from batched_whisper.types import DecodedWindow, Segment


@dataclass(frozen=True)
class _Built:
    """A segment and where it stands: its start, but never before what its channel said earlier."""

    segment: Segment
    at_s: float


class Assembly:
    """The transcript of one recording, while it is put together; used by one thread at a time.

    Args:
        segments_of: the segments of one window, in the order of time.
        stitch: makes a window and the next one follow each other where they overlap.
        is_split: whether segments and windows tell their channel.
    """

    def __init__(
        self,
        segments_of: Callable[[DecodedWindow], Iterable[Segment]],
        stitch: Callable[[DecodedWindow, DecodedWindow], Stitched],
        is_split: bool,
    ) -> None:
        self._segments_of = segments_of
        self._stitch = stitch
        self._is_split = is_split
        self._lanes: list[_Lane] = []
        self.segments: list[Segment] = []
        """All that were given."""

    @property
    def windows(self) -> tuple[DecodedWindow, ...]:
        """What was decoded, in the order of time; of the same time, channel by channel."""
        windows = [window for lane in self._lanes for window in lane.in_order()]
        return tuple(sorted(windows, key=lambda window: window.start))

    def expect(self, channel: int, start_s: float) -> None:
        """There is one more window on a channel; they are announced in the order of time."""
        self._lane(channel).starts_s.append(start_s)

    def advance(self, watermarks_s: Sequence[float]) -> None:
        """By channel: windows not announced yet begin no earlier. Tells how many channels exist."""
        for channel, at_s in enumerate(watermarks_s):
            lane = self._lane(channel)
            lane.watermarks_s = at_s
            self._build(lane)

    def end(self) -> None:
        """All windows were announced."""
        self.advance([math.inf] * len(self._lanes))

    def decoded(self, channel: int, index: int, window: DecodedWindow) -> None:
        """Window `index` of those announced on a channel is done."""
        lane = self._lane(channel)
        lane.decoded[index] = replace(window, channel=channel) if self._is_split else window
        self._build(lane)

    def ready(self) -> list[Segment]:
        """The segments that became ready since the last call, in the order of time."""
        n_given = len(self.segments)
        while (channel := self._next_channel()) is not None:
            segment = replace(self._lanes[channel].built.popleft().segment, id=len(self.segments))
            self.segments.append(replace(segment, channel=channel) if self._is_split else segment)
        return self.segments[n_given:]

    def _next_channel(self) -> int | None:
        """Whose segment is the next one; None while that is not certain."""
        if not self._lanes:
            return None
        channel = min(range(len(self._lanes)), key=lambda i: self._lanes[i].next_s)
        return channel if self._lanes[channel].built else None

    def _build(self, lane: _Lane) -> None:
        """The segments of the windows that are final by now."""
        while (window := lane.decoded.get(lane.n_built)) is not None:
            next_ = lane.n_built + 1
            if lane.starts_next_s < window.end:
                if next_ not in lane.decoded:
                    return
                stitched = self._stitch(window, lane.decoded[next_])
                lane.decoded[lane.n_built], lane.decoded[next_] = stitched.earlier, stitched.later
            lane.build(self._segments_of(lane.decoded[lane.n_built]))

    def _lane(self, channel: int) -> _Lane:
        while len(self._lanes) <= channel:
            self._lanes.append(_Lane())
        return self._lanes[channel]


class _Lane:
    """One channel."""

    def __init__(self) -> None:
        self.starts_s: list[float] = []
        self.watermarks_s = 0.0
        self.decoded: dict[int, DecodedWindow] = {}
        self.built: deque[_Built] = deque()
        self.n_built = 0  # windows whose segments are built
        self._last_s = 0.0

    @property
    def next_s(self) -> float:
        """Where its next segment stands, or before which it cannot stand."""
        if self.built:
            return self.built[0].at_s
        is_announced = self.n_built < len(self.starts_s)
        bound_s = self.starts_s[self.n_built] if is_announced else self.watermarks_s
        return max(self._last_s, bound_s)

    @property
    def starts_next_s(self) -> float:
        """Where the window after the next one to be built begins, or before which it cannot."""
        next_ = self.n_built + 1
        return self.starts_s[next_] if next_ < len(self.starts_s) else self.watermarks_s

    def build(self, segments: Iterable[Segment]) -> None:
        """Add the segments of the next window."""
        self._last_s = max(self._last_s, self.starts_s[self.n_built])
        for segment in segments:
            self._last_s = max(self._last_s, segment.start)
            self.built.append(_Built(segment, self._last_s))
        self.n_built += 1

    def in_order(self) -> list[DecodedWindow]:
        return [self.decoded[index] for index in sorted(self.decoded)]
