"""``whisper.transcribe``: transcribes one recording or many, synchronously or asynchronously.

All calls end in the backend's ``submit``. Knows nothing of how a recording is transcribed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, overload

from batched_whisper.audio.decode import AudioSource
from batched_whisper.audio.sources import check_several
from batched_whisper.backends.base import Backend
from batched_whisper.concurrency.bounded_map import Inputs, Mapper
from batched_whisper.config.option_docs import shows_options_of
from batched_whisper.config.options import DecodingOptions
from batched_whisper.types import OnSegment, Segment, Transcript

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from batched_whisper.config.keyword_types import DecodingArguments


@dataclass(frozen=True)
class _Caller:
    """The backend of one `Whisper`, and the default options of its calls."""

    backend: Backend
    options: DecodingOptions

    @property
    def n_in_flight(self) -> int:
        """The recordings in flight, enough for each free slot to find a window that was read."""
        return 2 * self.backend.max_windows

    def decoding(
        self, options: DecodingOptions | None, **overrides: Unpack[DecodingArguments]
    ) -> DecodingOptions:
        """Return the options of a call: the given ones or the model's, with overrides."""
        start = self.options if options is None else options
        return DecodingOptions.from_base(start, **overrides)

    async def load(self) -> None:
        """Load the model if necessary, without blocking the event loop."""
        if not self.backend.is_loaded:
            await asyncio.to_thread(self.backend.load)


