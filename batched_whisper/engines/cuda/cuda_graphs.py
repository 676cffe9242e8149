"""CUDA graphs: what is computed again and again, recorded once and played as one launch.

A thousand small kernels are then one call of the host's. It knows nothing of what is computed.
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
"""Runs before recording: libraries take their workspaces, kernels are compiled."""


@dataclass(frozen=True)
class StreamSlot:
    """Where something is recorded and played.

    Attributes:
        stream: whose; its priority and its multiprocessors are those of what is recorded.
        n_other_sms: multiprocessors of the device that are not the stream's.
    """

    stream: Any
    n_other_sms: int = 0


class GraphRecorder:
    """Records at a place.

    PyTorch's own stream for recording is one for the whole process, on the device that recorded
    first: what another device does would not be in the recording.
    """

    def __init__(self, place: StreamSlot) -> None:
        self._stream = place.stream
        self._pool: Any = None

    def record(self, compute: Callable[[], None]) -> Any:
        """A CUDA graph of what is computed, with its memory in a pool that its others share.

        They may, because nothing that they leave behind lies there, and no two of them run at
        once; so the one that needs most is best recorded first. In a process one graph may be
        recorded at a time; what other threads do meanwhile, another model's engine say, is their
        own affair (by the default it would break the recording off).
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
    """One computation in a few sizes, each recorded at a few places and played there again.

    Or it just runs.

    Args:
        compute: does it, given its size.
        sizes: those that are recorded, ascending; the last is the most there may be.
    """

    def __init__(self, compute: Callable[[int], None], sizes: Sequence[int]) -> None:
        self._compute = compute
        self.sizes = tuple(sizes)
        self._recorded: list[dict[int, Any]] = []

    def size(self, n: int) -> int:
        """The smallest recorded size that holds so many; just so many where none is."""
        if not self._recorded:
            return n
        return next(size for size in self.sizes if size >= n)

    @property
    def n_stream_slots(self) -> int:
        """At how many it was recorded."""
        return len(self._recorded)

    def play(self, size: int, place: int = 0) -> None:
        """Do it, on what lies where it looks; at the place of that number."""
        recorded = self._recorded[place].get(size) if self._recorded else None
        if recorded is None:
            self._compute(size)
        else:
            recorded.replay()

    def record(self, recorder: GraphRecorder) -> None:
        """At one more place.

        The largest first: the smaller ones then find their memory in its pool.
        """
        sizes = reversed(self.sizes)
        self._recorded.append({n: recorder.record(partial(self._compute, n)) for n in sizes})

    def forget(self, n_stream_slots: int = 0) -> None:
        """All but the first ``n_stream_slots``; where there is none, just run from now on."""
        del self._recorded[n_stream_slots:]


def blocking_event() -> Any:
    """An event that the host sleeps for: by default it would keep a core busy with looking."""
    return torch.cuda.Event(blocking=True)


@contextmanager
def full_float32_precision() -> Iterator[None]:
    """Within it, products in float32 are not rounded to fewer bits, whatever the program has set.

    A training script's ``set_float32_matmul_precision("high")`` would round the spectrogram to ten
    bits, and a recording keeps for good what held when it was made.
    """
    newer = torch.backends.cuda.matmul
    try:
        before = torch.get_float32_matmul_precision()
        change = torch.set_float32_matmul_precision
        in_full = "highest"
    except RuntimeError:  # the program used PyTorch's newer interface, which is not to be mixed
        before, in_full = newer.fp32_precision, "ieee"
        change = partial(setattr, newer, "fp32_precision")
    change(in_full)
    try:
        yield
    finally:
        change(before)


def try_to_record(what: str, all_of: Sequence[RecordedGraphs], places: Sequence[StreamSlot]) -> str:
    """Record what is never done at the same time; how that went, in words.

    Without graphs it is slower, and as right. Where one place fails, those before it stay.
    Raises torch.OutOfMemoryError.
    """
    for i, place in enumerate(places):
        try:
            recorder = GraphRecorder(place)
            with excluding_sms(place.n_other_sms):
                for each in all_of:
                    each.record(recorder)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            for each in all_of:
                each.forget(i)
            reason = " ".join(str(error).split())[:200]
            if not i:
                return f"{what} is slower, because it cannot be recorded: {reason}"
            return f"{what} is recorded for the whole GPU, not for a part of it: {reason}"
    return f"{what} is recorded as CUDA graphs for {len(all_of[0].sizes)} sizes"
