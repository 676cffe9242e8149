"""Several engines behind one queue: an engine with a free slot takes the next window.

A machine with many processors, or with several GPUs, has a higher throughput with several engines
than with one that spreads every small step over all of them. The windows of one recording may go
to different engines. A broken engine fails the windows in its slots, and leaves the queue to the
others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import fields

from batched_whisper.batching.clock import Clock
from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest, Detokenizer
from batched_whisper.batching.engine_health import LoopRoster
from batched_whisper.batching.loop import EngineLoop, WindowQueue
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.batching.policy import Policy
from batched_whisper.batching.queue import ItemQueue
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.engines.interface import Engine


class EngineGroup:
    """One loop per engine, and the queue that they share.

    Args:
        engines: at least one, all of the same model; owned by their loops from here on. Each
            decodes as many windows together as it has slots.
        policy: how long idle engines wait for more windows.
        max_queue_size: the places in the queue.
        clock: times the policy's waiting.
        detokenizer: makes the texts for the verdicts; default: every text is empty.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        policy: Policy | None = None,
        max_queue_size: int = 256,
        clock: Clock | None = None,
        detokenizer: Detokenizer | None = None,
    ) -> None:
        self.queue: WindowQueue = ItemQueue(max_queue_size, clock)
        roster = LoopRoster(len(engines))
        self._loops = [
            EngineLoop(
                engine,
                max_batch_size=engine.info.max_slots,
                policy=policy,
                queue=self.queue,
                roster=roster,
                detokenizer=detokenizer,
            )
            for engine in engines
        ]
        self._smallest = min(self._loops, key=lambda loop: loop.max_batch_size)

    @property
    def stats(self) -> LoopStats:
        """The counters now, added over all loops."""
        return total([loop.stats for loop in self._loops])

    def submit(
        self,
        request: DecodeRequest,
        *,
        language: SharedLanguage | None = None,
        group: Hashable | None = None,
        priority: int = 0,
        wait: bool = True,
    ) -> Future[DecodedTokens]:
        """Queue a window that fits into every engine. See `EngineLoop.submit` for errors."""
        return self._smallest.submit(
            request, language=language, group=group, priority=priority, wait=wait
        )

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Accept no more windows, and return when all engines are closed: `EngineLoop.close`."""
        self.queue.close(drain=drain)
        for loop in self._loops:
            loop.close(drain=drain, timeout_s=timeout_s)

    def is_own_thread(self) -> bool:
        """Return whether the caller runs on one of the loops' threads."""
        return any(loop.is_own_thread() for loop in self._loops)


def total(stats: Sequence[LoopStats]) -> LoopStats:
    """Add up the counters of several loops. They share one queue, so its depth is not added."""
    summed = {f.name: sum(getattr(each, f.name) for each in stats) for f in fields(LoopStats)}
    summed["largest_batch"] = max(each.largest_batch for each in stats)
    summed["queue_depth"] = max(each.queue_depth for each in stats)
    return LoopStats(**summed)
