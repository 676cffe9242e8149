"""``whisper.transcribe``: the ways to call a model, waiting or not, one recording or many.

All of them end in the model's ``submit``. Knows nothing of how a recording is transcribed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from batched_whisper.audio.decode import AudioSource
from batched_whisper.audio.sources import check_several
from batched_whisper.batching.mapping import Inputs, Mapper
from batched_whisper.config import Settings
from batched_whisper.engines.factory import most_windows
from batched_whisper.types import Segment, Transcript

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from batched_whisper.arguments import ReadingArguments, TranscribeArguments


class Submits(Protocol):
    """A model, as these calls know it."""

    settings: Settings

    @property
    def _is_loaded(self) -> bool:
        """Whether a recording can be submitted at once."""

    def load(self) -> object:
        """Make it so; blocks."""

    def _submit(self, audio: AudioSource, **options: Any) -> Future[Transcript]:
        """Start to transcribe a recording; its callbacks, which must return at once, hold it up."""


class Transcribe:
    """``whisper.transcribe``: one recording, or many; waiting, or not.

    ``whisper.transcribe(audio)``, ``await whisper.transcribe.aio(audio)``,
    ``whisper.transcribe.map(audios)``, ``async for t in whisper.transcribe.map.aio(audios)``,
    ``whisper.transcribe.segments(audio)``, and for ``async for`` ``.segments.aio(audio)``.
    """

    def __init__(self, whisper: Submits) -> None:
        self._whisper = whisper
        self.map = TranscribeMap(whisper)
        self.segments = TranscribeSegments(whisper)

    @property
    def n_in_flight(self) -> int:
        """How many recordings a run of ``map`` has begun and not given yet, at most."""
        return _n_in_flight(self._whisper)

    def __call__(self, audio: AudioSource, **options: Unpack[TranscribeArguments]) -> Transcript:
        """Transcribe one recording; options as for `Whisper.submit`.

        Raises:
            AudioError: the recording cannot be read, or has no sound in it.
            OptionError: an option that does not exist, is out of its range, or is not the model's.
            EngineError: the engine failed on it.
            CallbackError: ``on_segment`` raised something.
            Closed: the model was closed.
        """
        future = self._whisper._submit(audio, **options)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: let go of its windows
            future.cancel()
            raise

    async def aio(self, audio: AudioSource, **options: Unpack[TranscribeArguments]) -> Transcript:
        """The same without blocking the event loop; cancelling the task drops the recording."""
        if not self._whisper._is_loaded:
            await asyncio.to_thread(self._whisper.load)
        return await asyncio.wrap_future(self._whisper._submit(audio, **options))


class TranscribeMap:
    """``whisper.transcribe.map``: many recordings, read lazily, a bounded number in flight."""

    def __init__(self, whisper: Submits) -> None:
        self._whisper = whisper

    def __call__(
        self,
        audios: Iterable[AudioSource],
        *,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        **options: Unpack[TranscribeArguments],
    ) -> Generator[Any, None, None]:
        """Transcripts of many recordings, as they are asked for.

        Args:
            audios: the recordings; may be a generator, however long.
            order_outputs: in the order of the inputs, or as they end.
            return_exceptions: give a recording's error in its place instead of raising it.
            options: those of `config.DecodingOptions` by name, for all of them.

        Raises:
            UnreadableAudio: at once, where one recording was given and not several.
        """
        mapper = self._mapper(audios, options)
        return mapper(audios, order_outputs=order_outputs, return_exceptions=return_exceptions)

    def aio(
        self,
        audios: Inputs,
        *,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        **options: Unpack[TranscribeArguments],
    ) -> AsyncGenerator[Any, None]:
        """The same for ``async for``; the recordings may come from an async generator."""
        mapper = self._mapper(audios, options)
        return mapper.aio(audios, order_outputs=order_outputs, return_exceptions=return_exceptions)

    def _mapper(self, audios: Inputs, options: TranscribeArguments) -> Mapper[Transcript]:
        check_several(audios)
        new_run = partial(_Run, self._whisper, options)
        return Mapper(new_run=new_run, n_in_flight=_n_in_flight(self._whisper))


class TranscribeSegments:
    """``whisper.transcribe.segments``: one recording's segments while it is being decoded."""

    def __init__(self, whisper: Submits) -> None:
        self._whisper = whisper

    def __call__(
        self, audio: AudioSource, **options: Unpack[ReadingArguments]
    ) -> Generator[Segment, None, None]:
        """The transcript's segments, each as soon as nothing earlier can come any more.

        The recording begins when the first one is asked for. Its error is raised after those that
        were sure before it; leaving the iterator gives the recording up.

        Args:
            audio: the recording; options as for `Whisper.submit`.
        """
        arrived: SimpleQueue[Segment | None] = SimpleQueue()
        future = self._whisper._submit(audio, on_segment=arrived.put, **options)
        future.add_done_callback(lambda _: arrived.put(None))
        try:
            while (segment := arrived.get()) is not None:
                yield segment
            future.result()
        finally:
            future.cancel()

    async def aio(
        self, audio: AudioSource, **options: Unpack[ReadingArguments]
    ) -> AsyncGenerator[Segment, None]:
        """The same for ``async for``, without blocking the event loop."""
        if not self._whisper._is_loaded:
            await asyncio.to_thread(self._whisper.load)
        arrived: asyncio.Queue[Segment | None] = asyncio.Queue()
        put = partial(_put_from_elsewhere, asyncio.get_running_loop(), arrived)
        future = self._whisper._submit(audio, on_segment=put, **options)
        future.add_done_callback(lambda _: put(None))
        try:
            while (segment := await arrived.get()) is not None:
                yield segment
            future.result()
        finally:
            future.cancel()


def _put_from_elsewhere(
    loop: asyncio.AbstractEventLoop,
    arrived: asyncio.Queue[Segment | None],
    segment: Segment | None,
) -> None:
    """From another thread; a loop that was closed has no reader any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(arrived.put_nowait, segment)


def _n_in_flight(whisper: Submits) -> int:
    """So many that a slot that becomes free finds a recording read."""
    return 2 * most_windows(whisper.settings)


@dataclass(frozen=True)
class _Run:
    """Starts the recordings of one map."""

    whisper: Submits
    options: TranscribeArguments

    def __call__(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        return self.whisper._submit(*arguments, **self.options)

    async def aio(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        if not self.whisper._is_loaded:
            await asyncio.to_thread(self.whisper.load)
        return self(arguments)
