"""Chooses a token from logits: the reference definition of sampling, in NumPy.

Engines choose tokens on their device if possible; they are tested against these functions, and
call them for rows that the device does not support.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from batched_whisper.decoding.rules import Allowed, MaskMode, TokenMask


@dataclass(frozen=True)
class Choice:
    """A token and its natural log-probability among the allowed tokens."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Sampling:
    """Parameters of sampling: the most probable token at temperature 0, else random.

    ``seed``, 0 or more, makes the choices of a window independent of the other rows of the batch.
    """

    temperature: float = 0.0
    seed: int = 0

    @property
    def stream(self) -> int:
        """The seed, hashed to 32 bits."""
        return _stream(self.seed)


GREEDY = Sampling()


def mask_row(mask: TokenMask, n_tokens: int) -> NDArray[np.float32]:
    """Convert a mask to values to add to logits: 0 or -inf, ``[n_tokens]``."""
    listed = np.fromiter((t for t in mask.tokens if t < n_tokens), dtype=np.int64)
    all_but = mask.mode is MaskMode.ALL_BUT
    row = np.full(n_tokens, 0.0 if all_but else -np.inf, dtype=np.float32)
    row[listed] = -np.inf if all_but else 0.0
    return row


def apply(
    logits: NDArray[np.float32], allowed: Allowed, timestamp_begin: int
) -> NDArray[np.float32]:
    """Return the logits with tokens that are not allowed set to -inf, ``[n_vocab]``."""
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
    """Choose one token; ``position`` is the counter of the random number generator."""
    filtered = apply(logits, allowed, timestamp_begin)
    if sampling.temperature == 0:
        token = int(filtered.argmax())
    else:  # Gumbel-max trick: the argmax of logits plus Gumbel noise is a sample
        noise = gumbel(sampling, position, len(filtered))
        token = int((filtered / np.float32(sampling.temperature) + noise).argmax())
    return Choice(token, float(filtered[token] - log_sum_exp(filtered)))


def gumbel(sampling: Sampling, position: int, n_tokens: int) -> NDArray[np.float32]:
    """Return Gumbel noise for each token, ``[n_tokens]``.

    A counter-based generator: a hash of seed, position and token, so that every device computes the
    same numbers, each independently. 23 bits of the hash are a number between 0 and 1 that is
    exact in float32.
    """
    hashed = _hash32(np.array([sampling.stream ^ position], np.uint32))
    bits = _hash32(np.arange(n_tokens, dtype=np.uint32) ^ hashed) >> np.uint32(9)
    uniform = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)
    noise: NDArray[np.float32] = -np.log(-np.log(uniform))
    return noise


HASH_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
"""Multipliers of the 32-bit hash "lowbias32" (Chris Wellons, nullprogram.com/blog/2018/07/31)."""


def _hash32(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Apply the hash: every bit of the result depends on every bit of the input."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(HASH_MULTIPLIERS[0])
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(HASH_MULTIPLIERS[1])
    return bits ^ (bits >> np.uint32(16))


@lru_cache(1024)
def _stream(seed: int) -> int:
    stream = np.zeros(1, np.uint32)
    while True:
        stream = _hash32(stream ^ np.uint32(seed % 2**32)) + np.uint32(1)
        seed //= 2**32
        if not seed:
            return int(stream[0])


def best(
    logits: NDArray[np.float32], allowed: Allowed, timestamp_begin: int, n_best: int
) -> tuple[Choice, ...]:
    """Return the most probable tokens, the best first; fewer than `n_best` if fewer are allowed.

    The first is the greedy choice; all log-probabilities have the same normalisation.
    """
    filtered = apply(logits, allowed, timestamp_begin)
    total = log_sum_exp(filtered)
    tokens = highest(filtered, n_best)
    return tuple(Choice(int(token), float(filtered[token] - total)) for token in tokens)


def highest(values: NDArray[np.float32], n_highest: int) -> NDArray[np.int64]:
    """Return the indices of the highest values, the highest first; of equals the first index.

    Values of -inf are left out. Reads everything once: the maxima of blocks give a lower bound of
    the highest values, and few values are above it.
    """
    tops = np.maximum.reduceat(values, np.arange(0, len(values), _BLOCK))
    least = np.sort(tops)[-n_highest] if n_highest <= len(tops) else -np.inf
    high = np.flatnonzero((values >= least) & (values > -np.inf))
    return high[np.argsort(-values[high], kind="stable")[:n_highest]]


_BLOCK = 256


def log_sum_exp(logits: NDArray[np.float32]) -> float:
    """Return the natural logarithm of the sum of exponentials; -inf if all values are -inf."""
    highest = logits.max(initial=-np.inf)
    if not np.isfinite(highest):
        return float("-inf")
    return float(highest + np.log(np.exp(logits - highest, dtype=np.float64).sum()))


def probability(logits: NDArray[np.float32], token: int) -> float:
    """Return the softmax probability of one token."""
    return float(np.exp(logits[token] - log_sum_exp(logits)))
