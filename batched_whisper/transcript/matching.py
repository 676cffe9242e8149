"""What the end of one text and the beginning of another have in common.

Two windows that overlap write down the same sound twice. Here it is found where their texts say
the same. Knows units of text, words or characters, and nothing of tokens, times or windows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

SHIFT_PENALTY = 0.5
"""By how much a match counts less for each unit that its place is off."""

MAX_OVERLAP_RATIO = 2.0
"""How many times the expected units of the overlap may lie in it."""
EXTRA_UNITS = 3
"""And so many more: a fast talker, or half words at the borders."""


@dataclass(frozen=True)
class Match:
    """Units that are the same: ``length`` of them, in each text from its first one on."""

    earlier: int
    later: int
    length: int


def match(earlier: Sequence[str], later: Sequence[str], expected: float) -> Match | None:
    """The longest run of units at the end of one text and at the beginning of the next.

    Units are compared by `normalised`; those that are nothing but punctuation are part of no
    match. A match at the place where the end of the earlier text would lie over the beginning of
    the later one as expected is preferred to a longer one further off: people repeat themselves.
    And a match counts for as many units as differ: of "no, no, no" any run is like any other.
    What lies outside the match was misheard at the borders of the two windows.

    Args:
        earlier: the units of the earlier text, all of them.
        later: those of the later text.
        expected: how many units the overlap is thought to hold.

    Returns:
        None where nothing within reach is the same.
    """
    reach = int(MAX_OVERLAP_RATIO * expected) + EXTRA_UNITS
    first = max(0, len(earlier) - reach)
    ends = [normalised(unit) for unit in earlier[first:]]
    begins = [normalised(unit) for unit in later[:reach]]
    best, best_worth = None, 0.0
    for found in _runs(ends, begins):
        n_shared = len(ends) - found.earlier + found.later
        if n_shared > reach or found.length < _n_unlike(ends, begins, found):
            continue
        different = set(begins[found.later : found.later + found.length])
        worth = len(different) - SHIFT_PENALTY * abs(n_shared - expected)
        if best is None or worth > best_worth:
            best, best_worth = found, worth
    return None if best is None else Match(best.earlier + first, best.later, best.length)


def _n_unlike(ends: Sequence[str], begins: Sequence[str], found: Match) -> float:
    """How many of the units outside a match the other text has nothing like.

    What was only misheard sounds alike, and so it looks alike.
    """
    before = ends[max(0, found.earlier - found.later - 1) : found.earlier]
    after_ends = ends[found.earlier + found.length :]
    after = begins[found.later + found.length :][: len(after_ends) + 1]
    n_before = _unlikeness(begins[: found.later], before) * found.later
    return n_before + _unlikeness(after_ends, after) * len(after_ends)


def _unlikeness(units: Sequence[str], others: Sequence[str]) -> float:
    """The share of the units' letters that the others do not have, in that order."""
    letters, other_letters = "".join(units), "".join(others)
    blocks = SequenceMatcher(None, letters, other_letters, autojunk=False).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / max(len(letters), 1)


def _runs(ends: Sequence[str], begins: Sequence[str]) -> Iterator[Match]:
    """All runs that cannot be made longer."""
    lengths = [0] * len(begins)  # of the run that ends before the unit of `ends` in hand
    for i, unit in enumerate(ends):
        grown = [0] * len(begins)
        for k, other in enumerate(begins):
            if unit and unit == other:
                grown[k] = 1 + (lengths[k - 1] if k else 0)
                goes_on = i + 1 < len(ends) and k + 1 < len(begins)
                if not (goes_on and ends[i + 1] and ends[i + 1] == begins[k + 1]):
                    yield Match(i + 1 - grown[k], k + 1 - grown[k], grown[k])
        lengths = grown


def normalised(unit: str) -> str:
    """Its letters, digits and their marks, without case: "Don't," is "dont"."""
    folded = unicodedata.normalize("NFKC", unit).casefold()
    return "".join(each for each in folded if unicodedata.category(each)[0] in "LNM")
