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
from batched_whisper.decoding.sampling import mask_row
from batched_whisper.engines.cuda.feed import Field

N_ANSWERS = 3
"""Of each row: token, its log-probability among the allowed, the probe's among all."""


Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""`choose_greedily`, or a kernel that does the same."""


class MaskTable:
    """The token masks in use, as rows of a table on the device.

    A model uses a handful, whose rows stay. Where more are needed than there are rows, those
    longest unused make room.

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
        for mask in wanted:  # all of them first become the last to make room
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


def choose_greedily(logits: torch.Tensor, hidden: torch.Tensor, feed: torch.Tensor) -> torch.Tensor:
    """The most probable allowed token of each row; `N_ANSWERS` numbers, ``[3, n]`` float32.

    A timestamp is chosen if all those allowed together are more probable than the best text token
    (openai/whisper, ApplyTimestampRules). Tokens are below 2^24, so float32 holds them exactly.

    Args:
        logits: ``[n, n_vocab]`` float32.
        hidden: the mask table's.
        feed: the pass's numbers, ``[fields, n]``.
    """
    begin = hidden.shape[1]
    text = logits[:, :begin].masked_fill(hidden[feed[Field.MASK]], float("-inf"))
    timed = _timestamps(logits, begin, feed)
    probe = logits.gather(1, feed[Field.PROBE][:, None])[:, 0]
    return decide(_best(text, 0), _best(timed, begin), (probe - logits.logsumexp(-1)).exp())


@dataclass(frozen=True)
class Best:
    """Of each row's tokens of one kind: the best, its score, and the log-sum-exp; ``[n]``."""

    token: torch.Tensor
    score: torch.Tensor
    total: torch.Tensor


def decide(text: Best, timed: Best, probability: torch.Tensor) -> torch.Tensor:
    """Text or timestamp: the rows' answers, ``[3, n]`` float32."""
    timing = timed.total > text.score
    token = torch.where(timing, timed.token.float(), text.token.float())
    score = torch.where(timing, timed.score, text.score)
    total = torch.where(timing, timed.total, torch.logaddexp(text.total, timed.total))
    return torch.stack([token, score - total, probability])


def _best(scores: torch.Tensor, first: int) -> Best:
    best = scores.max(-1)
    return Best(best.indices + first, best.values, scores.logsumexp(-1))


def best_tokens(
    logits: torch.Tensor, hidden: torch.Tensor, feed: torch.Tensor, n_best: int
) -> torch.Tensor:
    """The most probable allowed tokens of each row and their log-probabilities, best first.

    ``[2, n, n_best]`` float32; -inf where fewer are allowed. The definition is
    `decoding.sampling.best`; arguments as those of `choose_greedily`.
    """
    begin = hidden.shape[1]
    text = logits[:, :begin].masked_fill(hidden[feed[Field.MASK]], float("-inf"))
    timed = _timestamps(logits, begin, feed)
    timing = timed.logsumexp(-1) > text.amax(-1)
    text = text.masked_fill(timing[:, None], float("-inf"))
    logprobs = torch.cat([text, timed], -1).log_softmax(-1)
    found = logprobs.topk(min(n_best, logits.shape[1]))
    return torch.stack([found.indices.float(), found.values])


def _timestamps(logits: torch.Tensor, begin: int, feed: torch.Tensor) -> torch.Tensor:
    """Logits of the timestamps, -inf where they are not allowed, ``[n, n_timestamps]``."""
    tokens = torch.arange(begin, logits.shape[1], device=logits.device)
    first, stop = feed[Field.TIME_FIRST][:, None], feed[Field.TIME_STOP][:, None]
    allowed = (tokens >= first) & (tokens < stop)
    return logits[:, begin:].masked_fill(~allowed, float("-inf"))
