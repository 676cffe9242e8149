"""What the commands need from the rest of the package, as one object that tests can replace.

Knows the shape of a transcriber and where the real one is; imports it only when it is used, so
that ``--help`` does not wait for an engine.
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
    """What would transcribe, and why; the words are the user's to read."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def revision(self) -> str | None:
        """Its commit, where there is one."""

    @property
    def source(self) -> str:
        """Where its files are from."""

    @property
    def engine(self) -> str:
        """What runs it."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def precision(self) -> str:
        """Its arithmetic."""

    @property
    def threads(self) -> int | None:
        """Processor threads."""

    @property
    def why(self) -> Sequence[str]:
        """Sentences."""


class Stats(Protocol):
    """What an engine did so far."""

    @property
    def n_batches(self) -> int:
        """Decoder steps."""

    @property
    def n_rows(self) -> int:
        """Windows in all of them."""

    @property
    def mean_batch_size(self) -> float:
        """Windows in one of them."""

    @property
    def queue_depth(self) -> int:
        """Windows that wait."""


class TranscribeCalls(Protocol):
    """Recordings to transcripts; audio is whatever the transcriber accepts."""

    def __call__(self, audio: Any, *, options: DecodingOptions) -> Transcript:
        """One recording."""

    @property
    def n_in_flight(self) -> int:
        """How many recordings of a job are begun and not given yet, at most."""

    def map(self, audios: Iterable[Any], *, options: DecodingOptions) -> Iterator[Transcript]:
        """Many, lazily, in order."""


class Transcriber(Protocol):
    """The part of `batched_whisper.whisper.Whisper` that the commands use."""

    @property
    def transcribe(self) -> TranscribeCalls:
        """Recordings to transcripts."""

    def submit(self, audio: Any, *, options: DecodingOptions) -> Future[Transcript]:
        """Begin one recording; cancel the future to give it up."""

    @property
    def info(self) -> Info:
        """What would transcribe, and why."""

    @property
    def stats(self) -> Stats:
        """What it did so far."""

    def load(self) -> object:
        """Make it ready."""

    def close(self) -> None:
        """Stop it."""


class Downloaded(Protocol):
    """A model that is on this machine now."""

    @property
    def name(self) -> str:
        """As it was asked for."""

    @property
    def revision(self) -> str | None:
        """Its commit, where there is one."""

    @property
    def folder(self) -> Path:
        """Where it is."""


def _open_whisper(settings: Settings) -> Transcriber:
    from batched_whisper.whisper import Whisper

    return cast(Transcriber, Whisper(settings=settings))


def _download(model: str, revision: str | None) -> Downloaded:
    from batched_whisper.models.sources import download

    cache_dir = Settings.from_environment().cache_dir
    return cast(Downloaded, download(model, revision, cache_dir=cache_dir))


@dataclass(frozen=True)
class Dependencies:
    """Makes a transcriber from settings, and brings models here."""

    open_whisper: Callable[[Settings], Transcriber] = _open_whisper
    download: Callable[[str, str | None], Downloaded] = _download
