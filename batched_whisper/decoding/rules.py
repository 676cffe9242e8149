"""Whisper's logit filters as plain data: the tokens that are allowed next.

Engines know nothing of languages, tasks or timestamp rules. Each row of a step has the set of its
allowed tokens (`Allowed`), so the same rules hold on every device. The rules are those of
openai/whisper, ``decoding.py``: SuppressBlank, SuppressTokens, ApplyTimestampRules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum

from batched_whisper.types import TIMESTAMP_STEP_S

MAX_UNTRANSCRIBED_S = 0.5
"""Audio at the end of a window, in seconds, that may have no text: less than most words."""


class MaskMode(Enum):
    """How a `TokenMask` interprets its set of tokens."""

    ALL_BUT = "every token but these"
    ONLY = "these tokens and no other"


@dataclass(frozen=True)
class TokenMask:
    """The allowed tokens below the first timestamp.

    Few different masks exist while a model runs, so an engine stores each as a row of a table.
    """

    mode: MaskMode
    tokens: frozenset[int]

    def __hash__(self) -> int:
        """Hash the frozenset, which caches its hash: masks are looked up for every row and step."""
        return hash(self.tokens)


NOTHING = TokenMask(MaskMode.ONLY, frozenset())
EVERYTHING = TokenMask(MaskMode.ALL_BUT, frozenset())


@dataclass(frozen=True)
class Allowed:
    """The tokens that one row may generate next.

    ``mask`` applies to tokens below the first timestamp; ``timestamps`` is the range of allowed
    timestamp tokens. If both allow tokens, a timestamp is chosen if all timestamps together are
    more probable than the best single text token (ApplyTimestampRules).
    """

    mask: TokenMask
    timestamps: range = range(0)


NO_REQUEST = Allowed(NOTHING)
"""For tokens whose output is not needed."""


@dataclass(frozen=True)
class TokenIds:
    """The special tokens that the rules use."""

    eot: int
    timestamp_begin: int
    n_vocab: int
    no_speech: int | None = None


@dataclass(frozen=True)
class ConstraintState:
    """Where a text is in the grammar of timestamps, as plain data; `after` is that grammar.

    Timestamps come in pairs, except before the end of text, and never go backwards. A device that
    is given one decodes several tokens per call, without the host in between.
    """

    text_mask: TokenMask
    """Rules the tokens below the timestamps within text, and where a segment has begun."""
    unfinished_mask: TokenMask
    """The same where a segment has begun at one of the timestamps `unfinished_range`."""
    segment_end_mask: TokenMask
    """The same where a segment has ended."""
    unfinished_range: range
    opens_segment: bool
    """Whether a timestamp would begin a segment: at the start, or after an ending timestamp."""
    last_timestamp: int
    """The last timestamp so far; before the first one, the token below all timestamps. Without
    timestamps, the last token of the vocabulary, so that none is allowed after it."""

    def after(self, token: int, ids: TokenIds) -> tuple[Allowed, ConstraintState]:
        """Return the tokens allowed after this token, and the state after it."""
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
    """The decoding rules of a window; immutable, shared by windows with equal options.

    Args:
        ids: the special tokens of the model.
        suppress: tokens that are never sampled.
        suppress_begin: tokens that are not sampled first (a blank, the end of text).
        timestamps: whether the model predicts timestamps.
        max_initial_timestamp_s: the latest first timestamp, in seconds.
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
        """Return the rules of a window with audio up to `end_s`, in seconds.

        If the last sentence of a window is cut, Whisper stops before it and marks its start: a
        segment that begins and has no text. openai/whisper starts its next window there
        (``transcribe.py``). Here windows are fixed in advance, so the text must continue if more
        than `MAX_UNTRANSCRIBED_S` of the audio is left.
        """
        last = self.ids.timestamp_begin + math.floor(
            (end_s - MAX_UNTRANSCRIBED_S) / TIMESTAMP_STEP_S
        )
        rules = copy(self)
        rules._unfinished = range(self.ids.timestamp_begin, last)
        return rules

    def next(self, sampled: Sequence[int]) -> Allowed:
        """Return the tokens allowed after those sampled so far (without the prompt)."""
        if not self.timestamps:
            return Allowed(self._text if sampled else self._text_first)
        if not sampled:
            return Allowed(NOTHING, self._first_timestamps)
        return self.constraints(sampled[:-1]).after(sampled[-1], self.ids)[0]

    def constraints(self, sampled: Sequence[int]) -> ConstraintState:
        """Return the constraint state after the tokens sampled so far."""
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
