"""The protocol of a backend, which transcribes recordings for `Whisper`.

The backend of this package runs engines in this process (`batched_whisper.backends.local`). A
remote backend, over HTTP or Ray actors, implements the same methods; nothing else in `Whisper`
depends on the difference. Knows no model and no engine.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from batched_whisper.audio.decode import AudioSource
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.config.options import DecodingOptions
from batched_whisper.models.model_files import Source
from batched_whisper.types import OnSegment, Transcript


@dataclass(frozen=True)
class WhisperInfo:
    """The loaded model, its engine and device, and the reasons for their choice (``why``)."""

    model: str
    revision: str | None
    source: Source
    engine: str
    device: str
    precision: str
    threads: int
    max_batch_size: int
    why: tuple[str, ...]


@runtime_checkable
class Backend(Protocol):
    """Transcribes recordings. Any number of threads may call all methods concurrently."""

    @property
    def is_loaded(self) -> bool:
        """Whether `submit` and `info` return without loading anything first.

        If False, callers on an event loop call `load` on another thread before them.
        """

    @property
    def max_windows(self) -> int:
        """The most windows of 30 s that are decoded together; known before `load`.

        ``map`` has twice as many recordings in flight. A remote backend returns the number of
        recordings that it may send at a time.
        """

    @property
    def info(self) -> WhisperInfo:
        """The loaded model and its engine; loads it if necessary. Errors as for `load`."""

    @property
    def stats(self) -> LoopStats:
        """The counters now; zeros before `load` and after `close`.

        A remote backend leaves those that it does not know at zero.
        """

    def load(self) -> None:
        """Load the model, once; block until it is ready. May be repeated.

        A remote backend connects here, and checks that it has the requested model.

        Raises:
            ModelError: the model cannot be found, read or verified.
            EngineError: no engine can run it, or it cannot be reached.
            Closed: it was closed before.
        """

    def submit(
        self,
        audio: AudioSource,
        options: DecodingOptions,
        *,
        sampling_rate: int | None = None,
        on_segment: OnSegment | None = None,
        user_callbacks: bool = False,
    ) -> Future[Transcript]:
        """Start to transcribe a recording; load the model first if necessary.

        The future always completes, with the transcript or with an error of
        `batched_whisper.errors`. Cancelling it cancels the recording, wherever it is decoded. A
        remote backend sends ``options`` unchanged: decoding depends on nothing else.

        Args:
            audio: any form that `Whisper.submit` accepts. A remote backend reads files here and
                sends their bytes unchanged, and arrays as 16 kHz mono float32 samples.
            options: complete; no other default applies.
            sampling_rate: of an array, in samples per second; default: 16000.
            on_segment: called with each segment in chronological order, one call at a time, before
                the future is done. It may block, so it must not be called on a thread that other
                recordings need. An error in it fails the recording with a `CallbackError`.
            user_callbacks: whether callbacks of the future may block too, and must be called on
                threads that no other work waits for. Otherwise they must return immediately.

        Raises:
            Closed: it was closed.
            ModelError, EngineError: as for `load`, if it was not loaded.
        """

    def close(self) -> None:
        """Answer all accepted recordings, then free everything. May be repeated.

        In a callback of one of its own recordings it returns immediately. A backend that is no
        longer referenced must be closed too. At the end of the process, accepted recordings are
        cancelled (`batched_whisper.concurrency.process_end`).
        """
