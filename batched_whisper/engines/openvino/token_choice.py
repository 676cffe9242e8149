"""Chooses a token from the few numbers per row that the decoder's graph outputs.

The graph finds the best text token and the best timestamp. This module decides between the two and
ranks further tokens if requested, as `decoding.sampling` defines it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batched_whisper.decoding.sampling import Choice, highest


@dataclass(frozen=True)
class RowScores:
    """The graph's outputs for one row, in the order of `decoder.OUTPUTS`.

    The best text token, its logit and the log-sum-exp of the allowed text; the same of the
    timestamps, -inf if none is allowed.
    """

    text: int
    text_score: float
    text_total: float
    time: int
    time_score: float
    time_total: float

    def greedy(self) -> Choice:
        """Return the most probable token; a timestamp if all together beat the best text token."""
        if self._is_text_alone:
            return Choice(self.text, self.text_score - self.text_total)
        if self._is_time_alone:
            return Choice(self.time, self.time_score - self.time_total)
        return Choice(self.text, self.text_score - self._total)

    def best(
        self,
        logits: NDArray[np.float32],
        text_mask: NDArray[np.float32],
        timestamps: range,
        n_best: int,
    ) -> tuple[Choice, ...]:
        """Return the most probable tokens, the greedy one first.

        Args:
            logits: ``[n_vocab]``.
            text_mask: ``[timestamp_begin]``, added to the logits below the first timestamp.
            timestamps: the allowed timestamps.
            n_best: how many; fewer are returned if fewer are allowed.
        """
        text = TokenRange(0, logits[: len(text_mask)] + text_mask)
        time = TokenRange(timestamps.start, logits[timestamps.start : timestamps.stop])
        if self._is_text_alone:
            return text.best(n_best, self.text_total)
        if self._is_time_alone:
            return time.best(n_best, self.time_total)
        both = text.best(n_best, self._total) + time.best(n_best, self._total)
        return tuple(sorted(both, key=lambda choice: -choice.logprob)[:n_best])

    @property
    def _is_text_alone(self) -> bool:
        return self.time_total == -math.inf

    @property
    def _is_time_alone(self) -> bool:
        return self.time_total > self.text_score

    @property
    def _total(self) -> float:
        return float(np.logaddexp(self.text_total, self.time_total))


@dataclass(frozen=True)
class TokenRange:
    """The logits of consecutive tokens starting at ``first``."""

    first: int
    logits: NDArray[np.float32]

    def best(self, n_best: int, total: float) -> tuple[Choice, ...]:
        """Return the most probable of them, given the log-sum-exp ``total``."""
        return tuple(
            Choice(self.first + int(i), float(self.logits[i]) - total)
            for i in highest(self.logits, n_best)
        )
