"""Assembles a transcript: takes windows of several channels in any order, emits ordered segments.

A segment is emitted as soon as it is ready: its window can no longer be stitched to a later one,
and no channel can still produce an earlier segment. The output does not depend on the order in
which windows are decoded. Knows no engine and no thread.
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
    """A segment and its sort key: its start, but never before an earlier one of its channel."""

    segment: Segment
    at_s: float


class Assembly:
    """Assembles the transcript of one recording; used by one thread at a time.

    Args:
        segments_of: returns the segments of one window, in chronological order.
        stitch: removes the overlap of a window and the next one.
        is_split: whether to set the channel of segments and windows.
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
        self._channels: list[_Channel] = []
        self.segments: list[Segment] = []
        """All segments that `ready` has returned."""

    @property
    def windows(self) -> tuple[DecodedWindow, ...]:
        """The decoded windows in chronological order; at equal times by channel."""
        windows = [window for state in self._channels for window in state.in_order()]
        return tuple(sorted(windows, key=lambda window: window.start))

    def expect(self, channel: int, start_s: float) -> None:
        """Register one more window of a channel; call in chronological order."""
        self._channel(channel).starts_s.append(start_s)

    def advance(self, watermarks_s: Sequence[float]) -> None:
        """Set the watermark of every channel: later windows do not start before it, in seconds."""
        for channel, at_s in enumerate(watermarks_s):
            state = self._channel(channel)
            state.watermark_s = at_s
            self._build(state)

    def end(self) -> None:
        """Declare that all windows are registered."""
        self.advance([math.inf] * len(self._channels))

    def decoded(self, channel: int, index: int, window: DecodedWindow) -> None:
        """Add the result of window `index` of those expected on a channel."""
        state = self._channel(channel)
        state.decoded[index] = replace(window, channel=channel) if self._is_split else window
        self._build(state)

    def ready(self) -> list[Segment]:
        """Return the segments that became ready since the last call, in chronological order."""
        n_given = len(self.segments)
        while (channel := self._next_channel()) is not None:
            segment = replace(
                self._channels[channel].built.popleft().segment, id=len(self.segments)
            )
            self.segments.append(replace(segment, channel=channel) if self._is_split else segment)
        return self.segments[n_given:]

    def _next_channel(self) -> int | None:
        """Return the channel of the next segment; None while it is not certain."""
        if not self._channels:
            return None
        channel = min(range(len(self._channels)), key=lambda i: self._channels[i].next_s)
        return channel if self._channels[channel].built else None

    def _build(self, state: _Channel) -> None:
        """Build the segments of the windows that are final."""
        while (window := state.decoded.get(state.n_built)) is not None:
            next_ = state.n_built + 1
            if state.starts_next_s < window.end:
                if next_ not in state.decoded:
                    return
                stitched = self._stitch(window, state.decoded[next_])
                state.decoded[state.n_built], state.decoded[next_] = (
                    stitched.earlier,
                    stitched.later,
                )
            state.build(self._segments_of(state.decoded[state.n_built]))

    def _channel(self, channel: int) -> _Channel:
        while len(self._channels) <= channel:
            self._channels.append(_Channel())
        return self._channels[channel]


class _Channel:
    """The state of one channel."""

    def __init__(self) -> None:
        self.starts_s: list[float] = []
        self.watermark_s = 0.0
        self.decoded: dict[int, DecodedWindow] = {}
        self.built: deque[_Built] = deque()
        self.n_built = 0  # windows with segments built
        self._last_s = 0.0

    @property
    def next_s(self) -> float:
        """The sort key of its next segment, or a lower bound of it, in seconds."""
        if self.built:
            return self.built[0].at_s
        is_expected = self.n_built < len(self.starts_s)
        bound_s = self.starts_s[self.n_built] if is_expected else self.watermark_s
        return max(self._last_s, bound_s)

    @property
    def starts_next_s(self) -> float:
        """The start of the window after the next one to build, or a lower bound, in seconds."""
        next_ = self.n_built + 1
        return self.starts_s[next_] if next_ < len(self.starts_s) else self.watermark_s

    def build(self, segments: Iterable[Segment]) -> None:
        """Add the segments of the next window."""
        self._last_s = max(self._last_s, self.starts_s[self.n_built])
        for segment in segments:
            self._last_s = max(self._last_s, segment.start)
            self.built.append(_Built(segment, self._last_s))
        self.n_built += 1

    def in_order(self) -> list[DecodedWindow]:
        return [self.decoded[index] for index in sorted(self.decoded)]
