"""Beam search: extends several hypotheses of a window at once, and ranks those that ended.

The rules are those of openai/whisper, ``decoding.py``: BeamSearchDecoder and
MaximumLikelihoodRanker. Greedy decoding and sampling are a search with a single beam, whose only
candidate is the chosen token.

Bookkeeping only: gets the candidate tokens of each hypothesis with their log-probabilities, and
knows no logits, slots or rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batched_whisper.decoding.sampling import Choice


@dataclass(frozen=True)
class Beams:
    """Parameters of beam search.

    Attributes:
        size: number of beams.
        patience: the search stops when ``patience * size`` hypotheses have ended (Kasai et al.
            2022, "A Call for Clarity in Beam Search").
        length_penalty: exponent of the length penalty of Google's translation system (Wu et al.
            2016); None ranks by mean log-probability.
    """

    size: int = 1
    patience: float = 1.0
    length_penalty: float | None = None

    @property
    def n_candidates(self) -> int:
        """Candidates per hypothesis: one may be the end of text, the others fill all beams."""
        return self.size + 1

    @property
    def n_finished(self) -> int:
        """Number of ended hypotheses at which the search stops."""
        return max(1, round(self.size * self.patience))


SINGLE_BEAM = Beams()
"""The parameters of greedy decoding and sampling."""


@dataclass(frozen=True)
class Hypothesis:
    """A text, without the end-of-text token.

    ``sum_logprob`` is the sum over its tokens, plus the end of text if it has ``ended``.
    """

    tokens: tuple[int, ...] = ()
    sum_logprob: float = 0.0
    ended: bool = False


@dataclass(frozen=True)
class _Candidate:
    """A continuation of the live hypothesis with index ``source``."""

    source: int
    choice: Choice
    sum_logprob: float


_ONLY_SOURCE = (0,)


class BeamSearch:
    """The search for the text of one window; starts with a single empty hypothesis.

    Args:
        beams: parameters of the search.
        eot: the end-of-text token.
    """

    def __init__(self, beams: Beams, eot: int) -> None:
        self.beams = beams
        self.live: tuple[Hypothesis, ...] = (Hypothesis(),)
        """The live hypotheses, the most probable first; all have ``length`` tokens."""
        self.length = 0
        self.is_over = False
        """Whether enough hypotheses have ended, or none is live."""
        self._eot = eot
        self._n_finished = beams.n_finished
        self._ended: list[Hypothesis] = []

    def advance(self, choices: Sequence[Sequence[Choice]]) -> tuple[int, ...]:
        """Extend the hypotheses by one token.

        Args:
            choices: the candidates of each live hypothesis, the best first; `Beams.n_candidates`
                of them, or all.

        Returns:
            For each hypothesis that is live now, the index of the one that it continues.
        """
        self.length += 1
        if len(choices) == len(choices[0]) == 1:
            return self._advance_single(choices[0][0])
        continued: list[_Candidate] = []
        for candidate in self._by_probability(choices):
            if candidate.choice.token != self._eot:
                continued.append(candidate)
                if len(continued) == self.beams.size:
                    break
            elif len(self._ended) < self._n_finished:
                tokens = self.live[candidate.source].tokens
                self._ended.append(Hypothesis(tokens, candidate.sum_logprob, ended=True))
        self.live = tuple(
            Hypothesis((*self.live[each.source].tokens, each.choice.token), each.sum_logprob)
            for each in continued
        )
        self.is_over = len(self._ended) >= self._n_finished or not self.live
        return tuple(each.source for each in continued)

    def result(self) -> Hypothesis:
        """Return the best ended hypothesis; live ones compete if fewer than ``size`` have ended."""
        n_missing = max(0, self.beams.size - len(self._ended))
        return max((*self._ended, *self.live[:n_missing]), key=self._score)

    def _advance_single(self, choice: Choice) -> tuple[int, ...]:
        """Extend a single hypothesis by its only candidate: a fast path for greedy decoding."""
        [text] = self.live
        total = text.sum_logprob + choice.logprob
        if choice.token == self._eot:
            self.live, self.is_over = (), True
            self._ended.append(Hypothesis(text.tokens, total, ended=True))
            return ()
        # Unpacking is four times as slow.
        longer = text.tokens + (choice.token,)  # noqa: RUF005
        self.live = (Hypothesis(longer, total),)
        return _ONLY_SOURCE

    def _by_probability(self, choices: Sequence[Sequence[Choice]]) -> Iterator[_Candidate]:
        """Sort all candidates, the most probable first; of equals those of the first hypothesis."""
        candidates = [
            _Candidate(source, choice, text.sum_logprob + choice.logprob)
            for source, (text, following) in enumerate(zip(self.live, choices, strict=True))
            for choice in following
        ]
        return iter(sorted(candidates, key=lambda each: -each.sum_logprob))

    def _score(self, text: Hypothesis) -> float:
        """Score a hypothesis; the end of text does not count for the length."""
        length = len(text.tokens)
        if self.beams.length_penalty is None:
            return text.sum_logprob / max(length, 1)
        return text.sum_logprob / math.pow((5 + length) / 6, self.beams.length_penalty)
