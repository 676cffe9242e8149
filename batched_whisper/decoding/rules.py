"""What may be said next: Whisper's logit filters as plain data.

An engine never hears of languages, tasks or timestamps as such. For each row of a step it is told
which tokens are allowed (`Allowed`), so the same rules hold on every device. The rules themselves
are those of openai/whisper, ``decoding.py``: SuppressBlank, SuppressTokens, ApplyTimestampRules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum

from batched_whisper.types import TIMESTAMP_STEP_S

MAX_UNTRANSCRIBED_S = 0.5
"""So much sound at the end of a window may be left without text: less than most words."""


class MaskMode(Enum):
    """How a `TokenMask` reads its set of tokens."""

    ALL_BUT = "every token but these"
    ONLY = "these tokens and no other"


@dataclass(frozen=True)
class TokenMask:
    """Which tokens below the first timestamp are allowed.

    Few different masks exist while a model runs, so an engine keeps each as a row of a table.
    """

    mode: MaskMode
    tokens: frozenset[int]

    def __hash__(self) -> int:
        """The set's own, which it keeps: masks are looked up for every row of every step."""
        return hash(self.tokens)


NOTHING = TokenMask(MaskMode.ONLY, frozenset())
EVERYTHING = TokenMask(MaskMode.ALL_BUT, frozenset())


@dataclass(frozen=True)
class Allowed:
    """What one row may say next.

    ``mask`` rules the tokens below the first timestamp, ``timestamps`` names the timestamp tokens
    allowed. Where both are, a timestamp is chosen if all timestamps together are more probable
    than the best single text token (ApplyTimestampRules).
    """

    mask: TokenMask
    timestamps: range = range(0)


@dataclass(frozen=True)
class TokenIds:
    """The special tokens that the rules speak of."""

    eot: int
    timestamp_begin: int
    n_vocab: int
    no_speech: int | None = None


@dataclass(frozen=True)
class ConstraintState:
    """What `Rules` make of whatever is said next, as plain data.

    With it a device says several tokens without asking in between.
    """

    text_mask: TokenMask
    """Rules the tokens below the timestamps within text, and where a segment has begun."""
    unfinished_mask: TokenMask
    """The same where a segment has begun at one of the timestamps `unfinished_range`."""
    segment_end_mask: TokenMask
    """The same where a segment has ended."""
    unfinished_range: range
    opens_segment: bool
    """Whether a timestamp would begin a segment: nothing was said yet, or just another one."""
    last_timestamp: int
    """The last timestamp that was said, before the first the token below all timestamps. Where
    there are none, the last of the vocabulary: nothing may come after it."""

    def after(self, token: int, ids: TokenIds) -> tuple[Allowed, ConstraintState]:
        """What may be said after this token, and how it goes on from there."""
        if token < ids.timestamp_begin:  # no segment of zero length
            allowed = Allowed(self.text_mask, range(self.last_timestamp + 1, ids.n_vocab))
            return allowed, replace(self, opens_segment=False)
        latest = max(self.last_timestamp, token)
        on = replace(self, opens_segment=True, last_timestamp=latest)
        if (
            not self.opens_segment
        ):  # a segment ended: the next starts here or later, or the text ends
            return Allowed(self.segment_end_mask, range(latest, ids.n_vocab)), on
        is_first = self.last_timestamp < ids.timestamp_begin
        is_unfinished = token in self.unfinished_range and not is_first
        return Allowed(self.unfinished_mask if is_unfinished else self.text_mask), on


class Rules:
    """The rules of one window's transcript; immutable, shared by windows with equal options.

    Args:
        ids: the model's special tokens.
        suppress: tokens that are never sampled.
        suppress_begin: tokens that are not sampled first (a blank, the end).
        timestamps: whether the model times its segments.
        max_initial_timestamp_s: the latest first timestamp.
    """

    def __init__(
        self,
        ids: TokenIds,
        *,
        suppress: frozenset[int],
        suppress_begin: frozenset[int],
        timestamps: bool,
        max_initial_timestamp_s: float = 1.0,
    ) -> None:
        self.ids = ids
        self.timestamps = timestamps
        begin = ids.timestamp_begin
        below = frozenset(token for token in suppress if token < begin)
        first = below | frozenset(token for token in suppress_begin if token < begin)
        self._text = TokenMask(MaskMode.ALL_BUT, below)
        self._text_first = TokenMask(MaskMode.ALL_BUT, first)
        self._text_goes_on = TokenMask(MaskMode.ALL_BUT, below | {ids.eot})
        self._no_text = TokenMask(MaskMode.ALL_BUT, below | frozenset(range(ids.eot)))
        latest = begin + round(max_initial_timestamp_s / TIMESTAMP_STEP_S)
        self._first_timestamps = range(begin, min(latest + 1, ids.n_vocab))
        self._unfinished = range(0)
        text = self._text
        self._untimed = ConstraintState(
            text, text, text, range(0), opens_segment=False, last_timestamp=ids.n_vocab - 1
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.ids, self.timestamps))

    def with_sound_until(self, end_s: float) -> Rules:
        """The rules of a window in which there is sound up to `end_s`.

        Whisper leaves off where the last sentence of a window is cut, and says from when on it did
        not write: a segment that begins and has no text. openai/whisper goes back there with its
        next window (``transcribe.py``). Here no window begins anew, so the text has to go on where
        more than `MAX_UNTRANSCRIBED_S` of the sound is left.
        """
        last = self.ids.timestamp_begin + math.floor(
            (end_s - MAX_UNTRANSCRIBED_S) / TIMESTAMP_STEP_S
        )
        rules = copy(self)
        rules._unfinished = range(self.ids.timestamp_begin, last)
        return rules

    def next(self, sampled: Sequence[int]) -> Allowed:
        """What may follow the tokens sampled so far (the prompt is not among them)."""
        if not self.timestamps:
            return Allowed(self._text if sampled else self._text_first)
        if not sampled:
            return Allowed(NOTHING, self._first_timestamps)
        return self._next_timed(sampled)

    def constraints(self, sampled: Sequence[int]) -> ConstraintState:
        """What these rules make of tokens after those sampled so far, as data."""
        if not self.timestamps:
            return self._untimed
        begin = self.ids.timestamp_begin
        return ConstraintState(
            self._text,
            self._text_goes_on,
            self._no_text,
            self._unfinished,
            opens_segment=not sampled or sampled[-1] >= begin,
            last_timestamp=max((token for token in sampled if token >= begin), default=begin - 1),
        )

    def _next_timed(self, sampled: Sequence[int]) -> Allowed:
        """Timestamps come in pairs, except before the end of text, and never go backwards."""
        begin, n_vocab = self.ids.timestamp_begin, self.ids.n_vocab
        last_timed = sampled[-1] >= begin
        pair_closed = len(sampled) < 2 or sampled[-2] >= begin
        if last_timed and pair_closed:
            is_unfinished = len(sampled) > 1 and sampled[-1] in self._unfinished
            return Allowed(self._text_goes_on if is_unfinished else self._text)
        latest = max((token for token in sampled if token >= begin), default=begin)
        if last_timed:  # a segment just ended: the next one starts here or later, or the text ends
            return Allowed(self._no_text, range(latest, n_vocab))
        return Allowed(self._text, range(latest + 1, n_vocab))  # no segment of zero length
