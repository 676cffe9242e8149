"""Beam search written down as slowly and plainly as it can be, to hold the real one against.

It goes through every token of the vocabulary after every text, keeps all it ever saw, and asks for
log-probabilities by the whole text, so it has no candidates, no sources and no caches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Text = tuple[int, ...]
Following = Callable[[Text], Mapping[int, float]]
"""Of every token that may follow a text, its natural log-probability."""


@dataclass(frozen=True)
class Heard:
    """A text without its end, the sum of its log-probabilities, and whether it came to its end."""

    text: Text
    total: float
    ended: bool


def naive_beam_search(
    following: Following,
    eot: int,
    *,
    size: int,
    patience: float = 1.0,
    length_penalty: float | None = None,
    max_tokens: int,
) -> Heard:
    """What openai/whisper's BeamSearchDecoder and MaximumLikelihoodRanker come to."""
    wanted = max(1, round(size * patience))
    live: dict[Text, float] = {(): 0.0}
    ended: dict[Text, float] = {}
    for _ in range(max_tokens):
        longer = {
            (*text, token): total + logprob
            for text, total in live.items()
            for token, logprob in following(text).items()
        }
        ranking = sorted(longer.items(), key=lambda pair: pair[1], reverse=True)
        live = {}
        for text, total in ranking:
            if len(live) == size:
                break
            if text[-1] != eot:
                live[text] = total
            elif len(ended) < wanted:
                ended[text[:-1]] = total
        if len(ended) >= wanted or not live:
            break
    results = [Heard(text, total, True) for text, total in ended.items()]
    for text, total in live.items():
        if len(results) < size:
            results.append(Heard(text, total, False))
    return max(results, key=lambda each: each.total / _penalty(len(each.text), length_penalty))


def _penalty(length: int, power: float | None) -> float:
    if power is None:
        return max(length, 1)
    penalty: float = ((5 + length) / 6) ** power
    return penalty
