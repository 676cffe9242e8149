"""The commands' dependencies on the rest of the package, as one object that tests can replace.

Declares the part of `Whisper` that the commands use. Imports the real one only when it is used,
so that ``--help`` does not wait for an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from batched_whisper.config.options import DecodingOptions, Settings

if TYPE_CHECKING:
    from batched_whisper.types import Transcript


class Info(Protocol):
    """Model, engine and device, and why they were chosen."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def revision(self) -> str | None:
        """The model's commit, if it has one."""

    @property
    def source(self) -> str:
        """Where the model's files come from."""

    @property
    def engine(self) -> str:
        """The engine's name."""

    @property
    def device(self) -> str:
        """The device's name."""

    @property
    def precision(self) -> str:
        """The engine's number format."""

    @property
    def threads(self) -> int | None:
        """CPU threads; None if the engine decides."""

    @property
    def why(self) -> Sequence[str]:
        """Reasons, as sentences."""


class Stats(Protocol):
    """Counters of the engine."""

    @property
    def n_batches(self) -> int:
        """Decoder steps."""

    @property
    def n_rows(self) -> int:
        """Windows decoded, summed over the steps."""

    @property
    def mean_batch_size(self) -> float:
        """Mean number of windows per step."""

    @property
    def queue_depth(self) -> int:
        """Waiting windows."""


class TranscribeCalls(Protocol):
    """Transcribes recordings; ``audio`` is any input that `Whisper` accepts."""

    def __call__(self, audio: Any, *, options: DecodingOptions) -> Transcript:
        """Transcribe one recording."""

    @property
    def n_in_flight(self) -> int:
        """Upper bound of the recordings of a job that are in flight."""

    def map(self, audios: Iterable[Any], *, options: DecodingOptions) -> Iterator[Transcript]:
        """Transcribe many recordings, lazily, in input order."""


class Transcriber(Protocol):
    """The part of `batched_whisper.whisper.Whisper` that the commands use."""

    @property
    def transcribe(self) -> TranscribeCalls:
        """The calls that transcribe."""

    def submit(self, audio: Any, *, options: DecodingOptions) -> Future[Transcript]:
        """Start one recording; cancel the future to abandon it."""

    @property
    def info(self) -> Info:
        """Model, engine and device."""

    @property
    def stats(self) -> Stats:
        """Counters of the engine."""

    def load(self) -> object:
        """Load the model."""

    def close(self) -> None:
        """Release the model."""


class Downloaded(Protocol):
    """A model on this machine."""

    @property
    def name(self) -> str:
        """The name as requested."""

    @property
    def revision(self) -> str | None:
        """The model's commit, if it has one."""

    @property
    def folder(self) -> Path:
        """The folder that holds it."""


def _open_whisper(settings: Settings) -> Transcriber:
    from batched_whisper.whisper import Whisper

    return cast(Transcriber, Whisper(settings=settings))


def _download(model: str, revision: str | None) -> Downloaded:
    from batched_whisper.models.sources import download

    cache_dir = Settings.from_environment().cache_dir
    return cast(Downloaded, download(model, revision, cache_dir=cache_dir))


@dataclass(frozen=True)
class Dependencies:
    """Opens a `Whisper` from settings, and downloads models."""

    open_whisper: Callable[[Settings], Transcriber] = _open_whisper
    download: Callable[[str, str | None], Downloaded] = _download
