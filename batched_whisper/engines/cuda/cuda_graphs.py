"""CUDA graphs: a repeated computation is recorded once and replayed as one launch.

A thousand small kernels then cost the host one call. This module knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from batched_whisper.engines.cuda.sm_partition import excluding_sms

WARM_UPS = 2
"""Runs before recording, in which libraries allocate workspaces and kernels are compiled."""


@dataclass(frozen=True)
class StreamSlot:
    """A stream on which graphs are recorded and replayed.

    Attributes:
        stream: the CUDA stream; its priority and multiprocessors apply to what is recorded.
        n_other_sms: the number of the device's multiprocessors that the stream may not use.
    """

    stream: Any
    n_other_sms: int = 0


class GraphRecorder:
    """Records CUDA graphs on one stream.

    PyTorch's default stream for recording is one per process, on the first device that recorded:
    work on another device would not be in the graph.
    """

    def __init__(self, stream_slot: StreamSlot) -> None:
        self._stream = stream_slot.stream
        self._pool: Any = None

    def record(self, compute: Callable[[], None]) -> Any:
        """Record a computation as a CUDA graph, in a pool shared with this stream's other graphs.

        Sharing is safe because the graphs leave no results in the pool and never run concurrently;
        the one that needs most memory is best recorded first. A process can record only one graph
        at a time. Work of other threads, such as another model's engine, does not affect the
        recording (by default it would abort it).
        """
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with full_float32_precision():
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    compute()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ):
                compute()
        self._pool = graph.pool()
        return graph


class RecordedGraphs:
    """One computation in a few sizes, recorded on one or more streams, or just run.

    Args:
        compute: runs the computation for a size.
        sizes: the sizes to record, ascending; the last is the largest that occurs.
    """

    def __init__(self, compute: Callable[[int], None], sizes: Sequence[int]) -> None:
        self._compute = compute
        self.sizes = tuple(sizes)
        self._recorded: list[dict[int, Any]] = []

    def size(self, n: int) -> int:
        """Return the smallest recorded size that holds ``n``; ``n`` if nothing is recorded."""
        if not self._recorded:
            return n
        return next(size for size in self.sizes if size >= n)

    @property
    def n_stream_slots(self) -> int:
        """The number of streams on which it is recorded."""
        return len(self._recorded)

    def replay(self, size: int, stream_slot: int = 0) -> None:
        """Run the computation on the current contents of its memory, by that stream's graph."""
        recorded = self._recorded[stream_slot].get(size) if self._recorded else None
        if recorded is None:
            self._compute(size)
        else:
            recorded.replay()

    def record(self, recorder: GraphRecorder) -> None:
        """Record all sizes on one more stream.

        The largest is first: the smaller ones then reuse its memory pool.
        """
        sizes = reversed(self.sizes)
        self._recorded.append({n: recorder.record(partial(self._compute, n)) for n in sizes})

    def forget(self, n_stream_slots: int = 0) -> None:
        """Drop all but the first streams' graphs; without any, the computation just runs."""
        del self._recorded[n_stream_slots:]


def blocking_event() -> Any:
    """Make an event that the host sleeps for; by default it would spin on one core."""
    return torch.cuda.Event(blocking=True)


@contextmanager
def full_float32_precision() -> Iterator[None]:
    """Within the context, compute float32 products in full precision, whatever the program has set.

    A training script's ``set_float32_matmul_precision("high")`` would round the spectrogram to ten
    bits, and a recorded graph permanently keeps the precision in force when it was recorded.
    """
    newer = torch.backends.cuda.matmul
    try:
        before = torch.get_float32_matmul_precision()
        change = torch.set_float32_matmul_precision
        in_full = "highest"
    except RuntimeError:  # the program uses PyTorch's newer interface; the two cannot be mixed
        before, in_full = newer.fp32_precision, "ieee"
        change = partial(setattr, newer, "fp32_precision")
    change(in_full)
    try:
        yield
    finally:
        change(before)


def try_to_record(
    what: str, computations: Sequence[RecordedGraphs], stream_slots: Sequence[StreamSlot]
) -> str:
    """Record computations that never run concurrently; returns in words what was recorded.

    Without graphs they run slower, with the same results. If one stream fails, the graphs of those
    before it are kept. Raises torch.OutOfMemoryError.
    """
    for i, stream_slot in enumerate(stream_slots):
        try:
            recorder = GraphRecorder(stream_slot)
            with excluding_sms(stream_slot.n_other_sms):
                for each in computations:
                    each.record(recorder)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            for each in computations:
                each.forget(i)
            reason = " ".join(str(error).split())[:200]
            if not i:
                return f"{what} is slower, because it cannot be recorded: {reason}"
            return f"{what} is recorded for the whole GPU, but not for a part of it: {reason}"
    return f"{what} is recorded as CUDA graphs for {len(computations[0].sizes)} sizes"
