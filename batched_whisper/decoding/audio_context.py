"""How much audio context a window gets: all 30 s, or as much as its speech needs.

Whisper was trained on 30 s. A shorter context is several times faster and as exact, as long as
enough silence follows the speech; where too little does, the decoder does not know when to stop
and loops. How much is enough differs from model to model, so *fit* is the default only for models
in the table below; `quality.Ladder` brings back the windows that loop all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from batched_whisper.errors import OptionError

POSITIONS_PER_S = 50
BUCKET = 32
"""A fitted context is a multiple of this many positions: few different shapes to prepare."""

TOKENS_PER_S = 15
EXTRA_TOKENS = 25
"""More tokens than this at a fitted context are a loop: nobody speaks 15 a second."""

MARGINS_S = MappingProxyType(
    {
        "openai/whisper-base": 2.5,
        "openai/whisper-tiny.en": 2.56,
    }
)
"""Seconds of silence after the speech that a model needs, by repository.

Measured in November 2026 on 195 to 202 clips of 2 to 20 s in eight languages, greedy, with the
gate, on an AMD EPYC (Zen 4), CTranslate2 int8: word errors of base 10.3 % on the full context,
10.0 % with 2 s; of tiny.en 13.8 %, and 11.5 % with 2.56 s. On clips with noise, cut or sped up base
gains a little more with half a second more, and nothing beyond (docs/lab-log.md). A model that is
not here has not been measured.
"""


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

    def positions(self, n_samples: int, samples_per_position: int = 320) -> int:
        """The context of a window of that many samples."""
        needed = -(-n_samples // samples_per_position)
        if self.fixed is not None:
            return min(max(self.fixed, needed), self.full)
        if self.margin_s is None:
            return self.full
        fitted = needed + round(self.margin_s * POSITIONS_PER_S)
        return min(-(-fitted // BUCKET) * BUCKET, self.full)


def context_policy(option: str | int, repository: str, full: int) -> ContextPolicy:
    """The policy that an option means for a model.

    Args:
        option: auto, fit, full, or a number of positions (or its digits).
        repository: the model's name on the Hub, or what it was called.
        full: its encoder positions.

    Raises:
        OptionError: another word, a number out of range, or fit for a model without a measured
            margin.
    """
    measured = MARGINS_S.get(repository)
    if option == "full" or (option == "auto" and measured is None):
        return ContextPolicy(full)
    if option in ("auto", "fit"):
        if measured is None:
            raise OptionError(
                f"audio_context=fit: no margin was measured for {repository}; "
                "use full, or a number of positions"
            )
        return ContextPolicy(full, margin_s=measured)
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
