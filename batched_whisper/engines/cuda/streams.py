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

from batched_whisper.engines.cuda.cuda_graphs import Place
from batched_whisper.engines.cuda.sm_partition import CANNOT_DIVIDE, divide, try_out

FIRST = -1
"""The priority of steps, before what is encoded meanwhile: everybody waits for a step."""
ALONE, BESIDE = 0, 1
"""The numbers of places: with the whole device, and with a part of it while the other is busy."""


class Streams:
    """The streams of one engine.

    Args:
        device: where they are.
        n_for_steps: how many multiprocessors steps have for themselves beside the encoding of
            windows; 0 for none.
    """

    def __init__(self, device: torch.device, n_for_steps: int = 0) -> None:
        self._device = device
        self.why = "steps and encoding share all multiprocessors"
        self.steps: list[Place] = []
        """Where steps are recorded, and the encoding; by `ALONE` and, if there is one, `BESIDE`."""
        self.encoding: list[Place] = []
        if device.type != "cuda":
            return
        with torch.cuda.device(device):
            self.steps.append(Place(torch.cuda.Stream(device, FIRST)))
            self.encoding.append(Place(torch.cuda.Stream(device)))
            self._encoded = torch.cuda.Event()
            if n_for_steps:
                self._divide(n_for_steps)
        self._stepped_on, self._encoded_on = self.steps[ALONE], self.encoding[ALONE]

    @contextmanager
    def stepping(self, place: int = ALONE) -> Iterator[None]:
        """Within it, work is the steps'."""
        if not self.steps:
            yield
            return
        before, self._stepped_on = self._stepped_on, self.steps[place]
        with _after(before, self._stepped_on):
            yield

    @contextmanager
    def encoding_windows(self, place: int = ALONE) -> Iterator[None]:
        """Within it, work is the encoder's. It waits for no step: none of them reads its slots."""
        if not self.encoding:
            yield
            return
        before, self._encoded_on = self._encoded_on, self.encoding[place]
        with _after(before, self._encoded_on):
            yield
            self._encoded.record()

    def await_encoding(self) -> None:
        """Let the current work wait for all that was encoded; the host does not."""
        if self.encoding:
            torch.cuda.current_stream().wait_event(self._encoded)

    def settle(self) -> None:
        """Wait for everything on the device."""
        if self.steps:
            torch.cuda.synchronize(self._device)

    def _divide(self, n_for_steps: int) -> None:
        try:
            both = divide(self._device, n_for_steps, (FIRST, 0))
            (steps, n_steps), (encoding, n_encoding) = both
            whole = self.steps[ALONE].stream, self.encoding[ALONE].stream
            try_out(self._device, (*whole, steps, encoding))
        except CANNOT_DIVIDE as error:
            self.why += f": {' '.join(str(error).split())[:200]}"
            return
        self.steps.append(Place(steps, n_encoding))
        self.encoding.append(Place(encoding, n_steps))
        self.why = f"of the multiprocessors {n_steps} are for steps while windows are encoded"


@contextmanager
def _after(before: Place, place: Place) -> Iterator[None]:
    """On the stream of a place, after what was done at the one before."""
    if place is not before:
        place.stream.wait_stream(before.stream)
    with torch.cuda.stream(place.stream):
        yield
