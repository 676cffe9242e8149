"""The windows that a benchmark of the GPU engine decodes: their lengths and numbers of tokens.

Weights are random, so the number of tokens per window is given, not decoded: by the true
transcripts of real speech (`speech_windows`), by a file (`of_file`), or drawn after published
mixes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from batched_whisper.decoding.audio_context import BUCKET
from batched_whisper.types import POSITIONS_PER_SECOND, Features

SHORT, PACKED, FULL_LENGTH = "short", "mlperf-like", "full 30 s"
"""The mixes, by the names that results have."""
LONGEST_S = 30.0
TOKENS_PER_S = 70 / 24.8
"""English as read: MLPerf's windows have a mean of 70 tokens in 24.8 s."""
LETTERS_PER_TOKEN = 4.3
MARGIN_S = 0.5


@dataclass(frozen=True)
class WindowSize:
    """One window: its sound, and the tokens of its text."""

    duration_s: float
    n_tokens: int

    def context(self, full: int, *, fitted: bool) -> int:
        """Encoder positions: all, or enough for the audio and a margin."""
        if not fitted:
            return full
        needed = round((self.duration_s + MARGIN_S) * POSITIONS_PER_SECOND)
        return min(-(-needed // BUCKET) * BUCKET, full)

    def features(self, context: int) -> Features | None:
        """Features, ``[n_mels, 2 * context]``; None: noise instead."""
        return None


class Workload(Protocol):
    """Where windows are from."""

    what: str

    def windows(self, mix: str, n: int, seed: int = 0) -> list[WindowSize]:
        """Windows of one of the mixes."""


class DrawnWorkload:
    """Sizes drawn after published mixes, where no speech is at hand."""

    def __init__(self, why: str) -> None:
        self.what = f"drawn, noise ({why})"

    def windows(self, mix: str, n: int, seed: int = 0) -> list[WindowSize]:
        """Windows of one of the mixes."""
        return {SHORT: short, PACKED: mlperf_like, FULL_LENGTH: full_length}[mix](n, seed)


def mlperf_like(n: int, seed: int = 0) -> list[WindowSize]:
    """Windows filled up to 30 s: a mean of 24.8 s and 70 tokens, as MLPerf Inference packs them."""
    random = np.random.default_rng(seed)
    return _windows(LONGEST_S * random.beta(4.3, 0.9, n), random)


def short(n: int, seed: int = 0) -> list[WindowSize]:
    """Single utterances: a mean of 7 s and 20 tokens."""
    random = np.random.default_rng(seed)
    return _windows(np.clip(random.gamma(3.0, 7 / 3, n), 1, LONGEST_S), random)


def full_length(n: int, seed: int = 0) -> list[WindowSize]:
    """Windows of nearly 30 s."""
    random = np.random.default_rng(seed)
    return _windows(random.uniform(27.5, LONGEST_S, n), random)


def describe(windows: Sequence[WindowSize]) -> dict[str, Any]:
    """What a result says of a mix."""
    durations_s = [window.duration_s for window in windows]
    n_tokens = [window.n_tokens for window in windows]
    return {
        "mean_s": float(np.mean(durations_s)),
        "shortest_s": min(durations_s),
        "longest_s": max(durations_s),
        "mean_tokens": float(np.mean(n_tokens)),
        "most_tokens": max(n_tokens),
    }


def with_mean_tokens(windows: Sequence[WindowSize], mean: float) -> list[WindowSize]:
    """The same windows, each saying more or less by the same factor, so that the mean is this."""
    factor = mean * len(windows) / sum(window.n_tokens for window in windows)
    changed = {
        id(window): replace(window, n_tokens=max(2, round(factor * window.n_tokens)))
        for window in windows
    }
    return [changed[id(window)] for window in windows]


def of_file(path: Path) -> list[WindowSize]:
    """From lines of JSON with ``duration_s`` and ``n_tokens``, or ``text``."""
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return [
        WindowSize(
            min(line["duration_s"], LONGEST_S),
            line.get("n_tokens") or max(1, round(len(line["text"]) / LETTERS_PER_TOKEN)),
        )
        for line in lines
        if "n_tokens" in line or line.get("text")
    ]


def _windows(durations_s: np.ndarray, random: np.random.Generator) -> list[WindowSize]:
    spoken = durations_s * TOKENS_PER_S * random.normal(1, 0.15, len(durations_s)).clip(0.5, 1.5)
    return [
        WindowSize(float(duration_s), max(2, round(n_tokens)))
        for duration_s, n_tokens in zip(durations_s, spoken.tolist(), strict=True)
    ]