class Transcribe:
    """``whisper.transcribe``: one recording or many, synchronously or asynchronously.

    ``whisper.transcribe(audio)``, ``await whisper.transcribe.aio(audio)``,
    ``whisper.transcribe.map(audios)``, ``async for t in whisper.transcribe.map.aio(audios)``,
    ``whisper.transcribe.segments(audio)``, and for ``async for`` ``.segments.aio(audio)``.
    """

    def __init__(self, backend: Backend, options: DecodingOptions) -> None:
        self._caller = _Caller(backend, options)
        self.map = TranscribeMap(self._caller)
        self.segments = TranscribeSegments(self._caller)

    @property
    def n_in_flight(self) -> int:
        """The most recordings of a run of ``map`` that are started and not yielded yet."""
        return self._caller.n_in_flight

    @shows_options_of(DecodingOptions)
    def __call__(
        self,
        audio: AudioSource,
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> Transcript:
        """Transcribe one recording; arguments as for `Whisper.submit`.

        Raises:
            AudioError: the recording cannot be read, or has no samples.
            OptionError: an option does not exist, is out of its range, or does not fit the model.
            EngineError: the engine failed on it.
            CallbackError: ``on_segment`` raised an error.
            Closed: the model was closed.
        """
        decoding = self._caller.decoding(options, **overrides)
        future = self._caller.backend.submit(
            audio, decoding, sampling_rate=sampling_rate, on_segment=on_segment
        )
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: cancel its windows
            future.cancel()
            raise

    @shows_options_of(DecodingOptions)
    async def aio(
        self,
        audio: AudioSource,
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> Transcript:
        """Do the same without blocking the event loop; a cancelled task cancels the recording."""
        decoding = self._caller.decoding(options, **overrides)
        await self._caller.load()
        future = self._caller.backend.submit(
            audio, decoding, sampling_rate=sampling_rate, on_segment=on_segment
        )
        return await asyncio.wrap_future(future)


class TranscribeMap:
    """``whisper.transcribe.map``: many recordings, read lazily, a bounded number in flight."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    @overload
    def __call__(
        self,
        audios: Iterable[AudioSource],
        *,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
        options: DecodingOptions | None = ...,
        sampling_rate: int | None = ...,
        on_segment: OnSegment | None = ...,
        **overrides: Unpack[DecodingArguments],
    ) -> Generator[Transcript, None, None]: ...
    @overload
    def __call__(
        self,
        audios: Iterable[AudioSource],
        *,
        order_outputs: bool = ...,
        return_exceptions: bool,
        options: DecodingOptions | None = ...,
        sampling_rate: int | None = ...,
        on_segment: OnSegment | None = ...,
        **overrides: Unpack[DecodingArguments],
    ) -> Generator[Transcript | Exception, None, None]: ...
    @shows_options_of(DecodingOptions)
    def __call__(
        self,
        audios: Iterable[AudioSource],
        *,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> Generator[Transcript | Exception, None, None]:
        """Yield the transcripts of many recordings.

        Args:
            audios: the recordings; may be a generator of any length.
            order_outputs: true for the order of the inputs, false for completion order.
            return_exceptions: yield a recording's error in its place instead of raising it.
            options: for all recordings; this and the others as for `Whisper.submit`.

        Raises:
            UnreadableAudio: immediately, if ``audios`` is one recording and not an iterable.
            OptionError: immediately, if an option does not exist or is out of its range.
        """
        decoding = self._caller.decoding(options, **overrides)
        mapper = self._mapper(audios, _MapRun(self._caller, decoding, sampling_rate, on_segment))
        return mapper(audios, order_outputs=order_outputs, return_exceptions=return_exceptions)

    @overload
    def aio(
        self,
        audios: Inputs,
        *,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
        options: DecodingOptions | None = ...,
        sampling_rate: int | None = ...,
        on_segment: OnSegment | None = ...,
        **overrides: Unpack[DecodingArguments],
    ) -> AsyncGenerator[Transcript, None]: ...
    @overload
    def aio(
        self,
        audios: Inputs,
        *,
        order_outputs: bool = ...,
        return_exceptions: bool,
        options: DecodingOptions | None = ...,
        sampling_rate: int | None = ...,
        on_segment: OnSegment | None = ...,
        **overrides: Unpack[DecodingArguments],
    ) -> AsyncGenerator[Transcript | Exception, None]: ...
    @shows_options_of(DecodingOptions)
    def aio(
        self,
        audios: Inputs,
        *,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> AsyncGenerator[Transcript | Exception, None]:
        """Do the same for ``async for``; the recordings may come from an async generator."""
        decoding = self._caller.decoding(options, **overrides)
        mapper = self._mapper(audios, _MapRun(self._caller, decoding, sampling_rate, on_segment))
        return mapper.aio(audios, order_outputs=order_outputs, return_exceptions=return_exceptions)

    def _mapper(self, audios: Inputs, run: _MapRun) -> Mapper[Transcript]:
        check_several(audios)
        return Mapper(new_run=lambda: run, n_in_flight=self._caller.n_in_flight)


class TranscribeSegments:
    """``whisper.transcribe.segments``: a recording's segments while it is being decoded."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    @shows_options_of(DecodingOptions)
    def __call__(
        self,
        audio: AudioSource,
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> Generator[Segment, None, None]:
        """Yield the transcript's segments in order, each as soon as it is final.

        The recording starts when the first segment is requested. An error is raised after the
        segments that were final before it. Closing the iterator cancels the recording.

        Args:
            audio: the recording; this and the others as for `Whisper.submit`.
        """
        decoding = self._caller.decoding(options, **overrides)
        arrived: SimpleQueue[Segment | None] = SimpleQueue()
        future = self._caller.backend.submit(
            audio, decoding, sampling_rate=sampling_rate, on_segment=arrived.put
        )
        future.add_done_callback(lambda _: arrived.put(None))
        try:
            while (segment := arrived.get()) is not None:
                yield segment
            future.result()
        finally:
            future.cancel()

    @shows_options_of(DecodingOptions)
    async def aio(
        self,
        audio: AudioSource,
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> AsyncGenerator[Segment, None]:
        """Do the same for ``async for``, without blocking the event loop."""
        decoding = self._caller.decoding(options, **overrides)
        await self._caller.load()
        arrived: asyncio.Queue[Segment | None] = asyncio.Queue()
        put = partial(_put_from_elsewhere, asyncio.get_running_loop(), arrived)
        future = self._caller.backend.submit(
            audio, decoding, sampling_rate=sampling_rate, on_segment=put
        )
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
    """Put from another thread; ignore a closed event loop, which has no reader."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(arrived.put_nowait, segment)


@dataclass(frozen=True)
class _MapRun:
    """Starts the recordings of one run of ``map``."""

    caller: _Caller
    options: DecodingOptions
    sampling_rate: int | None
    on_segment: OnSegment | None

    def __call__(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        [audio] = arguments
        return self.caller.backend.submit(
            audio,
            self.options,
            sampling_rate=self.sampling_rate,
            on_segment=self.on_segment,
        )

    async def aio(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        await self.caller.load()
        return self(arguments)
