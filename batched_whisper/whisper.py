"""``class Whisper``: the public API, over a backend."""

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
        model: a name on the Hub, a short name (``base``, ``large-v3``) or a folder. Default:
            large-v3 on a GPU, base on a CPU.
        settings: the settings to start from. Default: environment variables, then the defaults
            of the settings.
        backend: transcribes instead of a model in this process. It has its own model and
            settings, so none may be given here.
        overrides: single settings by name, which override those.

    Environment variables are read only here: `settings` are the model's, and `options` are the
    defaults of its calls.

    The model is loaded by the first call, by `load`, or by entering a ``with`` block, and closed by
    `close`. Any number of threads and event loops may call it.

    Raises:
        OptionError: an option does not exist, or is out of its range.
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
        """Find and read the model and start its engine, once; return this object.

        Raises:
            ModelError: the model cannot be found, read or verified.
            EngineError: no engine can run it on this machine.
            Closed: it was closed before.
        """
        self._backend.load()
        return self

    def close(self) -> None:
        """Answer all accepted recordings, then stop the engine and free its memory.

        In a callback of one of its own recordings it returns immediately. A model that is no longer
        referenced is closed too. At the end of the process, accepted recordings are cancelled.
        """
        self._backend.close()

    @property
    def transcribe(self) -> Transcribe:
        """The ways to transcribe; it keeps the model alive, even without this object."""
        return Transcribe(self._backend, self.options)

    @property
    def info(self) -> WhisperInfo:
        """The loaded model and its engine; loads it if necessary."""
        return self._backend.info

    @property
    def stats(self) -> LoopStats:
        """The counters of batching now; zeros before `load` and after `close`."""
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
        """Transcribe all recordings, in order; see `Transcribe.__call__` for details."""
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
        """Start to transcribe a recording; cancel the future to cancel the recording.

        Callbacks of the future may block, and may transcribe other recordings.

        Args:
            audio: a path, bytes, a binary file, an array of samples, or a row or audio value of
                a dataset.
            options: the options to start from. Default: those of this `Whisper`.
            sampling_rate: of an array, in samples per second; default: 16000.
            on_segment: called with each final segment, in order, one call at a time; it may block.
                The future is done after the last call. An error in it fails the recording with a
                `CallbackError`.
            overrides: single options by name, which override those.
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
