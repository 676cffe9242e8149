"""``class Whisper``: the public API, over a backend that does the work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING

from batched_whisper.audio.decode import AudioSource
from batched_whisper.backends.base import Backend, WhisperInfo
from batched_whisper.backends.local import LocalBackend
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.calls import Transcribe
from batched_whisper.config.option_docs import shows_options_of
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import OptionError
from batched_whisper.types import OnSegment, Transcript

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from batched_whisper.config.keyword_types import DecodingArguments, SettingArguments


@shows_options_of(Settings)
class Whisper:
    """A Whisper model that transcribes many recordings together.

    Args:
        model: a name on the Hub, a short name (``base``, ``large-v3``) or a folder. Not given:
            large-v3 on a GPU, base on a CPU.
        settings: the settings to start from. Not given: the defaults, and what the environment
            says instead.
        backend: what transcribes, instead of a model in this process. It has its own model and
            settings, so none are given here.
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
        backend: Backend | None = None,
        **overrides: Unpack[SettingArguments],
    ) -> None:
        if backend is not None and (model is not None or settings is not None or overrides):
            raise OptionError("backend= has its own model and settings: give those to the backend")
        named = {} if model is None else {"model": os.fspath(model)}
        start = Settings.from_environment() if settings is None else settings
        self.settings = Settings.from_base(start, **named, **overrides)
        self.options = DecodingOptions.from_environment()
        self._backend = LocalBackend(self.settings) if backend is None else backend

    def load(self) -> Whisper:
        """Find and read the model and start its engine, once; returns itself.

        Raises:
            ModelError: the model cannot be found, read or trusted.
            EngineError: no engine can run it on this machine.
            Closed: it was closed before.
        """
        self._backend.load()
        return self

    def close(self) -> None:
        """Answer what was accepted, then stop the engine and give back its memory.

        In a callback of a recording of its own it does not wait for that. A model that nobody has
        any more is closed too; at the end of the process what was accepted is given up.
        """
        self._backend.close()

    @property
    def transcribe(self) -> Transcribe:
        """The ways to call it; what it gives keeps the model, even if this object is dropped."""
        return Transcribe(self._backend, self.options)

    @property
    def info(self) -> WhisperInfo:
        """What is loaded and where it runs; loads it if need be."""
        return self._backend.info

    @property
    def stats(self) -> LoopStats:
        """The batcher's figures of this moment."""
        return self._backend.stats

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
        start = self.options if options is None else options
        return self._backend.submit(
            audio,
            DecodingOptions.from_base(start, **overrides),
            sampling_rate=sampling_rate,
            on_segment=on_segment,
            user_callbacks=True,
        )

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
