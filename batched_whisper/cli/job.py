"""Sends the recordings of a job to the transcriber and tells what became of each.

Knows how to keep a job going when some of its recordings are bad, and how to stop it when the
engine is. Knows nothing of where results go.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batched_whisper.cli.inputs import Source
from batched_whisper.cli.messages import Failure, count, one_line
from batched_whisper.cli.services import Transcriber
from batched_whisper.config import DecodingOptions
from batched_whisper.errors import Closed, EngineError, ModelError, OptionError

if TYPE_CHECKING:
    from batched_whisper.types import Transcript


@dataclass(frozen=True)
class Transcribed:
    """A recording and what was said in it."""

    source: Source
    transcript: Transcript


@dataclass(frozen=True)
class Failed:
    """A recording that could not be transcribed."""

    source: Source
    error: Exception

    @property
    def failure(self) -> Failure:
        """For the list at the end."""
        return Failure(self.source.name, one_line(self.error))


def outcomes(
    whisper: Transcriber, sources: Iterable[Source], options: DecodingOptions
) -> Generator[Transcribed | Failed, None, None]:
    """What became of each recording, as it is known; transcribed ones in order.

    Sources are opened as the transcriber asks for them. Close the generator to stop early.

    Raises:
        EngineError: no engine is left.
        ModelError, OptionError, Closed: no recording can be transcribed like this.
    """
    sent: deque[Source] = deque()  # given to the transcriber, in order, and not back yet
    unopened: deque[Failed] = deque()

    def audios() -> Iterator[Path | bytes]:
        for source in sources:
            try:
                audio = source.open()
            except Exception as error:
                unopened.append(Failed(source, error))
                continue
            sent.append(source)
            yield audio

    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    results = whisper.transcribe.map(
        audios(), return_exceptions=True, **{k: v for k, v in given.items() if v is not None}
    )
    try:
        for result in results:
            while unopened:
                yield unopened.popleft()
            yield _outcome(sent.popleft(), result)
        yield from unopened
    finally:
        if isinstance(results, Generator):
            results.close()


_OF_ALL = (ModelError, OptionError, Closed)


def _is_of_all(error: BaseException) -> bool:
    """Whether it is not one recording's: every other would fail as well."""
    if isinstance(error, EngineError):
        return error.none_left
    return isinstance(error, _OF_ALL) or not isinstance(error, Exception)


def _outcome(source: Source, result: Transcript | BaseException) -> Transcribed | Failed:
    if not isinstance(result, BaseException):
        return Transcribed(source, dataclasses.replace(result, name=source.name))
    if _is_of_all(result) or not isinstance(result, Exception):
        raise result
    return Failed(source, result)


@dataclass(frozen=True)
class Figures:
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
