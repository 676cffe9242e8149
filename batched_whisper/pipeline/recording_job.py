"""Transcribes one recording: sends its windows to the engine and collects their tokens.

The job runs on a reader thread, which queues the windows while the audio is decoded, so that a long
recording is never in memory as a whole. When enough of its windows are with the engine, the job
returns its thread, and is resumed when some are done. A `TranscriptBuilder` joins the results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from batched_whisper.audio.decode import AudioSource, open_audio
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest
from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.concurrency.callback_future import add_internal_callback
from batched_whisper.config.options import LANGUAGE_PER_WINDOW, DecodingOptions
from batched_whisper.errors import Closed, EmptyAudio
from batched_whisper.pipeline.decode_requests import RequestBuilder, WindowPosition
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.previous_text import WindowChain
from batched_whisper.pipeline.reader_pool import ReaderPool
from batched_whisper.pipeline.transcript_builder import TranscriptBuilder
from batched_whisper.pipeline.windowing import WindowBatch, WindowSource
from batched_whisper.types import OnSegment, Transcript

_READ_AHEAD = 2
"""The windows per channel that wait for the one before them; with fewer, reading is resumed."""


@dataclass(frozen=True)
class RecordingContext:
    """What all recordings of a loaded model share."""

    model: ModelTokens
    loops: EngineGroup
    workers: ReaderPool
    speech_detector: Callable[[], SpeechDetector]
    max_windows_ahead: int
    """The most windows of one recording that are read and not decoded yet. They bound the memory
    of a recording of any length."""
    max_windows_ahead_of_listener: int
    """The same with ``on_segment``. Windows that are decoded together finish at about the same
    time, so with fewer of them the first segments are known sooner."""
    takes_samples: bool = False
    """Whether the engines compute the features themselves."""


class RecordingJob:
    """Transcribes one recording; ``future`` gets its transcript, and can be cancelled."""

    def __init__(
        self,
        context: RecordingContext,
        audio: AudioSource,
        sampling_rate: int | None,
        options: DecodingOptions,
        on_segment: OnSegment | None = None,
        future: Future[Transcript] | None = None,
    ) -> None:
        self.future: Future[Transcript] = Future() if future is None else future
        self._context = context
        self._audio = audio
        self._sampling_rate = sampling_rate
        self._options = options
        has_listener = on_segment is not None
        calls = context.workers.serial_executor() if has_listener else None
        self._builder = TranscriptBuilder(context.model, options, self.future, on_segment, calls)
        self._max_ahead = (
            context.max_windows_ahead_of_listener if has_listener else context.max_windows_ahead
        )
        self._reading = self._read()
        # Reentrant: the garbage collector may cancel the recording at any time.
        self._pausing = threading.RLock()
        self._is_paused = False
        self._channels: list[_Channel] = []
        self._answers: set[Future[DecodedTokens]] = set()  # not done yet
        add_internal_callback(self.future, self._cancel_windows)

    # --- on a reader thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Read and queue windows, to the end or until enough of them are with the engine."""
        try:
            while not self.future.done():
                if next(self._reading, None) is None or self._pauses():
                    return
            self._reading.close()
        except BaseException as error:  # also a defect of ours: no caller must wait forever
            self._builder.fail(error)

    def _read(self) -> Generator[WindowBatch, None, None]:
        """Queue the windows of one block after another; yield after each block."""
        requests = RequestBuilder(
            self._context.model, self._options, as_samples=self._context.takes_samples
        )
        source = WindowSource(self._options, self._context.speech_detector)
        with open_audio(self._audio, sampling_rate=self._sampling_rate) as stream:
            self._builder.name = stream.name
            is_split = self._options.channels == "split"
            blocks = stream.by_channel() if is_split else (block[None] for block in stream)
            for batch in source.read(blocks):
                self._queue_windows(batch, requests)
                yield batch
            warnings = (*stream.warnings, *source.warnings)
        if not source.duration_s:
            raise EmptyAudio(f"{self._builder.name}: there are no samples in it")
        self._builder.end(source.duration_s, warnings)

    def _queue_windows(self, batch: WindowBatch, requests: RequestBuilder) -> None:
        while len(self._channels) < len(batch.watermarks_s):
            self._channels.append(self._new_channel(requests))
        self._builder.expect(batch)
        for each in batch.windows:
            if self.future.done():
                return
            chain = self._channels[each.channel].chain
            position = requests.position(each.window, each.channel)
            request = requests.request(each.window, position)
            if chain is None:
                self._send(requests, position, request, wait=True)
            else:
                chain.add(position, request)

    def _new_channel(self, requests: RequestBuilder) -> _Channel:
        chain: WindowChain | None = None
        if self._options.condition_on_previous_text:
            send = partial(self._send, requests, wait=False)
            chain = WindowChain(requests, requests.previous_text(), send)
        is_shared = self._options.language != LANGUAGE_PER_WINDOW
        return _Channel(SharedLanguage() if is_shared else None, chain)

    def _pauses(self) -> bool:
        """Return whether enough of its windows are with the engine; then it is resumed later."""
        with self._pausing:
            self._is_paused = self._has_enough() and not self.future.done()
            return self._is_paused

    def _has_enough(self) -> bool:
        if self._builder.n_pending > self._max_ahead:
            return True
        chains = [channel.chain for channel in self._channels if channel.chain is not None]
        return bool(chains) and sum(c.n_waiting for c in chains) >= _READ_AHEAD * len(chains)

    # --- on any thread --------------------------------------------------------------------------

    def _send(
        self,
        requests: RequestBuilder,
        position: WindowPosition,
        request: DecodeRequest,
        wait: bool,
    ) -> None:
        language = self._channels[position.channel].language
        answer = self._context.loops.submit(request, language=language, group=self, wait=wait)
        self._answers.add(answer)
        if self.future.done():  # cancelled before the answer was among those to cancel
            answer.cancel()
        answer.add_done_callback(partial(self._when_decoded, requests, position))

    def _resume(self, *, if_enough: bool) -> None:
        with self._pausing:
            if not self._is_paused or (self._has_enough() and not if_enough):
                return
            self._is_paused = False
        self._context.workers.resume(self)

    def _cancel_windows(self, _: Future[Transcript]) -> None:
        for answer in tuple(self._answers):
            answer.cancel()
        with suppress(Closed):
            self._resume(if_enough=True)  # to close the recording

    # --- on a loop's thread ---------------------------------------------------------------------

    def _when_decoded(
        self, requests: RequestBuilder, position: WindowPosition, answer: Future[DecodedTokens]
    ) -> None:
        """Accept a result. Words are timed on another thread, so that the engine continues."""
        self._answers.discard(answer)  # frees the attention weights that it holds
        process = partial(self._process, requests, position, answer)
        if self._options.word_timestamps:
            self._context.workers.process(process)
        else:
            process()

    # --- there, or on the thread that times words -----------------------------------------------

    def _process(
        self, requests: RequestBuilder, position: WindowPosition, answer: Future[DecodedTokens]
    ) -> None:
        try:
            window = requests.decoded_window(position, answer.result())
            self._builder.add(position, window)
            chain = self._channels[position.channel].chain
            if chain is not None:
                chain.decoded(window)
            self._resume(if_enough=False)
        except CancelledError:
            return
        except BaseException as error:
            self._builder.fail(error)


@dataclass(frozen=True)
class _Channel:
    """The state that a channel's windows share."""

    language: SharedLanguage | None
    """None if each window detects its own."""
    chain: WindowChain | None
    """The windows in order, with ``condition_on_previous_text``; else None."""
