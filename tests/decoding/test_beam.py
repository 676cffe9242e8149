"""Laws of beam search, on tables of chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_beams import Heard, Text, naive_beam_search

from batched_whisper.decoding.beam import SINGLE_BEAM, Beams, BeamSearch, Hypothesis
from batched_whisper.decoding.sampling import Choice

EOT = 0


@dataclass(frozen=True)
class Table:
    """A language made up: what follows a text depends on all of it, and may be forbidden.

    With ``grain`` log-probabilities are multiples of it, so that there are many ties.
    """

    seed: int
    n_tokens: int
    talks: float = 0.0
    grain: float | None = None

    def following(self, text: Text) -> Mapping[int, float]:
        random = Random(f"{self.seed} {text}")
        weights = [random.expovariate(1) ** 2 + 1e-9 for _ in range(self.n_tokens)]
        weights[EOT] *= 1 - self.talks
        allowed = [t for t in range(self.n_tokens) if random.random() < 0.9] or [EOT]
        total = sum(weights[token] for token in allowed)
        return {token: self._logprob(weights[token] / total) for token in allowed}

    def _logprob(self, probability: float) -> float:
        logprob = math.log(max(probability, 1e-12))
        return logprob if self.grain is None else self.grain * round(logprob / self.grain)

    def best(self, text: Text, n_best: int) -> list[Choice]:
        ranked = sorted(self.following(text).items(), key=lambda pair: (-pair[1], pair[0]))
        return [Choice(token, logprob) for token, logprob in ranked[:n_best]]


def search(table: Table, beams: Beams, max_tokens: int) -> Heard:
    found = BeamSearch(beams, EOT)
    while True:
        before = found.live
        sources = found.advance(
            [table.best(text.tokens, beams.n_candidates) for text in found.live]
        )
        assert len(found.live) == len(sources) <= beams.size
        for text, source in zip(found.live, sources, strict=True):
            assert text.tokens[:-1] == before[source].tokens
        if found.is_over or found.length >= max_tokens:
            result = found.result()
            return Heard(result.tokens, result.sum_logprob, result.ended)


tables = st.builds(Table, st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([0.0, 0.6]))
penalties = st.none() | st.sampled_from([0.0, 0.3, 1.0])
searches = st.builds(Beams, st.integers(1, 6), st.sampled_from([0.1, 0.5, 1, 1.5, 3]), penalties)


@settings(max_examples=300, deadline=None)
@given(table=tables, beams=searches, max_tokens=st.integers(1, 9))
def test_beam_search_equals_the_naive_search(table: Table, beams: Beams, max_tokens: int) -> None:
    found = search(table, beams, max_tokens)
    expected = naive_beam_search(
        table.following,
        EOT,
        size=beams.size,
        patience=beams.patience,
        length_penalty=beams.length_penalty,
        max_tokens=max_tokens,
    )
    assert (found.text, found.ended) == (expected.text, expected.ended)
    assert found.total == pytest.approx(expected.total)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), beams=searches, max_tokens=st.integers(1, 6))
def test_ties_are_broken_the_same_way_every_time(seed: int, beams: Beams, max_tokens: int) -> None:
    table = Table(seed, 5, grain=1.0)
    assert search(table, beams, max_tokens) == search(table, beams, max_tokens)


def every_text(table: Table, max_tokens: int) -> dict[Text, float]:
    """Return all texts that end within ``max_tokens`` steps."""
    ended: dict[Text, float] = {}
    for length in range(max_tokens):
        for text in itertools.product(range(1, table.n_tokens), repeat=length):
            total = 0.0
            for i, token in enumerate((*text, EOT)):
                total += table.following(text[:i]).get(token, -math.inf)
            ended[text] = total
    return ended


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), penalty=penalties)
def test_beam_search_with_enough_beams_is_exhaustive(seed: int, penalty: float | None) -> None:
    table, max_tokens = Table(seed, 4), 4
    found = search(table, Beams(200, 1.0, penalty), max_tokens)

    def score(text: Text, total: float) -> float:
        return total / (max(len(text), 1) if penalty is None else ((5 + len(text)) / 6) ** penalty)

    best = max(score(text, total) for text, total in every_text(table, max_tokens).items())
    # Texts that were cut off compete too while fewer than 200 have ended.
    assert score(found.text, found.total) >= best - 1e-9
    assert not found.ended or score(found.text, found.total) == pytest.approx(best)


@given(table=tables, max_tokens=st.integers(1, 9))
def test_beam_size_1_is_greedy(table: Table, max_tokens: int) -> None:
    text: Text = ()
    total = 0.0
    for _ in range(max_tokens):
        [first] = table.best(text, 1)
        total += first.logprob
        if first.token == EOT:
            break
        text = (*text, first.token)
    ended = len(text) < max_tokens
    found = search(table, SINGLE_BEAM, max_tokens)
    assert found == Heard(text, pytest.approx(total), ended)  # type: ignore[arg-type]
    assert search(table, Beams(1, 1.0, 0.7), max_tokens) == found


@given(table=tables, n_steps=st.integers(1, 9))
def test_a_single_candidate_is_always_chosen(table: Table, n_steps: int) -> None:
    """So a token that was sampled is a beam's too."""
    random, found, said = Random(n_steps), BeamSearch(SINGLE_BEAM, EOT), list[Choice]()
    while len(said) < n_steps and not found.is_over:
        said.append(random.choice(table.best(found.live[0].tokens, table.n_tokens)))
        found.advance([[said[-1]]])
    ended = said[-1].token == EOT
    tokens = tuple(choice.token for choice in said if choice.token != EOT)
    total = sum(choice.logprob for choice in said)
    assert found.result() == Hypothesis(tokens, pytest.approx(total), ended)  # type: ignore[arg-type]
    assert found.is_over is ended


