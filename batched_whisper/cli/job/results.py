"""Submits the recordings of a job and yields the outcome of each.

A bad recording is an outcome; an error that would fail every recording ends the job. Knows
nothing of outputs.
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
    """A recording and its transcript."""

    source: RecordingSource
    transcript: Transcript


@dataclass(frozen=True)
class Failed:
    """A recording that could not be transcribed."""

    source: RecordingSource
    error: Exception

    @property
    def failure(self) -> Failure:
        """Its entry in the list of failures."""
        return Failure(self.source.name, one_line(self.error))


def outcomes(
    whisper: Whisper,
    sources: Iterable[RecordingSource],
    options: DecodingOptions,
    *,
    in_order: bool = True,
) -> Generator[Transcribed | Failed, None, None]:
    """Yield the outcome of each recording, in input order or in completion order.

    Opens sources only as the engine can take them. Close the generator to stop early.

    Raises:
        EngineError: no engine is left.
        ModelError, OptionError, Closed: every recording would fail.
    """
    from batched_whisper.concurrency.bounded_map import Mapper  # keeps asyncio out of --help

    run = _JobStarter(whisper, options)
    mapper = Mapper(new_run=lambda: run, n_in_flight=whisper.transcribe.n_in_flight)
    return mapper(sources, order_outputs=in_order)


@dataclass(frozen=True)
class _JobStarter:
    """Starts the recordings of a job; each future gives the outcome of its source."""

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
        result.add_done_callback(partial(_forward, source, ended))
        ended.add_done_callback(lambda _: result.cancel())  # if abandoned
        return ended

    async def aio(self, arguments: tuple[RecordingSource]) -> Future[Transcribed | Failed]:
        """Start a recording; does not block."""
        return self(arguments)


def _forward(
    source: RecordingSource, ended: Future[Transcribed | Failed], result: Future[Transcript]
) -> None:
    """Copy the result to ``ended``, unless that was cancelled."""
    if result.cancelled():
        ended.cancel()
        return
    if not ended.set_running_or_notify_cancel():
        return
    try:
        ended.set_result(_outcome(source, result))
    except BaseException as error:
        ended.set_exception(error)


_FATAL = (ModelError, OptionError, Closed)


def _is_fatal(error: BaseException) -> bool:
    """Whether the error would fail every recording."""
    if isinstance(error, EngineError):
        return error.none_left
    return isinstance(error, _FATAL)


def _outcome(source: RecordingSource, result: Future[Transcript]) -> Transcribed | Failed:
    """The outcome of a recording; raise an error that is not specific to it."""
    error = result.exception()
    if error is None:
        return Transcribed(source, dataclasses.replace(result.result(), name=source.name))
    if _is_fatal(error) or not isinstance(error, Exception):
        raise error
    return Failed(source, error)


@dataclass(frozen=True)
class JobSummary:
    """Totals of a job."""

    n_recordings: int
    duration_s: float
    wall_s: float
    n_batches: int
    mean_batch_size: float

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second of wall time."""
        return self.duration_s / self.wall_s if self.wall_s > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{count(self.n_recordings, 'recording')}, {self.duration_s:,.1f} s of audio "
            f"in {self.wall_s:,.1f} s: {self.times_real_time:,.1f} times real time; "
            f"{self.n_batches:,} batches of {self.mean_batch_size:.1f} on average"
        )
