"""What the harness asks of a system. Each runs in a process of its own (`benchmarks.worker`).

A module of this package is one system; its function ``make(place)`` gives the adapter, which
imports the system's packages only in ``load``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from batched_whisper.types import Samples
from benchmarks.peer_models import PeerModels


@dataclass(frozen=True)
class Place:
    """What an adapter is made of.

    ``models`` has the same weights in every format (`peer_models.py`);
    ``threads`` is the number of processors that every system may use.
    """

    settings: Mapping[str, Any]
    threads: int
    models: PeerModels


class System(Protocol):
    """A speech recogniser, loaded once and called many times."""

    packages: tuple[str, ...]
    """Distributions whose versions belong in the result."""

    def load(self) -> None:
        """Load the model. Raises LeftOut, or whatever the system raises."""

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        """A text for each clip of ``[n_samples]`` at 16 kHz, in order; all are there at once."""

    def transcribe_long(self, path: Path) -> str:
        """The text of one recording of any length, read from its file."""

    def close(self) -> None:
        """Give back memory and threads."""


@runtime_checkable
class Counts(Protocol):
    """A system that counts what it does; only ever growing figures."""

    def counters(self) -> Mapping[str, float]:
        """The figures since it was loaded."""
