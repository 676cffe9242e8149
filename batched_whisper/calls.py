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
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from batched_whisper.audio.decode import AudioSource
from batched_whisper.audio.sources import check_several
from batched_whisper.concurrency.bounded_map import Inputs, Mapper
from batched_whisper.config.option_docs import shows_options_of
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.engines.factory import max_concurrent_windows
from batched_whisper.types import OnSegment, Segment, Transcript

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from batched_whisper.config.keyword_types import DecodingArguments


class Submits(Protocol):
    """A model, as these calls know it."""

    settings: Settings

    @property
    def _is_loaded(self) -> bool:
        """Whether a recording can be submitted at once."""

    def load(self) -> object:
        """Make it so; blocks."""

    def _decoding(
        self, options: DecodingOptions | None, **overrides: Unpack[DecodingArguments]
    ) -> DecodingOptions:
        """The options of a call: those of the object, or else the model's, with some changed."""

    def _submit(
        self,
        audio: AudioSource,
        options: DecodingOptions,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
    ) -> Future[Transcript]:
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
            AudioError: the recording cannot be read, or has no sound in it.
            OptionError: an option that does not exist, is out of its range, or is not the model's.
            EngineError: the engine failed on it.
            CallbackError: ``on_segment`` raised something.
            Closed: the model was closed.
        """
        decoding = self._whisper._decoding(options, **overrides)
        future = self._whisper._submit(audio, decoding, sampling_rate, on_segment)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: let go of its windows
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
        """The same without blocking the event loop; cancelling the task drops the recording."""
        decoding = self._whisper._decoding(options, **overrides)
        if not self._whisper._is_loaded:
            await asyncio.to_thread(self._whisper.load)
        future = self._whisper._submit(audio, decoding, sampling_rate, on_segment)
        return await asyncio.wrap_future(future)


class TranscribeMap:
    """``whisper.transcribe.map``: many recordings, read lazily, a bounded number in flight."""

    def __init__(self, whisper: Submits) -> None:
        self._whisper = whisper

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
        """Transcripts of many recordings, as they are asked for.

        Args:
            audios: the recordings; may be a generator, however long.
            order_outputs: in the order of the inputs, or as they end.
            return_exceptions: give a recording's error in its place instead of raising it.
            options: for all of them; these and the others as for `Whisper.submit`.

        Raises:
            UnreadableAudio: at once, where one recording was given and not several.
            OptionError: at once too, an option that does not exist or is out of its range.
        """
        decoding = self._whisper._decoding(options, **overrides)
        mapper = self._mapper(audios, _Run(self._whisper, decoding, sampling_rate, on_segment))
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
        """The same for ``async for``; the recordings may come from an async generator."""
        decoding = self._whisper._decoding(options, **overrides)
        mapper = self._mapper(audios, _Run(self._whisper, decoding, sampling_rate, on_segment))
        return mapper.aio(audios, order_outputs=order_outputs, return_exceptions=return_exceptions)

    def _mapper(self, audios: Inputs, run: _Run) -> Mapper[Transcript]:
        check_several(audios)
        return Mapper(new_run=lambda: run, n_in_flight=_n_in_flight(self._whisper))


class TranscribeSegments:
    """``whisper.transcribe.segments``: one recording's segments while it is being decoded."""

    def __init__(self, whisper: Submits) -> None:
        self._whisper = whisper

    @shows_options_of(DecodingOptions)
    def __call__(
        self,
        audio: AudioSource,
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> Generator[Segment, None, None]:
        """The transcript's segments, each as soon as nothing earlier can come any more.

        The recording begins when the first one is asked for. Its error is raised after those that
        were sure before it; leaving the iterator gives the recording up.

        Args:
            audio: the recording; this and the others as for `Whisper.submit`.
        """
        decoding = self._whisper._decoding(options, **overrides)
        arrived: SimpleQueue[Segment | None] = SimpleQueue()
        future = self._whisper._submit(audio, decoding, sampling_rate, arrived.put)
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
        """The same for ``async for``, without blocking the event loop."""
        decoding = self._whisper._decoding(options, **overrides)
        if not self._whisper._is_loaded:
            await asyncio.to_thread(self._whisper.load)
        arrived: asyncio.Queue[Segment | None] = asyncio.Queue()
        put = partial(_put_from_elsewhere, asyncio.get_running_loop(), arrived)
        future = self._whisper._submit(audio, decoding, sampling_rate, put)
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
    return 2 * max_concurrent_windows(whisper.settings)


@dataclass(frozen=True)
class _Run:
    """Starts the recordings of one map."""

    whisper: Submits
    options: DecodingOptions
    sampling_rate: int | None
    on_segment: OnSegment | None

    def __call__(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        [audio] = arguments
        return self.whisper._submit(audio, self.options, self.sampling_rate, self.on_segment)

    async def aio(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        if not self.whisper._is_loaded:
            await asyncio.to_thread(self.whisper.load)
        return self(arguments)
