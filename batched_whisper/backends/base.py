"""The protocol of a backend: what `Whisper` needs from whatever transcribes its recordings.

The backend of this package runs engines in this process (`batched_whisper.backends.local`). One
that sends recordings elsewhere, over HTTP or to Ray actors, implements the same methods; nothing
else of `Whisper` knows the difference. Knows no model and no engine.
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


@runtime_checkable
class Backend(Protocol):
    """Transcribes recordings. All methods may be called from any number of threads at a time."""

    @property
    def is_loaded(self) -> bool:
        """Whether `submit` and `info` return without loading anything first.

        Where it is False, callers on an event loop call `load` on another thread before them.
        """

    @property
    def max_windows(self) -> int:
        """How many windows of 30 s are decoded together at most; known before `load`.

        ``map`` has twice as many recordings in flight. A remote backend gives what it may send at
        a time.
        """

    @property
    def info(self) -> WhisperInfo:
        """What is loaded and where it runs; loads it if need be. Errors as for `load`."""

    @property
    def stats(self) -> LoopStats:
        """The figures of this moment: zeros before `load` and after `close`.

        A remote backend that does not know some of them leaves them at zero.
        """

    def load(self) -> None:
        """Make it ready, once; blocks, and may be repeated.

        A remote backend connects here, and checks that the model is the one that was asked for.

        Raises:
            ModelError: the model cannot be found, read or trusted.
            EngineError: nothing can run it, or it cannot be reached.
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
        """Start to transcribe a recording; loads if need be, and else returns soon.

        The future ends with the transcript, or with an error of `batched_whisper.errors`; it never
        stays open. To cancel it gives the recording up, wherever it is being decoded. A remote
        backend sends ``options`` as they are: they are all that decoding depends on.

        Args:
            audio: any form that `Whisper.submit` takes. A remote backend reads files here and
                sends the bytes as they are, or arrays as 16 kHz mono float32 samples.
            options: complete; no other default applies.
            sampling_rate: of an array, in samples per second; 16000 if not given.
            on_segment: called with each segment in the order of time, never two calls at a time,
                before the future is done. It may block, so it must not be called on a thread that
                others need. What it raises ends the recording with a `CallbackError`.
            user_callbacks: whether callbacks of the future may block too, and must be called on
                threads for which nobody waits. Otherwise they return at once.

        Raises:
            Closed: it was closed.
            ModelError, EngineError: as for `load`, where it was not loaded.
        """

    def close(self) -> None:
        """Answer what was accepted, then free everything. May be repeated.

        Called from a callback of one of its own recordings it does not wait for that. A backend
        that nobody has any more must be closed too, and at the end of the process what was
        accepted is cancelled (`batched_whisper.concurrency.process_end`).
        """
