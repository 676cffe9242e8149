"""openai/whisper's three logit filters on dense logits, written from their definition.

SuppressBlank, SuppressTokens and ApplyTimestampRules of ``decoding.py``, in that order. The rules
of the package say the same as sets of tokens; here they are spelled out number by number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batched_whisper.decoding.rules import TokenIds

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class OpenAiFilters:
    ids: TokenIds
    never: frozenset[int]
    never_first: frozenset[int]
    timestamps: bool
    latest_first: int = 50
    """The index of the latest first timestamp: 1.0 s in steps of 0.02 s."""

    def __call__(self, logits: Logits, sampled: list[int]) -> Logits:
        left = logits.astype(np.float64)
        if not sampled:
            left[list(self.never_first)] = -np.inf
        left[list(self.never)] = -np.inf
        if self.timestamps:
            self._in_pairs(left, sampled)
            self._never_back(left, sampled)
            if not sampled:
                left[: self.ids.timestamp_begin] = -np.inf
                left[self.ids.timestamp_begin + self.latest_first + 1 :] = -np.inf
            self._together(left)
        else:
            left[self.ids.timestamp_begin :] = -np.inf
        return left.astype(np.float32)

    def _is_time(self, token: int) -> bool:
        return token >= self.ids.timestamp_begin

    def _in_pairs(self, left: NDArray[np.float64], sampled: list[int]) -> None:
        if not sampled or not self._is_time(sampled[-1]):
            return
        if len(sampled) < 2 or self._is_time(sampled[-2]):
            left[self.ids.timestamp_begin :] = -np.inf
        else:
            left[: self.ids.eot] = -np.inf

    def _never_back(self, left: NDArray[np.float64], sampled: list[int]) -> None:
        times = [token for token in sampled if self._is_time(token)]
        if not times:
            return
        before = sampled[-2] if len(sampled) > 1 else self.ids.timestamp_begin
        segment_ended = self._is_time(sampled[-1]) and not self._is_time(before)
        first = times[-1] if segment_ended else times[-1] + 1
        left[self.ids.timestamp_begin : first] = -np.inf

    def _together(self, left: NDArray[np.float64]) -> None:
        if np.isneginf(left).all():
            return
        with np.errstate(divide="ignore"):
            probability = np.exp(left - left.max())
            begin = self.ids.timestamp_begin
            if np.log(probability[begin:].sum()) > np.log(probability[:begin].max()):
                left[:begin] = -np.inf
