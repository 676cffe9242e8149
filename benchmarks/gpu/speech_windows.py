"""Windows of real speech: their features, and as many tokens as its true transcript has.

They are made of the English clips of a folder, as `accuracy.clips_of` reads them, in three mixes:

- *short*: clips as they are, drawn so that their mean is 7 s, or as near as the clips allow;
- *mlperf-like*: clips in shuffled order with half a second of silence between them, as MLPerf
  Inference packs LibriSpeech: a window is closed when the next clip does not fit into 30 s;
- *full 30 s*: the longest quarter of such windows.

Of each mix there are a few different windows, which are repeated: what a window says costs an
engine nothing, but the features of a thousand would cost 1.5 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from batched_whisper.audio.constants import HOP_LENGTH, N_FFT
from batched_whisper.audio.features import log_mel
from batched_whisper.models.dimensions import Dimensions
from batched_whisper.types import SAMPLING_RATE, Features, Samples
from benchmarks.gpu.accuracy import Clip
from benchmarks.gpu.mix import FULL_LENGTH, PACKED, SHORT, WindowSize

GAP = SAMPLING_RATE // 2
"""Samples of silence between two clips of a window."""
SHORT_MEAN_S = 7.0
N_DIFFERENT = 64
"""Windows of a mix that differ; the same number again has the mean of the mix exactly."""
LONGEST_SHARE = 4

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class SpeechWindow(WindowSize):
    """Clips one after another, for a model with these numbers of mel bands and positions."""

    clips: tuple[Clip, ...] = field(repr=False, compare=False)
    n_mels: int
    full: int

    @property
    def text(self) -> str:
        """What is said in it."""
        return " ".join(clip.text for clip in self.clips)

    @property
    def samples(self) -> Samples:
        """The clips with their gaps; joined anew each time, since features are all that stays."""
        silence = np.zeros(GAP, np.float32)
        parts = [part for clip in self.clips for part in (silence, clip.samples)]
        return np.concatenate(parts[1:])

    def features(self, context: int) -> Features:
        """The log-mel spectrogram, ``[n_mels, 2 * context]``.

        Where silence follows the speech, that of a shorter context is the beginning of the full
        one's, so only this is kept.
        """
        n_samples = round(self.duration_s * SAMPLING_RATE)
        if context < self.full and n_samples + N_FFT > 2 * context * HOP_LENGTH:
            return log_mel(self.samples, self.n_mels, 2 * context)
        return self._whole[:, : 2 * context]

    @cached_property
    def _whole(self) -> Features:
        return log_mel(self.samples, self.n_mels, 2 * self.full)


class SpeechWorkload:
    """The windows of a benchmark, made of real speech; the same seed makes the same ones.

    Args:
        clips: English ones are taken; a model of less than 30 s encodes their beginnings.
        n_tokens: how many tokens a text has.
        sizes: of the model.

    Raises:
        ValueError: none of the clips is in English.
    """

    def __init__(
        self, clips: Sequence[Clip], n_tokens: CountTokens, sizes: Dimensions, seed: int = 0
    ) -> None:
        longest = 2 * sizes.n_audio_ctx * HOP_LENGTH
        heard = [_heard(clip, longest) for clip in clips if clip.language == "en"]
        if not heard:
            raise ValueError("none of the clips is in English: give a folder with some")
        self.what = f"real speech: windows of {len(heard)} English clips, tokens of their texts"

        def window(clips: tuple[Clip, ...]) -> SpeechWindow:
            text = " ".join(clip.text for clip in clips)
            duration_s = _n_samples(clips) / SAMPLING_RATE
            return SpeechWindow(
                duration_s, max(2, n_tokens(text)), clips, sizes.n_mels, sizes.n_audio_ctx
            )

        random = np.random.default_rng(seed)
        single = [window((clip,)) for clip in heard]
        packed = [
            window(some) for some in pack(heard, longest, LONGEST_SHARE * N_DIFFERENT, random)
        ]
        by_length = sorted(packed, key=lambda each: each.duration_s)
        self._different: dict[str, list[SpeechWindow]] = {
            SHORT: near_mean(single, SHORT_MEAN_S, N_DIFFERENT, random),
            PACKED: packed[:N_DIFFERENT],
            FULL_LENGTH: by_length[-N_DIFFERENT:],
        }

    def windows(self, mix: str, n: int, seed: int = 0) -> list[WindowSize]:
        """Windows: each of the different ones once, then again in another order."""
        random = np.random.default_rng(seed)
        different, found = self._different[mix], list[WindowSize]()
        while len(found) < n:
            found += [different[i] for i in random.permutation(len(different))]
        return found[:n]


def pack(
    clips: Sequence[Clip], longest: int, n: int, random: np.random.Generator
) -> list[tuple[Clip, ...]]:
    """Clips for this number of windows of at most ``longest`` samples, their gaps included."""
    windows, held = list[tuple[Clip, ...]](), tuple[Clip, ...]()
    shuffled = _shuffled(clips, random)
    while len(windows) < n:
        clip = next(shuffled)
        if held and _n_samples((*held, clip)) > longest:
            windows.append(held)
            held = ()
        held = (*held, clip)
    return windows


def near_mean(
    windows: Sequence[SpeechWindow], mean_s: float, n: int, random: np.random.Generator
) -> list[SpeechWindow]:
    """This number of them, some repeated, with a mean duration as near as possible to the target.

    The share of each is proportional to ``exp(tilt * duration)``: of all shares with that mean
    those that are nearest to equal ones. They are taken at even steps through the sum of shares.
    """
    by_length = sorted(windows, key=lambda window: window.duration_s)
    durations_s = np.array([window.duration_s for window in by_length])
    low, high = -2.0, 2.0
    for _ in range(40):
        tilt = (low + high) / 2
        shares = np.exp(tilt * (durations_s - mean_s))
        shares /= shares.sum()
        low, high = (tilt, high) if shares @ durations_s < mean_s else (low, tilt)
    steps = (np.arange(n) + random.random()) / n
    places = np.searchsorted(np.cumsum(shares), steps).clip(max=len(by_length) - 1)
    return [by_length[i] for i in places]


def _heard(clip: Clip, longest: int) -> Clip:
    """The audio that a model encodes, and the text as a model writes it.

    Text in capitals alone, as LibriSpeech has it, would have half as many tokens again.
    """
    text = clip.text.lower() if clip.text.isupper() else clip.text
    if len(clip.samples) > longest:
        words = text.split()
        text = " ".join(words[: max(1, len(words) * longest // len(clip.samples))])
    return replace(clip, samples=clip.samples[:longest], text=text)


def _n_samples(clips: Sequence[Clip]) -> int:
    return sum(len(clip.samples) for clip in clips) + GAP * (len(clips) - 1)


def _shuffled(clips: Sequence[Clip], random: np.random.Generator) -> Iterator[Clip]:
    """All of them, and again in another order, without end."""
    while True:
        yield from (clips[i] for i in random.permutation(len(clips)))
