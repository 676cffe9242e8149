"""CUDA graphs: what is computed again and again, recorded once and played as one launch.

A thousand small kernels are then one call of the host's. It knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM_UPS = 2
"""Runs before recording: libraries take their workspaces, kernels are compiled."""


class Recorder:
    """Records on a stream of its own.

    PyTorch's own for recording is one for the whole process, on the device that recorded first:
    what another device does would not be in the recording.

    Args:
        device: whose stream; the current one.
        priority: of the stream, and so of what is recorded; lower ones go first.
    """

    def __init__(self, device: torch.device, priority: int = 0) -> None:
        self._stream = torch.cuda.Stream(device, priority)
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
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            compute()
        self._pool = graph.pool()
        return graph


def reason_not_to(record: Callable[[], None]) -> str | None:
    """Record; why it cannot be done, None where it was. Raises torch.OutOfMemoryError."""
    try:
        record()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return " ".join(str(error).split())[:200]
    return None
