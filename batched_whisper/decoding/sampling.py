"""Choosing a token from logits: the plain NumPy definition that every engine agrees with.

Engines choose on their device where they can; this is what they are tested against, and what
they call for the rows that they cannot choose for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from batched_whisper.decoding.rules import Allowed, MaskMode, TokenMask


@dataclass(frozen=True)
class Choice:
    """A token and its natural log-probability among the tokens that were allowed."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Sampling:
    """How to choose: the most probable token at temperature 0, else at random.

    ``seed``, 0 or more, makes the window's choices its own: the same whatever else is in the batch.
    """

    temperature: float = 0.0
    seed: int = 0

    @property
    def stream(self) -> int:
        """32 bits that stand for the seed."""
        return _stream(self.seed)


GREEDY = Sampling()


def mask_row(mask: TokenMask, n_tokens: int) -> NDArray[np.float32]:
    """The mask as numbers to add to logits: 0 or -inf, ``[n_tokens]``."""
    listed = np.fromiter((t for t in mask.tokens if t < n_tokens), dtype=np.int64)
    all_but = mask.mode is MaskMode.ALL_BUT
    row = np.full(n_tokens, 0.0 if all_but else -np.inf, dtype=np.float32)
    row[listed] = -np.inf if all_but else 0.0
    return row


def apply(
    logits: NDArray[np.float32], allowed: Allowed, timestamp_begin: int
) -> NDArray[np.float32]:
    """The logits with everything that is not allowed at -inf, ``[n_vocab]``."""
    filtered = np.full_like(logits, -np.inf)
    filtered[:timestamp_begin] = logits[:timestamp_begin] + mask_row(allowed.mask, timestamp_begin)
    timed = slice(allowed.timestamps.start, allowed.timestamps.stop)
    filtered[timed] = logits[timed]
    if len(allowed.timestamps):
        best_text = filtered[:timestamp_begin].max()
        if log_sum_exp(filtered[timestamp_begin:]) > best_text:
            filtered[:timestamp_begin] = -np.inf
    return filtered


def choose(
    logits: NDArray[np.float32],
    allowed: Allowed,
    timestamp_begin: int,
    sampling: Sampling = GREEDY,
    position: int = 0,
) -> Choice:
    """Choose one token; ``position`` picks the place in the seed's random stream."""
    filtered = apply(logits, allowed, timestamp_begin)
    if sampling.temperature == 0:
        token = int(filtered.argmax())
    else:  # the argmax of logits plus Gumbel noise is a sample
        noise = gumbel(sampling, position, len(filtered))
        token = int((filtered / np.float32(sampling.temperature) + noise).argmax())
    return Choice(token, float(filtered[token] - log_sum_exp(filtered)))


def gumbel(sampling: Sampling, position: int, n_tokens: int) -> NDArray[np.float32]:
    """Gumbel noise for each token, ``[n_tokens]``.

    A hash of seed, place and token instead of a generator's stream, so that every device can make
    the same, each number by itself. 23 bits of it are a number between 0 and 1, exact in float32.
    """
    place = _mixed(np.array([sampling.stream ^ position], np.uint32))
    bits = _mixed(np.arange(n_tokens, dtype=np.uint32) ^ place) >> np.uint32(9)
    uniform = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)
    noise: NDArray[np.float32] = -np.log(-np.log(uniform))
    return noise


HASH_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
"""Of the hash of 32 bits: "lowbias32", by Christopher Wellons, nullprogram.com/blog/2018/07/31."""


def _mixed(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Every bit of the result hangs on every bit given."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(HASH_MULTIPLIERS[0])
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(HASH_MULTIPLIERS[1])
    return bits ^ (bits >> np.uint32(16))


@lru_cache(1024)
def _stream(seed: int) -> int:
    stream = np.zeros(1, np.uint32)
    while True:
        stream = _mixed(stream ^ np.uint32(seed % 2**32)) + np.uint32(1)
        seed //= 2**32
        if not seed:
            return int(stream[0])


def best(
    logits: NDArray[np.float32], allowed: Allowed, timestamp_begin: int, n_best: int
) -> tuple[Choice, ...]:
    """The most probable tokens, the best one first; fewer than asked for where fewer are allowed.

    The first is the greedy choice, and the others' log-probabilities are counted as its is.
    """
    filtered = apply(logits, allowed, timestamp_begin)
    total = log_sum_exp(filtered)
    tokens = highest(filtered, n_best)
    return tuple(Choice(int(token), float(filtered[token] - total)) for token in tokens)


def highest(values: NDArray[np.float32], n_highest: int) -> NDArray[np.int64]:
    """Where the highest values are, the highest first, and of equal ones the first.

    Those of -inf are left out. Looks at everything once: the stretches' maxima tell below what
    nothing is among the highest, and few values are above that.
    """
    tops = np.maximum.reduceat(values, np.arange(0, len(values), _STRETCH))
    least = np.sort(tops)[-n_highest] if n_highest <= len(tops) else -np.inf
    high = np.flatnonzero((values >= least) & (values > -np.inf))
    return high[np.argsort(-values[high], kind="stable")[:n_highest]]


_STRETCH = 256


def log_sum_exp(logits: NDArray[np.float32]) -> float:
    """Natural logarithm of the sum of exponentials, -inf for nothing but -inf."""
    highest = logits.max(initial=-np.inf)
    if not np.isfinite(highest):
        return float("-inf")
    return float(highest + np.log(np.exp(logits - highest, dtype=np.float64).sum()))


def probability(logits: NDArray[np.float32], token: int) -> float:
    """Softmax probability of one token among all."""
    return float(np.exp(logits[token] - log_sum_exp(logits)))
