"""What a pass is fed: some whole numbers for each token, staged on the host, copied at once.

From one pass to the next the device makes them itself, from what was chosen and each row's course
(`next_feed`): the definition is `rules.Course.after`, done there for all rows at once. Knows the
order of the numbers and where they lie, and nothing of what a decoder does with them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch

from batched_whisper.decoding.rules import TokenIds


class Field(IntEnum):
    """The rows of the numbers fed; of a token that chooses nothing only the first three matter."""

    TOKEN = 0
    SLOT = 1
    POSITION = 2
    MASK = 3  # a row of the mask table
    TIME_FIRST = 4  # timestamps allowed, from ...
    TIME_STOP = 5  # ... to before; equal for none
    PROBE = 6  # the token whose probability is told
    TEMPERATURE = 7  # the bits of a float32, see `float_bits`
    STREAM = 8  # stands for the seed, `Sampling.stream`
    # How it goes on by itself (`next_feed`): of `rules.Course`, whose masks are rows of the table.
    END = 9  # no token is fed from this position on
    TEXT = 10
    GOES_ON = 11
    NO_TEXT = 12
    UNFINISHED_FIRST = 13
    UNFINISHED_STOP = 14
    BEGINS = 15
    LATEST = 16


class Entry(NamedTuple):
    """One token of a pass; a tuple, because there are hundreds in every step."""

    token: int
    slot: int
    position: int
    mask: int = 0
    time_first: int = 0
    time_stop: int = 0
    probe: int = 0
    temperature: int = 0
    stream: int = 0
    end: int = 0
    text: int = 0
    goes_on: int = 0
    no_text: int = 0
    unfinished_first: int = 0
    unfinished_stop: int = 0
    begins: int = 0
    latest: int = 0


def float_bits(value: float) -> int:
    """The bits of a float32, as a whole number."""
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return bits


def floats(bits: torch.Tensor) -> torch.Tensor:
    """The float32 numbers of `float_bits`."""
    return bits.to(torch.int32).view(torch.float32)


class Feed:
    """Fixed memory on the host and on the device for passes of up to ``most`` tokens.

    Args:
        most: the most tokens of a pass.
        device: where the pass runs.
        idle: what fills a pass up to a recorded size.
    """

    def __init__(self, most: int, device: torch.device, idle: Entry) -> None:
        pinned = device.type == "cuda"
        self._idle = np.array(idle)[:, None]
        self.idle = torch.from_numpy(self._idle).to(device)
        """The numbers of nobody's token, ``[fields, 1]``."""
        self._host = torch.zeros((len(Field), most), dtype=torch.int64, pin_memory=pinned)
        self._device = torch.zeros_like(self._host, device=device)
        self._staged = self._host.numpy()  # the same memory
        self._staged[:] = self._idle
        self._device.copy_(self._host)

    def send(self, entries: Sequence[Entry], size: int) -> None:
        """Copy entries to the device, filled up to ``size``; the host does not wait.

        Nothing may be sent before the pass that was fed last has answered.
        """
        self._staged[:, : len(entries)] = np.array(entries).T
        self._staged[:, len(entries) : size] = self._idle
        # All of it: a part of every row would not be one piece, and copied with a detour.
        self._device.copy_(self._host, non_blocking=True)

    def read(self, size: int) -> torch.Tensor:
        """The device's numbers, ``[fields, size]``, always at the same address."""
        return self._device[:, :size]


def next_feed(
    feed: torch.Tensor, chosen: torch.Tensor, ids: TokenIds, idle: torch.Tensor
) -> torch.Tensor:
    """The numbers of the next pass. Who has ended, or is as long as asked for, is nobody.

    Args:
        feed: what the last pass was fed, ``[fields, n]``.
        chosen: its tokens, ``[n]``.
        ids: the special tokens.
        idle: the numbers of nobody's token, ``[fields, 1]``.
    """
    position = feed[Field.POSITION] + 1
    is_time = chosen >= ids.timestamp_begin
    opens = is_time & (feed[Field.BEGINS] != 0)
    latest = torch.where(is_time, torch.maximum(feed[Field.LATEST], chosen), feed[Field.LATEST])
    first = torch.where(is_time, latest, latest + 1)
    after = feed.clone()
    after[Field.TOKEN] = chosen
    after[Field.POSITION] = position
    after[Field.MASK] = torch.where(
        opens & _leaves_sound(feed, chosen, ids),
        feed[Field.GOES_ON],
        torch.where(is_time & ~opens, feed[Field.NO_TEXT], feed[Field.TEXT]),
    )
    after[Field.TIME_FIRST] = first.masked_fill(opens, 0)
    after[Field.TIME_STOP] = torch.full_like(first, ids.n_vocab).masked_fill(opens, 0)
    after[Field.BEGINS] = is_time.long()
    after[Field.LATEST] = latest
    goes_on = (chosen != ids.eot) & (position < feed[Field.END])
    return torch.where(goes_on, after, idle)


def _leaves_sound(feed: torch.Tensor, chosen: torch.Tensor, ids: TokenIds) -> torch.Tensor:
    """Whether a segment that begins at a time leaves sound without text; never the first one."""
    inside = (chosen >= feed[Field.UNFINISHED_FIRST]) & (chosen < feed[Field.UNFINISHED_STOP])
    return inside & (feed[Field.LATEST] >= ids.timestamp_begin)
