"""How much audio context a window gets: all 30 s, or as much as its speech needs.

Whisper was trained on 30 s. A shorter context is several times faster, and as exact as long as some
silence follows the speech as it is; for the silence after that a few positions stand
(`engines.merged_padding`). *fit* is the default only for models in the table below;
`fallback.FallbackPolicy` decodes on the full context what is not believed all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from batched_whisper.audio.constants import POSITIONS_PER_SECOND, SAMPLES_PER_POSITION
from batched_whisper.errors import OptionError

BUCKET = 32
"""A fitted context is a multiple of this many positions: few different shapes to prepare."""

N_MERGED_POSITIONS = 64
"""So many positions stand for the rest of a window (`engines.merged_padding`); with more of them
texts are hardly nearer to those of the full context (docs/lab-log.md). Where no more are missing, a
fitted context would cost as much as the full one, so it is the full one."""

TOKENS_PER_S = 15
EXTRA_TOKENS = 25
"""More tokens than this at a fitted context are a loop: nobody speaks 15 a second."""

MARGINS_S = MappingProxyType(
    {
        "openai/whisper-base": 0.5,
        "openai/whisper-tiny.en": 0.5,
    }
)
"""Seconds of silence after the speech that a model hears as they are, by repository.

Measured in November 2026 on 49 clips of 2 to 20 s, in English and seven other languages, as they
are, in noise, cut off and at several speeds, greedy, on an AMD EPYC (Zen 4), in float32 and
bfloat16: word errors are those of the full context with 0.5 s and more, and with 0.1 s a fifth
more (docs/lab-log.md). A model that is not here has not been measured.
"""

DEFAULT_MARGIN_S = 1.0
"""The margin of a model that has not been measured, for those who ask for fit all the same."""


@dataclass(frozen=True)
class ContextPolicy:
    """The audio context of a model's windows.

    Attributes:
        full: the model's encoder positions.
        margin_s: the silence after the speech of a fitted context; None always gives the full one.
        fixed: a context for every window that fits into it, or None.
    """

    full: int
    margin_s: float | None = None
    fixed: int | None = None

    def positions(self, n_samples: int) -> int:
        """The context of a window of that many samples."""
        needed = -(-n_samples // SAMPLES_PER_POSITION)
        if self.fixed is not None:
            return min(max(self.fixed, needed), self.full)
        if self.margin_s is None:
            return self.full
        fitted = needed + round(self.margin_s * POSITIONS_PER_SECOND)
        bucketed = -(-fitted // BUCKET) * BUCKET
        return bucketed if bucketed + N_MERGED_POSITIONS < self.full else self.full


def context_policy(option: str | int, repository: str, full: int) -> ContextPolicy:
    """The policy that an option means for a model.

    Args:
        option: auto, fit, full, or a number of positions (or its digits).
        repository: the model's name on the Hub, or what it was called.
        full: its encoder positions.

    Raises:
        OptionError: another word, or a number out of range.
    """
    measured = MARGINS_S.get(repository)
    if option == "full" or (option == "auto" and measured is None):
        return ContextPolicy(full)
    if option in ("auto", "fit"):
        return ContextPolicy(full, margin_s=DEFAULT_MARGIN_S if measured is None else measured)
    try:
        fixed = int(option)
    except ValueError:
        raise OptionError(
            f"audio_context={option!r}: choose auto, fit, full, or a number of positions"
        ) from None
    if not 1 <= fixed <= full:
        raise OptionError(f"audio_context={fixed} is out of range: it must be from 1 to {full}")
    return ContextPolicy(full, fixed=fixed)


def token_limit(n_samples: int, sampling_rate: int) -> int:
    """The most tokens that speech of that length can have."""
    return EXTRA_TOKENS + round(TOKENS_PER_S * n_samples / sampling_rate)
