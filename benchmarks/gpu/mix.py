"""Which windows a benchmark of the GPU engine decodes: how long each is, and how much it says.

Weights are random, so how many tokens a window has is told, not found: by the true transcripts of
a collection (`of_speech`), by a file of numbers (`of_file`), or drawn after two published mixes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batched_whisper.decoding.audio_context import BUCKET, POSITIONS_PER_S

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
        """Encoder positions, all of them or so many as the sound and a margin need."""
        if not fitted:
            return full
        needed = round((self.duration_s + MARGIN_S) * POSITIONS_PER_S)
        return min(-(-needed // BUCKET) * BUCKET, full)


def mlperf_like(n: int, seed: int = 0) -> list[WindowSize]:
    """Windows filled up to 30 s: a mean of 24.8 s and 70 tokens, as MLPerf Inference packs them."""
    random = np.random.default_rng(seed)
    return _windows(LONGEST_S * random.beta(4.3, 0.9, n), random)


def short(n: int, seed: int = 0) -> list[WindowSize]:
    """Single utterances: a mean of 7 s and 20 tokens."""
    random = np.random.default_rng(seed)
    return _windows(np.clip(random.gamma(3.0, 7 / 3, n), 1, LONGEST_S), random)


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