def choices(**logprobs: float) -> list[Choice]:
    return [Choice({"end": EOT, "a": 1, "b": 2}[name], value) for name, value in logprobs.items()]


def test_patience_waits_for_a_better_text() -> None:
    def found(patience: float) -> Hypothesis:
        search = BeamSearch(Beams(2, patience), EOT)
        search.advance([choices(a=-0.1, b=-0.2)])
        search.advance([choices(end=-1.0, a=-1.05), choices(end=-1.0, b=-1.05)])
        assert search.is_over is (patience == 1)
        if not search.is_over:
            search.advance([choices(end=-0.1), choices(end=-0.1)])
        assert search.is_over
        return search.result()

    impatient, patient = found(1.0), found(2.0)
    assert impatient.tokens == (1,)
    assert patient.tokens == (1, 1)


@pytest.mark.parametrize(("penalty", "n_tokens"), [(None, 3), (1.0, 3), (0.0, 1)])
def test_length_penalty_zero_ranks_by_the_sum_and_none_by_the_mean(
    penalty: float | None, n_tokens: int
) -> None:
    search = BeamSearch(Beams(2, 1.0, penalty), EOT)
    search.advance([choices(a=-1.0, b=-5.0)])
    search.advance([choices(end=-0.2, a=-0.3), choices(b=-9.0)])  # mean -1.2 for one token
    search.advance([choices(a=-0.1), choices(b=-9.0)])
    search.advance([choices(end=-0.1), choices(b=-9.0)])
    assert search.is_over
    assert len(search.result().tokens) == n_tokens


def test_an_empty_text_can_be_ranked() -> None:
    search = BeamSearch(Beams(2), EOT)
    search.advance([choices(end=-0.1, a=-9.0, b=-9.5)])
    search.advance([choices(end=-9.0, a=-9.1), choices(end=-9.2)])
    assert search.is_over
    assert search.result() == Hypothesis((), -0.1, ended=True)


def test_a_hypothesis_without_candidates_is_dropped_alone() -> None:
    search = BeamSearch(Beams(2), EOT)
    search.advance([choices(a=-0.1, b=-2.0)])
    assert search.advance([[], choices(a=-0.5)]) == (1,)
    assert [text.tokens for text in search.live] == [(2, 1)]
