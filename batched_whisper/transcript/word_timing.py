"""Computes when each word of a window was spoken, from the decoder's cross-attention.

By the method of openai/whisper (``timing.py``): the attention of the alignment heads, normalised
over the tokens, is a matrix of tokens by time, and dynamic time warping assigns a time to each
token. Differences, each measured by ``benchmarks/word_times.py``:

- The token before the text takes part, so that audio before the first word is not assigned to it.
- Paths enter a token early, so all times are shifted by `SHIFT_POSITIONS`.
- Words start and end at pauses of the audio, if there is one nearby.
- The median filter is applied to the mean of the heads, not to each head: as exact, and faster.

Pure NumPy; knows no engine, no recording and no options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batched_whisper.transcript.dtw import median_of_7, path_entries
from batched_whisper.transcript.silence import Pause
from batched_whisper.transcript.word_split import DecodeBytes, WordTokens, split_words
from batched_whisper.types import POSITION_S, Word

SHIFT_POSITIONS = 3
"""Shift of all times. Without it, word starts are early by 0.13 s (median), ends by 0.04 s."""

MAX_PAUSE_DISTANCE_S = 0.15
"""Maximum distance of a pause, in seconds, before the boundary of two words."""

LATE_PAUSE_RATIO = 2.0
"""A pause after a boundary may be this many times farther away than one before it: the path
assigns pauses to the next word more often than to the previous one."""

MIN_WORD_S = 0.06

_MAX_MEDIAN_S = 0.7
_MAX_WORD_RATIO = 2  # a word after a pause, longer than this times the median, includes the pause


@dataclass(frozen=True, eq=False)
class AlignedTokens:
    """The tokens of a window's text, with their cross-attention.

    Attributes:
        segments: the text tokens, segment by segment.
        language: code of the language of the text.
        weights: ``[n_heads, n_tokens, n_positions]``, attention of the tokens of prompt and text;
            row ``i`` is the attention when predicting token ``i + 1``.
        logprobs: ``[n_tokens]``, natural log-probability of each token given the previous ones.
        n_prompt: number of tokens before the text.
    """

    segments: Sequence[Sequence[int]]
    language: str
    weights: NDArray[np.float32]
    logprobs: NDArray[np.float32]
    n_prompt: int


@dataclass(frozen=True, eq=False)
class _Times:
    """Times of words in seconds from the start of the window, ``[n_words]`` each; modified."""

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
    """Return the words of a window with their times in the recording.

    They are in order and within the window; concatenated, they are the text.

    Args:
        text: the tokens and their attention.
        pauses: the pauses of the window.
        decode_bytes: converts tokens to UTF-8 bytes.
        start_s: start of the window in the recording, in seconds.
        end_s: end of the window in the recording, in seconds.
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
    """Split each segment into words; no word spans two segments."""
    words, offset = list[WordTokens](), 0
    for tokens in text.segments:
        for word in split_words(tokens, text.language, decode_bytes):
            words.append(word.moved(offset))
        offset += len(tokens)
    return words


def _bounds(text: AlignedTokens, n_positions: int) -> NDArray[np.int64]:
    """Return the position where each token begins, and the end of the last: ``[n_text + 1]``."""
    n_text = sum(map(len, text.segments))
    first = max(text.n_prompt - 2, 0)  # the token before the last one of the prompt
    matrix = token_map(text.weights[:, :, :n_positions])[first : text.n_prompt + n_text]
    return path_entries(-matrix)[text.n_prompt - 1 - first :] + SHIFT_POSITIONS


def token_map(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise attention over the tokens, ``[n_tokens, n_positions]``.

    From ``[n_heads, n_tokens, n_positions]``: attention that sums to 1 over the positions, in
    standard deviations from the mean over the tokens, averaged over the heads and median-filtered.
    """
    total = weights.sum(axis=2, keepdims=True)
    shares = weights / np.maximum(total, np.finfo(np.float32).tiny)
    spread = shares.std(axis=1, keepdims=True)
    compared = (shares - shares.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    return median_of_7(compared.mean(axis=0))


def _shorten(times: _Times, after_pause: NDArray[np.bool_]) -> None:
    """Shorten long words after a pause, which include the pause, at their start."""
    durations = times.ends - times.starts
    if durations.any():
        usual_s = min(float(np.median(durations[durations > 0])), _MAX_MEDIAN_S)
        shortened = np.maximum(times.starts, times.ends - _MAX_WORD_RATIO * usual_s)
        times.starts[after_pause] = shortened[after_pause]


def _meet_pauses(times: _Times, pauses: Sequence[Pause], duration_s: float) -> None:
    """Move word ends to the start of a pause, and word starts to its end.

    Boundary ``i`` is between word ``i - 1`` and word ``i``. From the longest pause on, each takes
    the nearest free boundary within reach that leaves both words a minimum length.
    """
    taken = np.zeros(len(times.starts) + 1, bool)
    for pause in sorted(pauses, key=lambda pause: -pause.duration_s):
        distance = np.where(taken, np.inf, _distances(times, pause, duration_s))
        boundary = int(distance.argmin())
        if distance[boundary] <= MAX_PAUSE_DISTANCE_S:
            taken[boundary] = True
            times.ends[max(boundary - 1, 0) : boundary] = pause.start_s
            times.starts[boundary : boundary + 1] = pause.end_s


def _distances(times: _Times, pause: Pause, duration_s: float) -> NDArray[np.float64]:
    """Distances of a pause from each boundary, in seconds, ``[n_words + 1]``; inf: does not fit."""
    starts, ends = times.starts, times.ends
    before_s = np.append(starts[:1], ends)  # the end of the word before each boundary
    after_s = np.append(starts, ends[-1:])  # the start of the word after it
    late, early = before_s - pause.end_s, pause.start_s - after_s
    distance = np.maximum(np.maximum(late, early / LATE_PAUSE_RATIO), 0)
    if pause.start_s <= 0:
        distance[0] = 0
    if pause.end_s >= duration_s:
        distance[-1] = 0
    distance[1:][pause.start_s < starts + MIN_WORD_S] = np.inf
    distance[:-1][pause.end_s > ends - MIN_WORD_S] = np.inf
    return distance
