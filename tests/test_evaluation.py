"""Error rates are those that one counts by hand."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("jiwer", reason="the extra eval is not installed")
pytest.importorskip("whisper_normalizer", reason="the extra eval is not installed")

from batched_whisper import evaluation
from batched_whisper.errors import MissingExtra
from batched_whisper.evaluation import ErrorCounts, ScoredRecording, Unit, count_errors


def scored(
    collection: str, language: str, errors: ErrorCounts, **fields: object
) -> ScoredRecording:
    known = {"name": "a", "reference": "", "hypothesis": "", "duration_s": 2.0, **fields}
    return ScoredRecording(
        collection=collection,
        unit=evaluation.unit_of(language),
        errors=errors,
        **known,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", ErrorCounts(3, 0, 0, 0)),
        ("the cat sat", "the bat sat", ErrorCounts(3, 1, 0, 0)),
        ("the cat sat", "cat sat", ErrorCounts(3, 0, 1, 0)),
        ("the cat sat", "the cat has sat", ErrorCounts(3, 0, 0, 1)),
        ("the cat sat down", "a cat", ErrorCounts(4, 1, 2, 0)),
        ("", "you", ErrorCounts(0, 0, 0, 1)),
        ("you", "", ErrorCounts(1, 0, 1, 0)),
        ("", "", ErrorCounts()),
    ],
)
def test_count_errors_equals_counting_by_hand(
    reference: str, hypothesis: str, expected: ErrorCounts
) -> None:
    assert count_errors(reference, hypothesis, "en") == expected
    assert count_errors(reference, hypothesis, "de") == expected


def test_normalise_ignores_style_in_english() -> None:
    assert count_errors("Mr. Brown, colour: twenty-one.", "mister brown COLOR 21", "en").rate == 0
    assert count_errors("I WON'T GO", "I will not go!", "en").rate == 0


def test_normalise_ignores_case_and_punctuation_but_not_accents_in_other_languages() -> None:
    assert count_errors("Grüße, Herr!", "grüße herr", "de").rate == 0
    assert count_errors("Grüße, Herr!", "gruße herr", "de").rate == 0.5


def test_languages_without_spaces_are_counted_in_characters() -> None:
    assert count_errors("今日は晴れ。", "今日 は 雨れ", "ja") == ErrorCounts(5, 1, 0, 0)
    assert evaluation.unit_of("ja") is Unit.CHARACTER
    assert evaluation.unit_of("ko") is Unit.WORD
    assert evaluation.unit_of(None) is Unit.WORD


def test_summary_rate_is_over_all_units() -> None:
    total = ErrorCounts(1, 1, 0, 0) + ErrorCounts(9, 0, 0, 1)
    assert total == ErrorCounts(10, 1, 0, 1)
    assert total.rate == 0.2
    assert ErrorCounts(0, 0, 0, 5).rate is None


def test_each_collection_is_summed_for_itself_and_in_its_own_units() -> None:
    summaries = evaluation.summarise(
        [
            scored("b", "en", ErrorCounts(10, 1, 0, 0)),
            scored("a", "en", ErrorCounts(5, 0, 1, 0)),
            scored("b", "ja", ErrorCounts(7, 0, 0, 0)),
            scored("b", "en", ErrorCounts(10, 0, 0, 2)),
        ]
    )
    assert [(s.collection, s.unit, s.n_recordings, s.errors) for s in summaries] == [
        ("b", Unit.WORD, 2, ErrorCounts(20, 1, 0, 2)),
        ("b", Unit.CHARACTER, 1, ErrorCounts(7, 0, 0, 0)),
        ("a", Unit.WORD, 1, ErrorCounts(5, 0, 1, 0)),
    ]
    assert [s.duration_s for s in summaries] == [4.0, 2.0, 2.0]


def test_words_and_characters_are_never_added_up() -> None:
    everything = [
        scored("a", "ja", ErrorCounts(7, 1, 0, 0)),
        scored("b", "en", ErrorCounts(10, 1, 0, 0)),
        scored("c", "de", ErrorCounts(10, 0, 0, 0)),
    ]
    assert [(s.collection, s.unit, s.errors.n_units) for s in evaluation.overall(everything)] == [
        ("all", Unit.WORD, 20),
        ("all", Unit.CHARACTER, 7),
    ]


def test_language_detection_is_scored_only_if_the_language_is_known_and_was_not_given() -> None:
    (summary,) = evaluation.summarise(
        [
            scored("a", "en", ErrorCounts(), language_spoken="en", language_detected="en"),
            scored("a", "en", ErrorCounts(), language_spoken="en", language_detected="de"),
            scored("a", "en", ErrorCounts(), language_spoken="en"),
            scored("a", "en", ErrorCounts(), language_detected="en"),
        ]
    )
    assert (summary.n_languages_right, summary.n_languages_wrong) == (1, 1)


def test_a_missing_package_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingExtra, match=r"pip install 'batched-whisper\[eval\]'"):
        count_errors("a", "a", "en")
