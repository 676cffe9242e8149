"""Chooses tokens on the device by the rules of `decoding.rules`.

The definition is `decoding.sampling.choose`; here it is computed for all rows of a pass at once, so
that three numbers per row leave the device instead of a vocabulary.
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
"""Per row: the token, its log-probability among the allowed, the probe's probability among all."""


Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""`choose`, or a kernel that computes the same."""


class MaskTable:
    """The token masks in use, as rows of a table on the device.

    A model needs a handful, whose rows stay. If more are needed than there are rows, the least
    recently used are replaced.

    Args:
        n_rows: the number of rows; at least as many as one pass needs.
        timestamp_begin: masks apply to the tokens below.
        device: the device of the table.
    """

    def __init__(self, n_rows: int, timestamp_begin: int, device: torch.device) -> None:
        self._begin = timestamp_begin
        self._index: OrderedDict[TokenMask, int] = OrderedDict()
        self.forbidden = torch.ones((n_rows, timestamp_begin), dtype=torch.bool, device=device)
        """True where a token is not allowed, ``[n_rows, timestamp_begin]``."""
        self._index[NOTHING] = 0

    def indices(self, masks: Collection[TokenMask]) -> list[int]:
        """Return the rows of masks, in order; new masks are written."""
        wanted = dict.fromkeys(masks)
        for mask in wanted:  # mark all as recently used before any is replaced
            if mask in self._index:
                self._index.move_to_end(mask)
        for mask in wanted:
            if mask not in self._index:
                self._write(mask)
        return [self._index[mask] for mask in masks]

    def _write(self, mask: TokenMask) -> None:
        row = len(self._index)
        if row == len(self.forbidden):
            _, row = self._index.popitem(last=False)
        forbidden = torch.from_numpy(mask_row(mask, self._begin) != 0)
        self.forbidden[row].copy_(forbidden)
        self._index[mask] = row


def choose(logits: torch.Tensor, mask_table: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Choose an allowed token per row; returns `N_OUTPUTS` numbers per row, ``[3, n]`` float32.

    It is the most probable one, or at a temperature a random one. A timestamp is chosen if all
    allowed timestamps together are more probable than the best text token (openai/whisper,
    ApplyTimestampRules). Tokens are below 2^24, so float32 holds them exactly.

    Args:
        logits: ``[n, n_vocab]`` float32.
        mask_table: `MaskTable.forbidden`.
        inputs: the pass's inputs, ``[fields, n]``.
    """
    begin = mask_table.shape[1]
    text = logits[:, :begin].masked_fill(mask_table[inputs[Field.MASK]], float("-inf"))
    timed = _timestamps(logits, begin, inputs)
    probe = logits.gather(1, inputs[Field.PROBE][:, None])[:, 0]
    probability = (probe - logits.logsumexp(-1)).exp()
    return decide(_pick(text, inputs, 0), _pick(timed, inputs, begin), probability)


@dataclass(frozen=True)
class Pick:
    """The token picked among each row's text tokens or timestamps, ``[n]`` each."""

    token: torch.Tensor
    """The picked token: the best, or at a temperature a random one."""
    merit: torch.Tensor
    """The value that it was picked by: its logit, or with the temperature and the noise."""
    score: torch.Tensor
    """Its logit."""
    highest: torch.Tensor
    """The highest logit."""
    total: torch.Tensor
    """The log-sum-exp of the logits."""


def decide(text: Pick, timed: Pick, probability: torch.Tensor) -> torch.Tensor:
    """Choose between text and timestamp; returns the rows' outputs, ``[3, n]`` float32."""
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
    """Return the logits; with a temperature, scaled and with Gumbel noise (`sampling.gumbel`)."""
    temperature = bits_to_float(inputs[Field.TEMPERATURE])[:, None]
    if scores.device.type == "cpu" and not temperature.any():  # cannot be read while recording
        return scores
    position_hash = _hash32(inputs[Field.STREAM] ^ (inputs[Field.POSITION] + 1))[:, None]
    tokens = torch.arange(first, first + scores.shape[1], device=scores.device)
    uniform = ((_hash32(tokens ^ position_hash) >> 9).float() + 0.5) * 2**-23
    noisy = scores / temperature - (-uniform.log()).log()
    return torch.where(temperature > 0, noisy, scores)


def _hash32(bits: torch.Tensor) -> torch.Tensor:
    """Compute `sampling`'s 32-bit hash in the lower half of 64-bit integers."""
    bits = ((bits ^ (bits >> 16)) * HASH_MULTIPLIERS[0]) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * HASH_MULTIPLIERS[1]) & 0xFFFFFFFF
    return bits ^ (bits >> 16)


def best_tokens(
    logits: torch.Tensor, mask_table: torch.Tensor, inputs: torch.Tensor, n_best: int
) -> torch.Tensor:
    """Return the most probable allowed tokens per row and their log-probabilities, best first.

    ``[2, n, n_best]`` float32; -inf if fewer are allowed. The definition is
    `decoding.sampling.best`; arguments as in `choose`.
    """
    begin = mask_table.shape[1]
    text = logits[:, :begin].masked_fill(mask_table[inputs[Field.MASK]], float("-inf"))
    timed = _timestamps(logits, begin, inputs)
    timing = timed.logsumexp(-1) > text.amax(-1)
    text = text.masked_fill(timing[:, None], float("-inf"))
    logprobs = torch.cat([text, timed], -1).log_softmax(-1)
    best = logprobs.topk(min(n_best, logits.shape[1]))
    return torch.stack([best.indices.float(), best.values])


def _timestamps(logits: torch.Tensor, begin: int, inputs: torch.Tensor) -> torch.Tensor:
    """Return the logits of timestamps, -inf if not allowed, ``[n, n_timestamps]``."""
    tokens = torch.arange(begin, logits.shape[1], device=logits.device)
    first, stop = inputs[Field.TIME_FIRST][:, None], inputs[Field.TIME_STOP][:, None]
    allowed = (tokens >= first) & (tokens < stop)
    return logits[:, begin:].masked_fill(~allowed, float("-inf"))
