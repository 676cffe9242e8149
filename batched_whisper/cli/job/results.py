"""Sends the recordings of a job to the transcriber and tells what became of each.

Knows how to keep a job going when some of its recordings are bad, and how to stop it when the
engine is. Knows nothing of where results go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batched_whisper.cli.io.inputs import RecordingSource
from batched_whisper.cli.messages import Failure, count, one_line
from batched_whisper.config.options import DecodingOptions
from batched_whisper.errors import Closed, EngineError, ModelError, OptionError

if TYPE_CHECKING:
    from batched_whisper.types import Transcript
    from batched_whisper.whisper import Whisper


@dataclass(frozen=True)
class Transcribed:
    """A recording and what was said in it."""

    source: RecordingSource
    transcript: Transcript


@dataclass(frozen=True)
class Failed:
    """A recording that could not be transcribed."""

    source: RecordingSource
    error: Exception

    @property
    def failure(self) -> Failure:
        """For the list at the end."""
        return Failure(self.source.name, one_line(self.error))


def outcomes(
    whisper: Whisper,
    sources: Iterable[RecordingSource],
    options: DecodingOptions,
    *,
    in_order: bool = True,
) -> Generator[Transcribed | Failed, None, None]:
    """What became of each recording: in the order of the sources, or as they end.

    Sources are opened as the transcriber can take them. Close the generator to stop early.

    Raises:
        EngineError: no engine is left.
        ModelError, OptionError, Closed: no recording can be transcribed like this.
    """
    from batched_whisper.concurrency.bounded_map import Mapper  # the help need not wait for asyncio

    run = _JobStarter(whisper, options)
    mapper = Mapper(new_run=lambda: run, n_in_flight=whisper.transcribe.n_in_flight)
    return mapper(sources, order_outputs=in_order)


@dataclass(frozen=True)
class _JobStarter:
    """Begins the recordings of a job; each future has its own source with what became of it."""

    whisper: Whisper
    options: DecodingOptions

    def __call__(self, arguments: tuple[RecordingSource]) -> Future[Transcribed | Failed]:
        [source] = arguments
        ended: Future[Transcribed | Failed] = Future()
        try:
            audio = source.open()
        except Exception as error:
            ended.set_result(Failed(source, error))
            return ended
        result = self.whisper.submit(audio, options=self.options)
        result.add_done_callback(partial(_hand_on, source, ended))
        ended.add_done_callback(lambda _: result.cancel())  # where it was given up
        return ended

    async def aio(self, arguments: tuple[RecordingSource]) -> Future[Transcribed | Failed]:
        """The same: nothing in it waits for long."""
        return self(arguments)


def _hand_on(
    source: RecordingSource, ended: Future[Transcribed | Failed], result: Future[Transcript]
) -> None:
    """Where ``ended`` was given up already, nothing is handed on."""
    if result.cancelled():
        ended.cancel()
        return
    if not ended.set_running_or_notify_cancel():
        return
    try:
        ended.set_result(_outcome(source, result))
    except BaseException as error:
        ended.set_exception(error)


_OF_ALL = (ModelError, OptionError, Closed)


def _is_of_all(error: BaseException) -> bool:
    """Whether it is not one recording's: every other would fail as well."""
    if isinstance(error, EngineError):
        return error.none_left
    return isinstance(error, _OF_ALL)


def _outcome(source: RecordingSource, result: Future[Transcript]) -> Transcribed | Failed:
    """Raises what is not this recording's error."""
    error = result.exception()
    if error is None:
        return Transcribed(source, dataclasses.replace(result.result(), name=source.name))
    if _is_of_all(error) or not isinstance(error, Exception):
        raise error
    return Failed(source, error)


@dataclass(frozen=True)
class JobSummary:
    """What a job came to."""

    n_recordings: int
    duration_s: float
    wall_s: float
    n_batches: int
    mean_batch_size: float

    @property
    def times_real_time(self) -> float:
        """Seconds of audio for each second that passed."""
        return self.duration_s / self.wall_s if self.wall_s > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{count(self.n_recordings, 'recording')}, {self.duration_s:,.1f} s of audio "
            f"in {self.wall_s:,.1f} s: {self.times_real_time:,.1f} times real time; "
            f"{self.n_batches:,} batches of {self.mean_batch_size:.1f} on average"
        )
