"""Computes word and character error rates, by the method of the Whisper paper.

Normalises texts by Whisper's normalisers (package whisper-normalizer), aligns them with jiwer and
sums the errors. The units are words, or characters for languages written without spaces. Knows
nothing of audio, models or files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from batched_whisper.errors import MissingExtra
from batched_whisper.tokens.languages import WITHOUT_SPACES


class Unit(str, Enum):
    """The unit in which errors are counted."""

    WORD = "word"
    CHARACTER = "character"


@dataclass(frozen=True)
class ErrorCounts:
    """The edits that turn a hypothesis into its reference, which has ``n_units`` units."""

    n_units: int = 0
    n_substitutions: int = 0
    n_deletions: int = 0
    n_insertions: int = 0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.n_units + other.n_units,
            self.n_substitutions + other.n_substitutions,
            self.n_deletions + other.n_deletions,
            self.n_insertions + other.n_insertions,
        )

    @property
    def rate(self) -> float | None:
        """Errors per unit of the reference; may be above 1; None if there is no unit."""
        if not self.n_units:
            return None
        return (self.n_substitutions + self.n_deletions + self.n_insertions) / self.n_units


@dataclass(frozen=True)
class ScoredRecording:
    """The result of one recording.

    Languages are codes. ``language_detected`` is None if the language was given to the model,
    ``language_spoken`` if it is unknown.
    """

    name: str
    collection: str
    unit: Unit
    errors: ErrorCounts
    reference: str
    hypothesis: str
    duration_s: float
    language_spoken: str | None = None
    language_detected: str | None = None
    n_windows: int = 0
    n_decoded_again: int = 0
    """Windows with at least one fallback."""


@dataclass(frozen=True)
class Summary:
    """The sums over the recordings of one collection, or of all, with the same unit."""

    collection: str
    unit: Unit
    n_recordings: int
    errors: ErrorCounts
    duration_s: float
    n_languages_right: int
    n_languages_wrong: int
    n_windows: int = 0
    n_decoded_again: int = 0


def unit_of(language: str | None) -> Unit:
    """Return the unit of errors for a language code."""
    return Unit.CHARACTER if language in WITHOUT_SPACES else Unit.WORD


def normalise(text: str, language: str | None) -> str:
    """Normalise a text for comparison; units are separated by spaces.

    Uses Whisper's English normaliser for English (spelling, numbers, contractions) and its basic
    one for every other or unknown language, split into characters if they are the unit.
    """
    return " ".join(str(_normaliser(language)(text)).split())


@cache
def _normaliser(language: str | None) -> Any:
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise _missing(error) from error
    if language == "en":
        return EnglishTextNormalizer()
    return BasicTextNormalizer(split_letters=unit_of(language) is Unit.CHARACTER)


def count_errors(reference: str, hypothesis: str, language: str | None) -> ErrorCounts:
    """Count the minimum substitutions, deletions and insertions between two normalised texts.

    Raises:
        MissingExtra: jiwer or whisper-normalizer is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise _missing(error) from error
    counted = jiwer.process_words(normalise(reference, language), normalise(hypothesis, language))
    return ErrorCounts(
        n_units=counted.hits + counted.substitutions + counted.deletions,
        n_substitutions=counted.substitutions,
        n_deletions=counted.deletions,
        n_insertions=counted.insertions,
    )


def require() -> None:
    """Raise `MissingExtra` if a package is missing, before anything is transcribed."""
    count_errors("", "", "en")


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"counting errors needs the package {error.name}: "
        "install it with pip install 'batched-whisper[eval]'"
    )


def score(
    *,
    name: str,
    collection: str,
    reference: str,
    hypothesis: str,
    language: str | None,
    duration_s: float,
    language_spoken: str | None = None,
    language_detected: str | None = None,
    n_windows: int = 0,
    n_decoded_again: int = 0,
) -> ScoredRecording:
    """Count the errors of one recording. ``language`` is the code of both texts, or None."""
    return ScoredRecording(
        name=name,
        collection=collection,
        unit=unit_of(language),
        errors=count_errors(reference, hypothesis, language),
        reference=reference,
        hypothesis=hypothesis,
        duration_s=duration_s,
        language_spoken=language_spoken,
        language_detected=language_detected,
        n_windows=n_windows,
        n_decoded_again=n_decoded_again,
    )


def summarise(scored: Iterable[ScoredRecording]) -> list[Summary]:
    """Return one summary per collection and unit, in the order of first appearance."""
    groups: dict[str, list[ScoredRecording]] = {}
    for each in scored:
        groups.setdefault(each.collection, []).append(each)
    return [summary for name, group in groups.items() for summary in overall(group, name)]


def overall(scored: Iterable[ScoredRecording], name: str = "all") -> list[Summary]:
    """Return one summary per unit over all collections; words and characters are kept apart."""
    groups: dict[Unit, list[ScoredRecording]] = {}
    for each in scored:
        groups.setdefault(each.unit, []).append(each)
    return [_sum(name, unit, groups[unit]) for unit in Unit if unit in groups]


def _sum(collection: str, unit: Unit, group: list[ScoredRecording]) -> Summary:
    judged = [each for each in group if each.language_spoken and each.language_detected]
    n_right = sum(each.language_spoken == each.language_detected for each in judged)
    return Summary(
        collection=collection,
        unit=unit,
        n_recordings=len(group),
        errors=sum((each.errors for each in group), ErrorCounts()),
        duration_s=sum(each.duration_s for each in group),
        n_languages_right=n_right,
        n_languages_wrong=len(judged) - n_right,
        n_windows=sum(each.n_windows for each in group),
        n_decoded_again=sum(each.n_decoded_again for each in group),
    )
