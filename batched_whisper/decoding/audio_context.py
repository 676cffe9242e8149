"""Chooses the audio context of a window: all 30 s, or the length of the window and a margin.

Whisper was trained on 30 s. A shorter context is several times faster, and as accurate if some
silence after the speech is kept unchanged; the rest of the silence is represented by a few merged
positions (`engines.merged_padding`). *fit* is the default only for models in the table below; the
fallback (`decoding.fallback`) decodes rejected windows again on the full context.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from batched_whisper.errors import OptionError
from batched_whisper.types import POSITIONS_PER_SECOND, SAMPLES_PER_POSITION

BUCKET = 32
"""A fitted context is a multiple of this many positions, so that there are few shapes."""

N_MERGED_POSITIONS = 64
"""Merged positions that represent the rest of a window (`engines.merged_padding`); with more of
them, texts are hardly closer to those of the full context (docs/lab-log.md). If the fitted context
and these positions are not fewer than the full context, the full context is used."""

TOKENS_PER_S = 15
EXTRA_TOKENS = 25
"""More tokens than this on a fitted context are a repetition: speech has fewer per second."""

MARGINS_S = MappingProxyType(
    {
        "openai/whisper-base": 0.5,
        "openai/whisper-tiny.en": 0.5,
    }
)
"""Margin of a fitted context: seconds of unchanged silence after the speech, by repository.

Measured in November 2026 on 49 clips of 2 to 20 s, in English and seven other languages, clean, in
noise, truncated and at several speeds, greedy, on an AMD EPYC (Zen 4), in float32 and bfloat16:
with 0.5 s and more the word error rate equals that of the full context, with 0.1 s it is a fifth
higher (docs/lab-log.md). A model that is not listed has not been measured.
"""

DEFAULT_MARGIN_S = 1.0
"""The margin of models that have not been measured, if fit is requested, in seconds."""


@dataclass(frozen=True)
class ContextPolicy:
    """The audio context of a model's windows.

    Attributes:
        full: encoder positions of the full context.
        margin_s: silence after the speech of a fitted context, in seconds; None: always full.
        fixed: a context for every window that fits into it, or None.
    """

    full: int
    margin_s: float | None = None
    fixed: int | None = None

    def positions(self, n_samples: int) -> int:
        """Return the context of a window of ``n_samples``, in encoder positions."""
        needed = -(-n_samples // SAMPLES_PER_POSITION)
        if self.fixed is not None:
            return min(max(self.fixed, needed), self.full)
        if self.margin_s is None:
            return self.full
        fitted = needed + round(self.margin_s * POSITIONS_PER_SECOND)
        bucketed = -(-fitted // BUCKET) * BUCKET
        return bucketed if bucketed + N_MERGED_POSITIONS < self.full else self.full


def context_policy(option: str | int, repository: str, full: int) -> ContextPolicy:
    """Convert the option ``audio_context`` to the policy of a model.

    Args:
        option: auto, fit, full, or a number of positions (an int or its digits).
        repository: the name of the model on the Hub, or as the caller gave it.
        full: encoder positions of the full context.

    Raises:
        OptionError: an unknown word, or a number out of range.
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
    """Return the maximum number of tokens in speech of ``n_samples``."""
    return EXTRA_TOKENS + round(TOKENS_PER_S * n_samples / sampling_rate)
