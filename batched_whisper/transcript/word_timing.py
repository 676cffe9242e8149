"""When each word of a window was said, from where the decoder looked while saying it.

The way is openai/whisper's (``timing.py``): the attention of the alignment heads, made comparable
over the tokens, is a map of tokens by time, and the cheapest path through it gives each token its
time. Departures, each measured by ``benchmarks/word_times.py``:

- The token before the text takes part, so that what comes before the first word is not that
  word's.
- Paths enter a token early, so all times are moved by `SHIFT_POSITIONS`.
- Words end and begin at the pauses of the sound, where there is one near.
- The median filter runs over the mean of the heads, not over each: as exact, and faster.

It is pure NumPy, and knows no engine, no recording and no options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batched_whisper.transcript.dtw import median_of_7, path_entries
from batched_whisper.transcript.silence import Pause
from batched_whisper.transcript.word_split import DecodeBytes, WordTokens, split_words
from batched_whisper.types import Word

POSITION_S = 0.02
"""Between two encoder positions."""

SHIFT_POSITIONS = 3
"""Moves all times: without, starts of words are 0.13 s early in the median, and ends 0.04 s."""

MAX_PAUSE_DISTANCE_S = 0.15
"""A pause that ends longer before two words meet is not between them."""

LEAD = 2.0
"""Words swallow the pause before them more often than the one after them: a pause may begin so
many times farther after the place where two words meet."""

MIN_WORD_S = 0.06

_LONGEST_MEDIAN_S = 0.7
_LONG_WORD = 2  # times the median: longer after a pause, and the word has swallowed the pause


@dataclass(frozen=True, eq=False)
class AlignedTokens:
    """A window's text and where it was heard.

    Attributes:
        segments: its text tokens, segment by segment.
        language: the code of what it is written in.
        weights: ``[n_heads, n_tokens, n_positions]``, attention of the prompt's and the text's
            tokens; row ``i`` is what is heard for the token after token ``i``.
        logprobs: ``[n_tokens]``, natural log-probability of each token given those before.
        n_prompt: how many tokens come before the text.
    """

    segments: Sequence[Sequence[int]]
    language: str
    weights: NDArray[np.float32]
    logprobs: NDArray[np.float32]
    n_prompt: int


@dataclass(frozen=True, eq=False)
class _Times:
    """The words' times in seconds from the start of the window, ``[n_words]`` each; changed."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]


def time_words(
    text: AlignedTokens,
    pauses: Sequence[Pause],
    decode_bytes: DecodeBytes,
    *,
    start_s: float,
    end_s: float,
) -> tuple[Word, ...]:
    """The words of a window with their times in the recording.

    They are in order, within the window, and put together spell the text.

    Args:
        text: what was said, and the attention to it.
        pauses: where the window is quiet.
        decode_bytes: gives the UTF-8 bytes of tokens.
        start_s: where the window begins in the recording, in seconds.
        end_s: where it ends.
    """
    words = _words(text, decode_bytes)
    if not words:
        return ()
    duration_s = max(end_s - start_s, 0.0)
    n_positions = max(int(duration_s / POSITION_S), 1)
    bounds_s = np.minimum(_bounds(text, n_positions) * POSITION_S, duration_s)
    times = _Times(
        bounds_s[[word.first for word in words]], bounds_s[[word.last for word in words]]
    )
    _shorten(times, np.array([word.after_pause for word in words]))
    _meet_pauses(times, pauses, duration_s)
    first_s, last_s = (np.clip(each, 0, duration_s) for each in (times.starts, times.ends))
    probabilities = np.exp(text.logprobs[text.n_prompt :])
    return tuple(
        Word(
            start=start_s + float(first_s[i]),
            end=start_s + float(last_s[i]),
            word=word.text,
            probability=float(probabilities[word.first : word.last].mean()),
        )
        for i, word in enumerate(words)
    )


def _words(text: AlignedTokens, decode_bytes: DecodeBytes) -> list[WordTokens]:
    """The words of all segments; none reaches from one into the next."""
    words, offset = list[WordTokens](), 0
    for tokens in text.segments:
        for word in split_words(tokens, text.language, decode_bytes):
            words.append(word.moved(offset))
        offset += len(tokens)
    return words


def _bounds(text: AlignedTokens, n_positions: int) -> NDArray[np.int64]:
    """The position where each token begins, and where the last one ends: ``[n_text + 1]``."""
    n_text = sum(map(len, text.segments))
    first = max(text.n_prompt - 2, 0)  # one token before the one that is followed by the text
    map_ = token_map(text.weights[:, :, :n_positions])[first : text.n_prompt + n_text]
    return path_entries(-map_)[text.n_prompt - 1 - first :] + SHIFT_POSITIONS


def token_map(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each token looks at each position, compared with the other tokens.

    ``[n_heads, n_tokens, n_positions]`` to ``[n_tokens, n_positions]``: attention within the
    positions, in standard deviations from its mean over the tokens, as the mean over the heads.
    """
    total = weights.sum(axis=2, keepdims=True)
    shares = weights / np.maximum(total, np.finfo(np.float32).tiny)
    spread = shares.std(axis=1, keepdims=True)
    compared = (shares - shares.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    return median_of_7(compared.mean(axis=0))


def _shorten(times: _Times, after_pause: NDArray[np.bool_]) -> None:
    """A long word after a pause has swallowed the pause: leave it as much as a word needs."""
    durations = times.ends - times.starts
    if durations.any():
        usual_s = min(float(np.median(durations[durations > 0])), _LONGEST_MEDIAN_S)
        shortened = np.maximum(times.starts, times.ends - _LONG_WORD * usual_s)
        times.starts[after_pause] = shortened[after_pause]


def _meet_pauses(times: _Times, pauses: Sequence[Pause], duration_s: float) -> None:
    """Let words end where a pause begins, and begin where it ends.

    Place ``i`` is where word ``i - 1`` meets word ``i``. The longest pause chooses first, and
    takes the nearest place in reach where it leaves both words something.
    """
    taken = np.zeros(len(times.starts) + 1, bool)
    for pause in sorted(pauses, key=lambda pause: -pause.duration_s):
        distance = np.where(taken, np.inf, _distances(times, pause, duration_s))
        place = int(distance.argmin())
        if distance[place] <= MAX_PAUSE_DISTANCE_S:
            taken[place] = True
            times.ends[max(place - 1, 0) : place] = pause.start_s
            times.starts[place : place + 1] = pause.end_s


def _distances(times: _Times, pause: Pause, duration_s: float) -> NDArray[np.float64]:
    """Of a pause from each place, in seconds, ``[n_words + 1]``; infinite where it does not fit."""
    starts, ends = times.starts, times.ends
    before_s = np.append(starts[:1], ends)  # where the word before a place ends
    after_s = np.append(starts, ends[-1:])  # where the word after it starts
    late, early = before_s - pause.end_s, pause.start_s - after_s
    distance = np.maximum(np.maximum(late, early / LEAD), 0)
    if pause.start_s <= 0:
        distance[0] = 0
    if pause.end_s >= duration_s:
        distance[-1] = 0
    distance[1:][pause.start_s < starts + MIN_WORD_S] = np.inf
    distance[:-1][pause.end_s > ends - MIN_WORD_S] = np.inf
    return distance
