"""The inputs of a decoder pass: whole numbers per token, staged on the host and copied at once.

Between consecutive passes the device computes them itself, from the chosen tokens and each row's
constraints (`next_inputs`): what `rules.ConstraintState.after` defines, for all rows at once. This
module knows the fields and their memory, and not how the decoder uses them.
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
    """The rows of the inputs; where no token is chosen, only the first three matter."""

    TOKEN = 0
    SLOT = 1
    POSITION = 2
    MASK = 3  # a row of the mask table
    TIME_FIRST = 4  # the first allowed timestamp
    TIME_STOP = 5  # the one after the last; equal if none is allowed
    PROBE = 6  # the token whose probability is returned
    TEMPERATURE = 7  # the bits of a float32, see `float_bits`
    STREAM = 8  # represents the seed, `Sampling.stream`
    # For `next_inputs`: the fields of `rules.ConstraintState`, with masks as rows of the table.
    END = 9  # the row continues up to before this position
    TEXT_MASK = 10
    UNFINISHED_MASK = 11
    SEGMENT_END_MASK = 12
    UNFINISHED_FIRST = 13
    UNFINISHED_STOP = 14
    OPENS_SEGMENT = 15
    LAST_TIMESTAMP = 16


class TokenInput(NamedTuple):
    """The inputs of one token; a tuple, because each step has hundreds."""

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
    """Return the bits of a float32 as a whole number."""
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return bits


def bits_to_float(bits: torch.Tensor) -> torch.Tensor:
    """Return the float32 values of `float_bits`."""
    return bits.to(torch.int32).view(torch.float32)


class DecodeInputs:
    """Fixed memory on the host and on the device for the inputs of up to ``max_tokens`` tokens.

    Args:
        max_tokens: the most tokens of a pass.
        device: where passes run.
        padding: the token that pads a pass to a recorded size.
    """

    def __init__(self, max_tokens: int, device: torch.device, padding: TokenInput) -> None:
        pinned = device.type == "cuda"
        self._padding = np.array(padding)[:, None]
        self.padding = torch.from_numpy(self._padding).to(device)
        """The inputs of a padding token, ``[fields, 1]``."""
        self._host = torch.zeros((len(Field), max_tokens), dtype=torch.int64, pin_memory=pinned)
        self._device = torch.zeros_like(self._host, device=device)
        self._staged = self._host.numpy()  # the same memory
        self._staged[:] = self._padding
        self._device.copy_(self._host)

    def send(self, token_inputs: Sequence[TokenInput], size: int) -> None:
        """Copy inputs to the device, padded to ``size``; the host does not wait.

        The outputs of the last pass must have been read before.
        """
        self._staged[:, : len(token_inputs)] = np.array(token_inputs).T
        self._staged[:, len(token_inputs) : size] = self._padding
        # All of it: a part of each row is not contiguous and would be copied twice.
        self._device.copy_(self._host, non_blocking=True)

    def read(self, size: int) -> torch.Tensor:
        """Return the device's inputs, ``[fields, size]``, always at the same address."""
        return self._device[:, :size]


def next_inputs(
    inputs: torch.Tensor, chosen: torch.Tensor, ids: TokenIds, padding: torch.Tensor
) -> torch.Tensor:
    """Compute the inputs of the next pass. Rows that have ended become padding.

    A row ends at the end of text or at its ``END`` position.

    Args:
        inputs: those of the last pass, ``[fields, n]``.
        chosen: the tokens that it chose, ``[n]``.
        ids: the special tokens.
        padding: the inputs of a padding token, ``[fields, 1]``.
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
    continues = (chosen != ids.eot) & (position < inputs[Field.END])
    return torch.where(continues, after, padding)


def _leaves_sound(inputs: torch.Tensor, chosen: torch.Tensor, ids: TokenIds) -> torch.Tensor:
    """Return whether a later segment begins at a time that would leave sound without text."""
    inside = (chosen >= inputs[Field.UNFINISHED_FIRST]) & (chosen < inputs[Field.UNFINISHED_STOP])
    return inside & (inputs[Field.LAST_TIMESTAMP] >= ids.timestamp_begin)
