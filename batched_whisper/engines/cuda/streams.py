"""Two streams of work on one GPU: steps, and the encoding of windows that come in meanwhile.

A step mostly waits for memory and the encoder for arithmetic, so together they are done sooner than
one after the other. On a processor there is but one way of working, and all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from batched_whisper.engines.cuda.graphs import FIRST


class Streams:
    """The streams of one engine.

    Args:
        device: where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: Any = None
        self._encoding: Any = None
        self._encoded: Any = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._steps = torch.cuda.Stream(priority=FIRST)
                self._encoding = torch.cuda.Stream()
                self._encoded = torch.cuda.Event()

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Within it, work is the steps'."""
        if self._steps is None:
            yield
            return
        with torch.cuda.stream(self._steps):
            yield

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Within it, work is the encoder's. It waits for no step: none of them reads its slots."""
        if self._encoding is None:
            yield
            return
        with torch.cuda.stream(self._encoding):
            yield
            self._encoded.record()

    def await_encoding(self) -> None:
        """Let the steps' next work wait for all that was encoded; the host does not."""
        if self._steps is not None:
            self._steps.wait_event(self._encoded)

    def settle(self) -> None:
        """Wait for everything on the device."""
        if self._steps is not None:
            torch.cuda.synchronize(self._device)
