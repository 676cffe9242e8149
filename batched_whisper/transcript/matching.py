"""Finds the text that the end of one window and the beginning of the next have in common.

Two overlapping windows transcribe the same audio twice. Works on units of text, which are words or
characters. Knows nothing of tokens, times or windows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

SHIFT_PENALTY = 0.5
"""Penalty of a match per unit of shift from the expected overlap."""

MAX_OVERLAP_RATIO = 2.0
"""Maximum units in the overlap, relative to the expected number."""
EXTRA_UNITS = 3
"""Units allowed in addition, for fast speech and partial words at the borders."""


@dataclass(frozen=True)
class Match:
    """A run of ``length`` equal units, with its start in the earlier and in the later text."""

    earlier: int
    later: int
    length: int


def match(earlier: Sequence[str], later: Sequence[str], expected: float) -> Match | None:
    """Find the best run of equal units at the end of one text and the beginning of the next.

    Units are compared by `normalised`; punctuation is never part of a match. A match near the
    expected overlap is preferred to a longer one that is shifted, because speakers repeat
    themselves. The score counts distinct units: in "no, no, no" every run is equivalent. Text
    outside the match is taken for errors at the borders of the two windows.

    Args:
        earlier: all units of the earlier text.
        later: all units of the later text.
        expected: the estimated number of units in the overlap.

    Returns:
        The match, or None if there is none within reach.
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
    """Count the units outside a match that have no similar text in the other window.

    A recognition error at a border sounds similar, and so it is spelled similarly.
    """
    before = ends[max(0, found.earlier - found.later - 1) : found.earlier]
    after_ends = ends[found.earlier + found.length :]
    after = begins[found.later + found.length :][: len(after_ends) + 1]
    n_before = _unlikeness(begins[: found.later], before) * found.later
    return n_before + _unlikeness(after_ends, after) * len(after_ends)


def _unlikeness(units: Sequence[str], others: Sequence[str]) -> float:
    """Return the share of the letters of ``units`` that ``others`` lack, compared in order."""
    letters, other_letters = "".join(units), "".join(others)
    blocks = SequenceMatcher(None, letters, other_letters, autojunk=False).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / max(len(letters), 1)


def _runs(ends: Sequence[str], begins: Sequence[str]) -> Iterator[Match]:
    """Yield all maximal runs of equal units."""
    lengths = [0] * len(begins)  # of the runs that end before the current unit of `ends`
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
    """Return letters, digits and their marks in lower case: "Don't," becomes "dont"."""
    folded = unicodedata.normalize("NFKC", unit).casefold()
    return "".join(each for each in folded if unicodedata.category(each)[0] in "LNM")
