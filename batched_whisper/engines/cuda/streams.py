"""CUDA streams of one engine: decoder steps, and the encoding of windows that arrive meanwhile.

A step mostly waits for memory and the encoder for arithmetic, so together they could finish sooner
than one after the other. But on two streams that may each use the whole GPU, every kernel takes all
of it while the other stream waits; worse, a product planned for all multiprocessors that finds some
of them busy is done only when these are free again. So each has a second stream, with
multiprocessors of its own, for when both have work. On a CPU there are no streams, and this module
does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from batched_whisper.engines.cuda.cuda_graphs import StreamSlot
from batched_whisper.engines.cuda.sm_partition import SPLIT_ERRORS, check_streams, split_gpu

STEP_PRIORITY = -1
"""The priority of steps, above encoding: all windows wait for a step."""
EXCLUSIVE, SHARED = 0, 1
"""Indices of stream slots: the whole device, or a part of it while the other part is busy."""


class Streams:
    """The streams of one engine.

    Args:
        device: their device.
        n_step_sms: the number of multiprocessors reserved for steps while windows are encoded; 0
            for none.
    """

    def __init__(self, device: torch.device, n_step_sms: int = 0) -> None:
        self._device = device
        self.why = "steps and encoding share all multiprocessors"
        self.steps: list[StreamSlot] = []
        """Stream slots, by `EXCLUSIVE` and, if the GPU is partitioned, `SHARED`."""
        self.encoding: list[StreamSlot] = []
        if device.type != "cuda":
            return
        with torch.cuda.device(device):
            self.steps.append(StreamSlot(torch.cuda.Stream(device, STEP_PRIORITY)))
            self.encoding.append(StreamSlot(torch.cuda.Stream(device)))
            self._encoded = torch.cuda.Event()
            if n_step_sms:
                self._split(n_step_sms)
        self._stepped_on, self._encoded_on = self.steps[EXCLUSIVE], self.encoding[EXCLUSIVE]

    @contextmanager
    def step_stream(self, stream_slot: int = EXCLUSIVE) -> Iterator[None]:
        """Within the context, work goes to the steps' stream."""
        if not self.steps:
            yield
            return
        before, self._stepped_on = self._stepped_on, self.steps[stream_slot]
        with _after(before, self._stepped_on):
            yield

    @contextmanager
    def encoder_stream(self, stream_slot: int = EXCLUSIVE) -> Iterator[None]:
        """Within the context, work goes to the encoder's stream.

        It does not wait for a step: no step in progress reads the slots that are encoded.
        """
        if not self.encoding:
            yield
            return
        before, self._encoded_on = self._encoded_on, self.encoding[stream_slot]
        with _after(before, self._encoded_on):
            yield
            self._encoded.record()

    def wait_for_encoder(self) -> None:
        """Make the current stream wait for all encoding; the host does not wait."""
        if self.encoding:
            torch.cuda.current_stream().wait_event(self._encoded)

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        if self.steps:
            torch.cuda.synchronize(self._device)

    def _split(self, n_step_sms: int) -> None:
        try:
            both = split_gpu(self._device, n_step_sms, (STEP_PRIORITY, 0))
            (steps, n_steps), (encoding, n_encoding) = both
            whole = self.steps[EXCLUSIVE].stream, self.encoding[EXCLUSIVE].stream
            check_streams(self._device, (*whole, steps, encoding))
        except SPLIT_ERRORS as error:
            self.why += f": {' '.join(str(error).split())[:200]}"
            return
        self.steps.append(StreamSlot(steps, n_encoding))
        self.encoding.append(StreamSlot(encoding, n_steps))
        self.why = f"{n_steps} multiprocessors are reserved for steps while windows are encoded"


@contextmanager
def _after(before: StreamSlot, stream_slot: StreamSlot) -> Iterator[None]:
    """Run on a stream slot's stream, after the work on the one before."""
    if stream_slot is not before:
        stream_slot.stream.wait_stream(before.stream)
    with torch.cuda.stream(stream_slot.stream):
        yield
