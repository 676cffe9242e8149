"""A Whisper of a few hundred kilobytes, on which every engine is compared with plain NumPy.

Its weights are noise, so large that results depend on the audio, on its length and on every token
before: an off-by-one error in a cache changes them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from numpy_whisper import Audio, NumpyWhisper

from batched_whisper.decoding.rules import EVERYTHING, Allowed, TokenIds
from batched_whisper.decoding.sampling import apply, log_sum_exp, probability
from batched_whisper.engines.interface import EncodeRow, StepResult, StepRow
from batched_whisper.models.checkpoint import Checkpoint, Dimensions, random_checkpoint

N_AUDIO_CTX = 120
N_TEXT_CTX = 448
N_MELS = 8

SIZES = Dimensions(
    n_mels=N_MELS,
    n_audio_ctx=N_AUDIO_CTX,
    n_audio_state=128,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=221,
    n_text_ctx=N_TEXT_CTX,
    n_text_state=128,
    n_text_head=2,
    n_text_layer=2,
)
IDS = TokenIds(eot=150, timestamp_begin=160, n_vocab=SIZES.n_vocab, no_speech=155)
BEGIN = IDS.timestamp_begin

ANYTHING = Allowed(EVERYTHING, range(BEGIN, IDS.n_vocab))
ANY_TEXT = Allowed(EVERYTHING)

_LOUDER = {
    "decoder.positional_embedding": 30,
    "decoder.token_embedding.weight": 30,
    "cross_attn.query.weight": 6,
    "cross_attn.out.weight": 6,
}


@cache
def tiny_checkpoint(seed: int = 1) -> Checkpoint:
    noise = random_checkpoint(SIZES, seed)
    weights = {
        name: value * np.float32(next((by for end, by in _LOUDER.items() if name.endswith(end)), 1))
        for name, value in noise.weights.items()
    }
    identity = hashlib.sha256(f"loud {noise.sha256}".encode()).hexdigest()
    return replace(noise, weights=MappingProxyType(weights), sha256=identity)


@dataclass(frozen=True)
class Heard:
    """The audio of a slot: one of many noises, and its length."""

    noise: int
    audio_context: int

    @property
    def features(self) -> NDArray[np.float32]:
        random = np.random.default_rng(self.noise)
        whole = random.standard_normal((N_MELS, 2 * N_AUDIO_CTX), dtype=np.float32)
        return np.ascontiguousarray(whole[:, : 2 * self.audio_context])

    def row(self, slot: int) -> EncodeRow:
        return EncodeRow(slot, self.features, self.audio_context)


@cache
def _reference() -> NumpyWhisper:
    return NumpyWhisper(tiny_checkpoint())


@cache
def _encoded(heard: Heard) -> Audio:
    return _reference().encode(heard.features)


@cache
def reference_logits(heard: Heard, text: tuple[int, ...]) -> NDArray[np.float32]:
    """Return logits after each token of the text, ``[n_tokens, n_vocab]``."""
    return _reference().logits(list(text), _encoded(heard))


def random_text(seed: int, length: int) -> tuple[int, ...]:
    tokens = np.random.default_rng(seed).integers(0, IDS.n_vocab, length)
    return tuple(int(token) for token in tokens)


def check(
    result: StepResult | None, row: StepRow, logits: NDArray[np.float32], tolerance: float
) -> None:
    """Check a result against plain NumPy; if two tokens are equally good, either passes."""
    if row.probe is not None:
        assert result is not None
        assert result.probed is not None
        expected = probability(logits, row.probe)
        assert abs(result.probed - expected) < tolerance * max(expected, 0.05)
    if row.allowed is None:
        return
    assert result is not None
    assert any(
        _is_choice(result, row, filtered, tolerance) and _are_best(result, row, filtered, tolerance)
        for filtered in _filtered(logits, row.allowed, tolerance)
    ), f"{result} is not what {row} gets"


def _filtered(
    logits: NDArray[np.float32], allowed: Allowed, tolerance: float
) -> list[NDArray[np.float32]]:
    """Return the filtered logits; both ways if text and timestamps are equally probable."""
    left = apply(logits, allowed, BEGIN)
    if not len(allowed.timestamps):
        return [left]
    text = apply(logits, replace(allowed, timestamps=range(0)), BEGIN)
    timed = np.full_like(logits, -np.inf)
    span = slice(allowed.timestamps.start, allowed.timestamps.stop)
    timed[span] = logits[span]
    if abs(log_sum_exp(timed) - text.max()) > tolerance:
        return [left]
    return [timed, np.maximum(text, timed)]


def _are_best(
    result: StepResult, row: StepRow, filtered: NDArray[np.float32], tolerance: float
) -> bool:
    """Check that each token is as good as the best at its rank; the first is the greedy choice."""
    found, ranked = result.best, np.sort(filtered)[::-1] - log_sum_exp(filtered)
    n_expected = min(row.n_best, int((ranked > -np.inf).sum()))
    if len({choice.token for choice in found}) != n_expected or len(found) != n_expected:
        return False
    if found and not row.sampling.temperature and found[0].token != result.token:
        return False
    return all(
        abs(choice.logprob - (filtered[choice.token] - log_sum_exp(filtered))) < tolerance
        and abs(choice.logprob - expected) < 2 * tolerance
        for choice, expected in zip(found, ranked[:n_expected].tolist(), strict=True)
    )


def _is_choice(
    result: StepResult, row: StepRow, filtered: NDArray[np.float32], tolerance: float
) -> bool:
    logprob = filtered[result.token] - log_sum_exp(filtered)
    if not abs(result.logprob - logprob) < tolerance:
        return False
    temperature, scores = row.sampling.temperature, filtered.astype(np.float64)
    if temperature:
        noise = plain_gumbel(row.sampling.seed, row.position + len(row.tokens), len(scores))
        scores, tolerance = scores / temperature + noise, tolerance / temperature + 1e-5
    return bool(scores[result.token] > scores.max() - tolerance)


def plain_gumbel(seed: int, position: int, n_tokens: int) -> list[float]:
    """Return the noise of `sampling.gumbel`, computed number by number."""

    def mixed(bits: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = (bits ^ bits >> shift) * factor % 2**32
        return bits ^ bits >> 16

    place = mixed((mixed(seed) + 1) ^ position)
    bits = [mixed(token ^ place) >> 9 for token in range(n_tokens)]
    return [-math.log(-math.log((each + 0.5) / 2**23)) for each in bits]
