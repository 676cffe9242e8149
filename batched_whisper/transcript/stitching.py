"""Stitches overlapping windows, so that no word is lost or duplicated.

If speech has no pause, a window starts shortly before the previous one ends. Both transcribe the
overlap, and each has an error in the word that its border cuts. The windows are cut where their
texts agree (`transcript.matching`). The results are windows without overlap, with consistent times,
tokens, words and text.

The texts depend on the tokens of the windows alone, not on word timestamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from batched_whisper.tokens.languages import WITHOUT_SPACES
from batched_whisper.transcript.matching import match
from batched_whisper.transcript.segments import Decode, TimestampTokens
from batched_whisper.transcript.word_split import DecodeBytes, split_words
from batched_whisper.types import TIMESTAMP_STEP_S, DecodedWindow, Word


@dataclass(frozen=True)
class Stitched:
    """Two windows without overlap: the later one starts where the earlier one ends."""

    earlier: DecodedWindow
    later: DecodedWindow


@dataclass(frozen=True)
class _Unit:
    """A unit of comparison: a word, or a character in languages without spaces."""

    text: str
    word: int
    """Index of its word in the window."""
    token: int | None
    """Index of its word's first token in the window; None if the word began in an earlier unit."""


@dataclass(frozen=True)
class _Cut:
    """The unit before which each text is cut, and the share of the overlap before the cut."""

    earlier: int
    later: int
    share: float


class Stitcher:
    """Stitches the windows of one model; immutable.

    Args:
        timestamps: the timestamp tokens of the model.
        decode: converts tokens to text.
        decode_bytes: converts tokens to UTF-8 bytes.
    """

    def __init__(
        self, timestamps: TimestampTokens, decode: Decode, decode_bytes: DecodeBytes
    ) -> None:
        self._timestamps = timestamps
        self._decode = decode
        self._decode_bytes = decode_bytes

    def stitch(self, earlier: DecodedWindow, later: DecodedWindow) -> Stitched:
        """Remove the overlap of two consecutive windows; returns them unchanged if there is none.

        Both are cut in the middle of the best run of words that they have in common, and meet in
        time at that position of the overlap. Without a common word both keep all of their words: a
        duplicate word does less harm than a missing one.

        Windows are stitched in chronological order; the earlier one of a pair is then final.
        """
        overlap_s = earlier.end - later.start
        if overlap_s <= 0:
            return Stitched(earlier, later)
        ends, begins = self._units(earlier), self._units(later)
        total_s = earlier.end - earlier.start + later.end - later.start
        cut = _cut(ends, begins, (len(ends) + len(begins)) * overlap_s / total_s)
        n_steps = round(cut.share * overlap_s / TIMESTAMP_STEP_S)
        seam_s = min(later.start + n_steps * TIMESTAMP_STEP_S, earlier.end)
        return _with_words_in_order(
            self._up_to(ends[cut.earlier :], earlier, seam_s),
            self._from(begins[cut.later :], later, seam_s, n_steps),
        )

    def _units(self, window: DecodedWindow) -> list[_Unit]:
        units, n_words, n_tokens = list[_Unit](), 0, 0
        for is_time, run in groupby(window.tokens, self._timestamps.is_timestamp):
            tokens = tuple(run)
            if not is_time:
                for word in split_words(tokens, window.language, self._decode_bytes):
                    units += _units_of(word.text, n_words, word.begin + n_tokens, window.language)
                    n_words += 1
            n_tokens += len(tokens)
        return units

    def _up_to(
        self, dropped: Sequence[_Unit], window: DecodedWindow, seam_s: float
    ) -> DecodedWindow:
        """Return the window without its last units, up to the seam."""
        if not dropped:
            return replace(window, end=seam_s)
        kept = list(window.tokens[: dropped[0].token])
        is_timestamp = self._timestamps.is_timestamp
        if kept and is_timestamp(kept[-1]):
            kept.pop()  # it opened the dropped segment
        elif any(map(is_timestamp, kept)):
            kept.append(self._timestamps.token(seam_s - window.start))
        return self._cut(window, kept, slice(dropped[0].word), window.start, seam_s)

    def _from(
        self, kept: Sequence[_Unit], window: DecodedWindow, seam_s: float, n_steps: int
    ) -> DecodedWindow:
        """Return the window from the first of these units and from the seam on."""
        if not kept:
            return self._cut(window, (), slice(0), seam_s, window.end)
        first = kept[0].token or 0
        tokens = window.tokens[first:]
        before = window.tokens[:first]
        if any(map(self._timestamps.is_timestamp, before)):
            opened = before[-1] if self._timestamps.is_timestamp(before[-1]) else 0
            tokens = (max(opened, self._timestamps.begin), *tokens)
        moved = [self._timestamps.moved(token, -n_steps) for token in tokens]
        return self._cut(window, moved, slice(kept[0].word, None), seam_s, window.end)

    def _cut(
        self,
        window: DecodedWindow,
        tokens: Sequence[int],
        words: slice,
        start_s: float,
        end_s: float,
    ) -> DecodedWindow:
        text = self._decode([t for t in tokens if not self._timestamps.is_timestamp(t)])
        return replace(
            window,
            start=start_s,
            end=end_s,
            text=text,
            tokens=tuple(tokens),
            words=None if window.words is None else window.words[words],
        )


def _units_of(text: str, word: int, begin: int, language: str) -> list[_Unit]:
    if language not in WITHOUT_SPACES:
        return [_Unit(text, word, begin)]
    return [_Unit(letter, word, None if i else begin) for i, letter in enumerate(text)]


def _cut(ends: Sequence[_Unit], begins: Sequence[_Unit], expected: float) -> _Cut:
    """Choose where to switch from one text to the other.

    Args:
        ends: the units of the earlier text.
        begins: the units of the later text.
        expected: the estimated number of units in the overlap.
    """
    found = match([unit.text for unit in ends], [unit.text for unit in begins], expected)
    if found is None:
        # If one of the windows has no text, the overlap belongs to the other one.
        share = 0.5 if ends and begins else float(not begins)
        return _Cut(len(ends), 0, share)
    n_shared = len(ends) - found.earlier + found.later
    middle = found.length / 2
    for n in sorted(range(found.length + 1), key=lambda n: abs(n - middle)):
        cut = _Cut(found.earlier + n, found.later + n, (found.later + n) / n_shared)
        if _between_words(ends, cut.earlier) and _between_words(begins, cut.later):
            return cut
    # Equal characters in different tokens, in languages without spaces: better to duplicate one.
    n = next(n for n in range(len(ends)) if _between_words(ends, found.earlier + n))
    later = found.later + min(n, found.length)
    while not _between_words(begins, later):
        later -= 1
    return _Cut(found.earlier + n, later, later / n_shared)


def _between_words(units: Sequence[_Unit], at: int) -> bool:
    return at == len(units) or units[at].token is not None


def _with_words_in_order(earlier: DecodedWindow, later: DecodedWindow) -> Stitched:
    """Clamp the words of the earlier window to the start of the later one's first word."""
    if not (earlier.words and later.words):
        return Stitched(earlier, later)
    latest_s = later.words[0].start
    words = tuple(
        Word(min(word.start, latest_s), min(word.end, latest_s), word.word, word.probability)
        for word in earlier.words
    )
    return Stitched(replace(earlier, words=words), later)
