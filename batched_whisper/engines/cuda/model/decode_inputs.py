"""What a pass is fed: some whole numbers for each token, staged on the host, copied at once.

From one pass to the next the device makes them itself, from what was chosen and each row's constraints
(`next_inputs`): the definition is `rules.ConstraintState.after`, done there for all rows at once. Knows the
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
    # How it goes on by itself (`next_inputs`): of `rules.ConstraintState`, whose masks are rows of the table.
    END = 9  # no token is fed from this position on
    TEXT_MASK = 10
    UNFINISHED_MASK = 11
    SEGMENT_END_MASK = 12
    UNFINISHED_FIRST = 13
    UNFINISHED_STOP = 14
    OPENS_SEGMENT = 15
    LAST_TIMESTAMP = 16


class TokenInput(NamedTuple):
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
    text_mask: int = 0
    unfinished_mask: int = 0
    segment_end_mask: int = 0
    unfinished_first: int = 0
    unfinished_stop: int = 0
    opens_segment: int = 0
    last_timestamp: int = 0


def float_bits(value: float) -> int:
    """The bits of a float32, as a whole number."""
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return bits


def bits_to_float(bits: torch.Tensor) -> torch.Tensor:
    """The float32 numbers of `float_bits`."""
    return bits.to(torch.int32).view(torch.float32)


class DecodeInputs:
    """Fixed memory on the host and on the device for passes of up to ``most`` tokens.

    Args:
        most: the most tokens of a pass.
        device: where the pass runs.
        padding: what fills a pass up to a recorded size.
    """

    def __init__(self, most: int, device: torch.device, padding: TokenInput) -> None:
        pinned = device.type == "cuda"
        self._padding = np.array(padding)[:, None]
        self.padding = torch.from_numpy(self._padding).to(device)
        """The numbers of padding_slot's token, ``[fields, 1]``."""
        self._host = torch.zeros((len(Field), most), dtype=torch.int64, pin_memory=pinned)
        self._device = torch.zeros_like(self._host, device=device)
        self._staged = self._host.numpy()  # the same memory
        self._staged[:] = self._padding
        self._device.copy_(self._host)

    def send(self, token_inputs: Sequence[TokenInput], size: int) -> None:
        """Copy token_inputs to the device, filled up to ``size``; the host does not wait.

        Nothing may be sent before the pass that was fed last has answered.
        """
        self._staged[:, : len(token_inputs)] = np.array(token_inputs).T
        self._staged[:, len(token_inputs) : size] = self._padding
        # All of it: a part of every row would not be one piece, and copied with a detour.
        self._device.copy_(self._host, non_blocking=True)

    def read(self, size: int) -> torch.Tensor:
        """The device's numbers, ``[fields, size]``, always at the same address."""
        return self._device[:, :size]


def next_inputs(
    inputs: torch.Tensor, chosen: torch.Tensor, ids: TokenIds, padding: torch.Tensor
) -> torch.Tensor:
    """The numbers of the next pass. Who has ended, or is as long as asked for, is padding_slot.

    Args:
        inputs: what the last pass was fed, ``[fields, n]``.
        chosen: its tokens, ``[n]``.
        ids: the special tokens.
        padding: the numbers of padding_slot's token, ``[fields, 1]``.
    """
    position = inputs[Field.POSITION] + 1
    is_time = chosen >= ids.timestamp_begin
    opens = is_time & (inputs[Field.OPENS_SEGMENT] != 0)
    latest = torch.where(
        is_time, torch.maximum(inputs[Field.LAST_TIMESTAMP], chosen), inputs[Field.LAST_TIMESTAMP]
    )
    first = torch.where(is_time, latest, latest + 1)
    after = inputs.clone()
    after[Field.TOKEN] = chosen
    after[Field.POSITION] = position
    after[Field.MASK] = torch.where(
        opens & _leaves_sound(inputs, chosen, ids),
        inputs[Field.UNFINISHED_MASK],
        torch.where(is_time & ~opens, inputs[Field.SEGMENT_END_MASK], inputs[Field.TEXT_MASK]),
    )
    after[Field.TIME_FIRST] = first.masked_fill(opens, 0)
    after[Field.TIME_STOP] = torch.full_like(first, ids.n_vocab).masked_fill(opens, 0)
    after[Field.OPENS_SEGMENT] = is_time.long()
    after[Field.LAST_TIMESTAMP] = latest
    unfinished_mask = (chosen != ids.eot) & (position < inputs[Field.END])
    return torch.where(unfinished_mask, after, padding)


def _leaves_sound(inputs: torch.Tensor, chosen: torch.Tensor, ids: TokenIds) -> torch.Tensor:
    """Whether a segment that begins at a time leaves sound without text; never the first one."""
    inside = (chosen >= inputs[Field.UNFINISHED_FIRST]) & (chosen < inputs[Field.UNFINISHED_STOP])
    return inside & (inputs[Field.LAST_TIMESTAMP] >= ids.timestamp_begin)
