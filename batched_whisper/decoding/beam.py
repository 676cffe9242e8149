"""Beam search: several texts of a window followed at once, and the best of those that ended.

The rules are those of openai/whisper, ``decoding.py``: BeamSearchDecoder, and
MaximumLikelihoodRanker. Greedy decoding and sampling are the same with a single beam, whose one
candidate is the token that was chosen.

It is bookkeeping alone: it is told which tokens may follow each text and how probable they are,
and knows no logits, slots or rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batched_whisper.decoding.sampling import Choice


@dataclass(frozen=True)
class Beams:
    """How to search.

    Attributes:
        size: how many texts are followed at once.
        patience: the search is over when ``size`` times so many texts have ended (Kasai et al.
            2022, "A Call for Clarity in Beam Search").
        length_penalty: the power in the penalty of Google's translation system (Wu et al. 2016);
            None ranks by the mean log-probability.
    """

    size: int = 1
    patience: float = 1.0
    length_penalty: float | None = None

    @property
    def n_candidates(self) -> int:
        """How many tokens to ask for after each text: all the others may come of one of them."""
        return self.size + 1

    @property
    def n_wanted(self) -> int:
        """The search is over when so many texts have ended."""
        return max(1, round(self.size * self.patience))


SINGLE_BEAM = Beams()
"""Greedy decoding, and sampling."""


@dataclass(frozen=True)
class Hypothesis:
    """A text, without the end of text.

    ``sum_logprob`` is of its tokens, and of the end of text where it has ``ended``.
    """

    tokens: tuple[int, ...] = ()
    sum_logprob: float = 0.0
    ended: bool = False


@dataclass(frozen=True)
class _Candidate:
    """What may become of the live text number ``source``."""

    source: int
    choice: Choice
    sum_logprob: float


_THE_SAME = (0,)


class BeamSearch:
    """The search for one window's text; it begins with a single text of nothing.

    Args:
        beams: how to search.
        eot: the token that ends a text.
    """

    def __init__(self, beams: Beams, eot: int) -> None:
        self.beams = beams
        self.live: tuple[Hypothesis, ...] = (Hypothesis(),)
        """The texts that go on, the most probable first; all have ``length`` tokens."""
        self.length = 0
        self.is_over = False
        """Whether enough texts have ended, or none goes on."""
        self._eot = eot
        self._n_wanted = beams.n_wanted
        self._ended: list[Hypothesis] = []

    def advance(self, choices: Sequence[Sequence[Choice]]) -> tuple[int, ...]:
        """Go on by one token.

        Args:
            choices: of each live text what may follow it, the best first; `Beams.n_candidates`
                of them, or all.

        Returns:
            Which of the texts that were live each of those continues that are live now.
        """
        self.length += 1
        if len(choices) == len(choices[0]) == 1:
            return self._say(choices[0][0])
        going_on: list[_Candidate] = []
        for candidate in self._by_probability(choices):
            if candidate.choice.token != self._eot:
                going_on.append(candidate)
                if len(going_on) == self.beams.size:
                    break
            elif len(self._ended) < self._n_wanted:
                tokens = self.live[candidate.source].tokens
                self._ended.append(Hypothesis(tokens, candidate.sum_logprob, ended=True))
        self.live = tuple(
            Hypothesis((*self.live[each.source].tokens, each.choice.token), each.sum_logprob)
            for each in going_on
        )
        self.is_over = len(self._ended) >= self._n_wanted or not self.live
        return tuple(each.source for each in going_on)

    def result(self) -> Hypothesis:
        """The best text of those that ended, and of live ones where fewer than ``size`` did."""
        n_missing = max(0, self.beams.size - len(self._ended))
        return max((*self._ended, *self.live[:n_missing]), key=self._score)

    def _say(self, choice: Choice) -> tuple[int, ...]:
        """Go on where there is one way: the same, and quick for the many who are greedy."""
        [text] = self.live
        total = text.sum_logprob + choice.logprob
        if choice.token == self._eot:
            self.live, self.is_over = (), True
            self._ended.append(Hypothesis(text.tokens, total, ended=True))
            return ()
        # Unpacking would take four times as long.
        longer = text.tokens + (choice.token,)  # noqa: RUF005
        self.live = (Hypothesis(longer, total),)
        return _THE_SAME

    def _by_probability(self, choices: Sequence[Sequence[Choice]]) -> Iterator[_Candidate]:
        """All candidates, the most probable first; of equals those of the first text."""
        candidates = [
            _Candidate(source, choice, text.sum_logprob + choice.logprob)
            for source, (text, following) in enumerate(zip(self.live, choices, strict=True))
            for choice in following
        ]
        return iter(sorted(candidates, key=lambda each: -each.sum_logprob))

    def _score(self, text: Hypothesis) -> float:
        """What texts are ranked by; the end of text does not count for the length."""
        length = len(text.tokens)
        if self.beams.length_penalty is None:
            return text.sum_logprob / max(length, 1)
        return text.sum_logprob / math.pow((5 + length) / 6, self.beams.length_penalty)
