"""Streams of work on one GPU: steps, and the encoding of windows that come in meanwhile.

A step mostly waits for memory and the encoder for arithmetic, so together they are done sooner than
one after the other. But of two streams that may use all of a GPU, one takes it whole with every
kernel, and the other waits; worse, a product made for all multiprocessors that finds some of them
taken is done when these are free again. So each of them has a second stream, with multiprocessors
of its own, for when both have something to do. On a processor there is but one way of working, and
all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from batched_whisper.engines.cuda.cuda_graphs import StreamSlot
from batched_whisper.engines.cuda.sm_partition import SPLIT_ERRORS, check_streams, split_gpu

STEP_PRIORITY = -1
"""The priority of steps, before what is encoded meanwhile: everybody waits for a step."""
EXCLUSIVE, SHARED = 0, 1
"""The numbers of places: with the whole device, and with a part of it while the other is busy."""


class Streams:
    """The streams of one engine.

    Args:
        device: where they are.
        n_step_sms: how many multiprocessors steps have for themselves beside the encoding of
            windows; 0 for none.
    """

    def __init__(self, device: torch.device, n_step_sms: int = 0) -> None:
        self._device = device
        self.why = "steps and encoding share all multiprocessors"
        self.steps: list[StreamSlot] = []
        """Where steps are recorded, and the encoding; by `EXCLUSIVE` and, if there is one, `SHARED`."""
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
    def step_stream(self, place: int = EXCLUSIVE) -> Iterator[None]:
        """Within it, work is the steps'."""
        if not self.steps:
            yield
            return
        before, self._stepped_on = self._stepped_on, self.steps[place]
        with _after(before, self._stepped_on):
            yield

    @contextmanager
    def encoder_stream(self, place: int = EXCLUSIVE) -> Iterator[None]:
        """Within it, work is the encoder's. It waits for no step: none of them reads its slots."""
        if not self.encoding:
            yield
            return
        before, self._encoded_on = self._encoded_on, self.encoding[place]
        with _after(before, self._encoded_on):
            yield
            self._encoded.record()

    def wait_for_encoder(self) -> None:
        """Let the current work wait for all that was encoded; the host does not."""
        if self.encoding:
            torch.cuda.current_stream().wait_event(self._encoded)

    def synchronize(self) -> None:
        """Wait for everything on the device."""
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
        self.why = f"of the multiprocessors {n_steps} are for steps while windows are encoded"


@contextmanager
def _after(before: StreamSlot, place: StreamSlot) -> Iterator[None]:
    """On the stream of a place, after what was done at the one before."""
    if place is not before:
        place.stream.wait_stream(before.stream)
    with torch.cuda.stream(place.stream):
        yield
