"""Times of words on real speech, with the base model."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from batched_whisper.types import Transcript, Word
from batched_whisper.whisper import Whisper

TOLERANCE_S = 0.15
"""The times to compare with are a recogniser's own, good to a tenth of a second or two."""


@pytest.fixture(scope="module")
def whisper(base_model: object) -> Iterator[Whisper]:
    with Whisper("base", wait_ms=0) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(speech: Path) -> dict[str, dict[str, Any]]:
    rows = map(json.loads, (speech / "manifest.jsonl").read_text("utf-8").splitlines())
    return {row["language"]: row for row in rows if row["collection"] == "languages"}


def words_of(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words or ()]


def letters(words: list[str]) -> list[tuple[str, float | int | None]]:
    """Letters and digits alone, each with the number of the word that begins with it."""
    found: list[tuple[str, float | int | None]] = []
    for number, word in enumerate(words):
        plain = unicodedata.normalize("NFKC", word).lower()
        for i, letter in enumerate(letter for letter in plain if letter.isalnum()):
            found.append((letter, None if i else number))
    return found


def start_errors(row: dict[str, Any], words: list[Word]) -> list[float]:
    """Of the words that begin with the same letters, how much too late they are."""
    true = letters([word["word"] for word in row["words"]])
    ours = letters([word.word for word in words])
    matcher = SequenceMatcher(None, [x for x, _ in true], [x for x, _ in ours], autojunk=False)
    errors = []
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            i, j = true[block.a + k][1], ours[block.b + k][1]
            if isinstance(i, int) and isinstance(j, int):
                errors.append(words[j].start - row["words"][i]["start"])
    return errors


@pytest.mark.parametrize("language", ["en", "de", "es", "fr", "it", "ja", "ko", "pt"])
def test_words_begin_when_they_are_said(
    whisper: Whisper, clips: dict[str, dict[str, Any]], speech: Path, language: str
) -> None:
    row = clips[language]
    transcript = whisper.transcribe(speech / row["audio"], language=language, word_timestamps=True)
    errors = start_errors(row, words_of(transcript))
    assert len(errors) >= 0.4 * len(row["words"])
    assert median(map(abs, errors)) <= TOLERANCE_S


def test_words_have_the_same_times_whether_or_not_the_model_times_its_segments(
    whisper: Whisper, clips: dict[str, dict[str, Any]], speech: Path
) -> None:
    plain, timed = (
        words_of(
            whisper.transcribe(
                speech / clips["en"]["audio"],
                language="en",
                timestamps=timestamps,
                word_timestamps=True,
            )
        )
        for timestamps in (False, True)
    )
    assert [word.word for word in plain] == [word.word for word in timed]
    for one, other in zip(plain, timed, strict=True):
        assert one.start == pytest.approx(other.start, abs=0.03)


@pytest.mark.parametrize("timestamps", [False, True])
def test_the_text_is_the_same_with_and_without_times_of_words(
    whisper: Whisper, clips: dict[str, dict[str, Any]], speech: Path, timestamps: bool
) -> None:
    for language in ("en", "ja"):
        audio = speech / clips[language]["audio"]
        plain, timed = (
            whisper.transcribe(
                audio, language=language, timestamps=timestamps, word_timestamps=asked
            )
            for asked in (False, True)
        )
        assert timed.text == plain.text
        assert [each.text for each in timed.segments] == [each.text for each in plain.segments]
        assert all(segment.words is None for segment in plain.segments)


@pytest.mark.parametrize("timestamps", [False, True])
def test_words_spell_their_segments_in_order_within_the_recording(
    whisper: Whisper, speech: Path, timestamps: bool
) -> None:
    audio = next((speech / "jfk").iterdir())
    transcript = whisper.transcribe(audio, timestamps=timestamps, word_timestamps=True)
    for segment in transcript.segments:
        assert segment.words
        assert "".join(word.word for word in segment.words) == segment.text
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end
    words = words_of(transcript)
    assert words[0].start >= 0
    assert words[-1].end <= transcript.duration
    assert all(word.start <= word.end for word in words)
    assert all(before.end <= after.start for before, after in pairwise(words))


def test_a_recording_without_speech_has_no_words(whisper: Whisper, speech: Path) -> None:
    audio = next((speech / "silence").iterdir())
    transcript = whisper.transcribe(audio, word_timestamps=True)
    spelled = "".join(word.word for word in words_of(transcript)).strip()
    assert spelled == transcript.text
