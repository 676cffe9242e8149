"""Choosing tokens on the device, for the rules of `decoding.rules`.

The definition is `decoding.sampling.choose`; here it is done for all rows of a pass at once, and
three numbers a row leave the device instead of a vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from batched_whisper.decoding.rules import NOTHING, TokenMask
from batched_whisper.decoding.sampling import HASH_MULTIPLIERS, mask_row
from batched_whisper.engines.cuda.model.decode_inputs import Field, bits_to_float

N_OUTPUTS = 3
"""Of each row: token, its log-probability among the allowed, the probe's among all."""


Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""`choose`, or a kernel that does the same."""


class MaskTable:
    """The token masks in use, as rows of a table on the device.

    A model uses a handful, whose rows stay. Where more are needed than there are rows, those
    longest unused make budget.

    Args:
        n_rows: how many rows; at least those of one pass.
        timestamp_begin: the tokens below are masked.
        device: where the table is.
    """

    def __init__(self, n_rows: int, timestamp_begin: int, device: torch.device) -> None:
        self._begin = timestamp_begin
        self._index: OrderedDict[TokenMask, int] = OrderedDict()
        self.hidden = torch.ones((n_rows, timestamp_begin), dtype=torch.bool, device=device)
        """True where a token may not be said, ``[n_rows, timestamp_begin]``."""
        self._index[NOTHING] = 0

    def indices(self, masks: Collection[TokenMask]) -> list[int]:
        """Their rows, in order; new ones are written."""
        wanted = dict.fromkeys(masks)
        for mask in wanted:  # all of them first become the last to make budget
            if mask in self._index:
                self._index.move_to_end(mask)
        for mask in wanted:
            if mask not in self._index:
                self._write(mask)
        return [self._index[mask] for mask in masks]

    def _write(self, mask: TokenMask) -> None:
        row = len(self._index)
        if row == len(self.hidden):
            _, row = self._index.popitem(last=False)
        hidden = torch.from_numpy(mask_row(mask, self._begin) != 0)
        self.hidden[row].copy_(hidden)
        self._index[mask] = row


def choose(logits: torch.Tensor, hidden: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """An allowed token of each row; `N_OUTPUTS` numbers, ``[3, n]`` float32.

    The most probable one, or at a temperature a random one. A timestamp is chosen if all those
    allowed together are more probable than the best text token (openai/whisper,
    ApplyTimestampRules). Tokens are below 2^24, so float32 holds them exactly.

    Args:
        logits: ``[n, n_vocab]`` float32.
        hidden: the mask table's.
        inputs: the pass's numbers, ``[fields, n]``.
    """
    begin = hidden.shape[1]
    text = logits[:, :begin].masked_fill(hidden[inputs[Field.MASK]], float("-inf"))
    timed = _timestamps(logits, begin, inputs)
    probe = logits.gather(1, inputs[Field.PROBE][:, None])[:, 0]
    probability = (probe - logits.logsumexp(-1)).exp()
    return decide(_pick(text, inputs, 0), _pick(timed, inputs, begin), probability)


@dataclass(frozen=True)
class Pick:
    """Of each row's tokens of one kind, ``[n]`` each."""

    token: torch.Tensor
    """The one picked: the best, or at a temperature a random one."""
    merit: torch.Tensor
    """By which it was picked: its score, or with the temperature and the noise."""
    score: torch.Tensor
    """Its own logit."""
    highest: torch.Tensor
    """The highest of all."""
    total: torch.Tensor
    """Their log-sum-exp."""


def decide(text: Pick, timed: Pick, probability: torch.Tensor) -> torch.Tensor:
    """Text or timestamp: the rows' outputs, ``[3, n]`` float32."""
    only_timed = timed.total > text.highest
    timing = only_timed | (timed.merit > text.merit)
    token = torch.where(timing, timed.token.float(), text.token.float())
    score = torch.where(timing, timed.score, text.score)
    total = torch.where(only_timed, timed.total, torch.logaddexp(text.total, timed.total))
    return torch.stack([token, score - total, probability])


def _pick(scores: torch.Tensor, inputs: torch.Tensor, first: int) -> Pick:
    best = _merits(scores, inputs, first).max(-1)
    score = scores.gather(1, best.indices[:, None])[:, 0]
    return Pick(best.indices + first, best.values, score, scores.amax(-1), scores.logsumexp(-1))


def _merits(scores: torch.Tensor, inputs: torch.Tensor, first: int) -> torch.Tensor:
    """The scores, of rows that sample with temperature and noise (`sampling.gumbel`)."""
    temperature = bits_to_float(inputs[Field.TEMPERATURE])[:, None]
    if scores.device.type == "cpu" and not temperature.any():  # a recording cannot look
        return scores
    place = _hash32(inputs[Field.STREAM] ^ (inputs[Field.POSITION] + 1))[:, None]
    tokens = torch.arange(first, first + scores.shape[1], device=scores.device)
    uniform = ((_hash32(tokens ^ place) >> 9).float() + 0.5) * 2**-23
    noisy = scores / temperature - (-uniform.log()).log()
    return torch.where(temperature > 0, noisy, scores)


def _hash32(bits: torch.Tensor) -> torch.Tensor:
    """`sampling`'s hash of 32 bits, in the lower half of whole numbers of 64."""
    bits = ((bits ^ (bits >> 16)) * HASH_MULTIPLIERS[0]) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * HASH_MULTIPLIERS[1]) & 0xFFFFFFFF
    return bits ^ (bits >> 16)


def best_tokens(
    logits: torch.Tensor, hidden: torch.Tensor, inputs: torch.Tensor, n_best: int
) -> torch.Tensor:
    """The most probable allowed tokens of each row and their log-probabilities, best first.

    ``[2, n, n_best]`` float32; -inf where fewer are allowed. The definition is
    `decoding.sampling.best`; arguments as those of `choose`.
    """
    begin = hidden.shape[1]
    text = logits[:, :begin].masked_fill(hidden[inputs[Field.MASK]], float("-inf"))
    timed = _timestamps(logits, begin, inputs)
    timing = timed.logsumexp(-1) > text.amax(-1)
    text = text.masked_fill(timing[:, None], float("-inf"))
    logprobs = torch.cat([text, timed], -1).log_softmax(-1)
    found = logprobs.topk(min(n_best, logits.shape[1]))
    return torch.stack([found.indices.float(), found.values])


def _timestamps(logits: torch.Tensor, begin: int, inputs: torch.Tensor) -> torch.Tensor:
    """Logits of the timestamps, -inf where they are not allowed, ``[n, n_timestamps]``."""
    tokens = torch.arange(begin, logits.shape[1], device=logits.device)
    first, stop = inputs[Field.TIME_FIRST][:, None], inputs[Field.TIME_STOP][:, None]
    allowed = (tokens >= first) & (tokens < stop)
    return logits[:, begin:].masked_fill(~allowed, float("-inf"))
