"""One recording's way through the engine: its windows out, their tokens back, its transcript.

The job runs on a worker thread, which brings the windows to the loop's queue as the audio is
decoded, so that a long recording is never in memory as a whole. A loop's thread puts the
transcript together when the last window is done. Where each window is told what was said before
it, the job reads a little and is resumed when that is used up, so that it holds no thread.
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
from batched_whisper.errors import CallbackError, Closed, EmptyAudio
from batched_whisper.pipeline.decode_requests import RequestBuilder, WindowPosition
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.previous_text import Send, WindowChain
from batched_whisper.pipeline.reader_pool import ReaderPool
from batched_whisper.pipeline.windowing import WindowBatch, WindowSource
from batched_whisper.tokens.languages import language_code_or_none
from batched_whisper.transcript.assembly import Assembly
from batched_whisper.transcript.segments import TimestampTokens, window_segments
from batched_whisper.transcript.stitching import Stitcher
from batched_whisper.types import OnSegment, Segment, Transcript

_READ_AHEAD = 2
"""Windows of each channel that wait for the one before them, before reading is resumed."""


@dataclass(frozen=True)
class RecordingContext:
    """What all recordings of a loaded model share."""

    model: ModelTokens
    loops: EngineGroup
    workers: ReaderPool
    speech_detector: Callable[[], SpeechDetector]
    max_windows_ahead: int
    """Windows of one recording that are not decoded yet, before its reading is resumed: what they
    take of the memory is all that a recording of any length does."""
    max_windows_ahead_of_listener: int
    """And where someone is told the segments as they come: what is decoded together is done at
    about the same time, so that of fewer windows the first are known sooner."""
    takes_samples: bool = False
    """Whether the engines make features themselves."""


class RecordingJob:
    """Transcribes one recording; ``future`` gets its transcript, and gives up when cancelled."""

    def __init__(
        self,
        means: RecordingContext,
        audio: AudioSource,
        sampling_rate: int | None,
        options: DecodingOptions,
        on_segment: OnSegment | None = None,
        future: Future[Transcript] | None = None,
    ) -> None:
        self.future: Future[Transcript] = Future() if future is None else future
        self._means = means
        self._audio = audio
        self._sampling_rate = sampling_rate
        self._options = options
        self._on_segment = on_segment
        is_heard = on_segment is not None
        self._calls = means.workers.serial_executor() if is_heard else None
        self._most_ahead = (
            means.max_windows_ahead_of_listener if is_heard else means.max_windows_ahead
        )
        timestamps = TimestampTokens(means.model.ids.timestamp_begin)
        tokenizer = means.model.tokenizer
        self._assembly = Assembly(
            partial(window_segments, timestamps=timestamps, decode=tokenizer.decode),
            Stitcher(timestamps, tokenizer.decode, tokenizer.decode_bytes).stitch,
            is_split=options.channels == "split",
        )
        # Reentrant: the recording may be given up by the garbage collector, anywhere.
        self._lock = threading.RLock()
        self._reading = self._read()
        self._is_paused = False
        self._channels: list[_Channel] = []
        self._answers: set[Future[DecodedTokens]] = set()  # that are awaited
        self._failed = False
        self._n_due = 1  # windows not answered, and one for the end of the recording
        self._name = "audio"
        self._duration_s = 0.0
        self._warnings: tuple[str, ...] = ()
        add_internal_callback(self.future, self._let_go)

    # --- on a worker thread --------------------------------------------------------------------

    def run(self) -> None:
        """Read on and bring windows: to the end, or until enough of them wait."""
        try:
            while not self.future.done():
                if next(self._reading, None) is None:
                    self._end()
                    return
                if self._pauses():
                    return
            self._reading.close()
        except BaseException as error:  # whatever it is: nobody shall wait for ever because of it
            self._fail(error)

    def _read(self) -> Generator[WindowBatch, None, None]:
        """Bring the windows of one block after another; may be left after each."""
        tasks = RequestBuilder(
            self._means.model, self._options, as_samples=self._means.takes_samples
        )
        source = WindowSource(self._options, self._means.speech_detector)
        with open_audio(self._audio, sampling_rate=self._sampling_rate) as stream:
            self._name = stream.name
            is_split = self._options.channels == "split"
            blocks = stream.by_channel() if is_split else (block[None] for block in stream)
            for found in source.read(blocks):
                self._bring(found, tasks)
                yield found
            self._warnings = (*stream.warnings, *source.warnings)
        self._duration_s = source.duration_s
        if not self._duration_s:
            raise EmptyAudio(f"{self._name}: there are no samples in it")

    def _bring(self, found: WindowBatch, tasks: RequestBuilder) -> None:
        self._announce(found, tasks)
        for each in found.windows:
            if self.future.done():
                return
            channel = self._channels[each.channel]
            place = tasks.position(each.window, each.channel)
            task = tasks.request(each.window, place)
            if channel.chain is None:
                self._send(tasks, place, task, wait=True)
            else:
                channel.chain.add(place, task)

    def _announce(self, found: WindowBatch, tasks: RequestBuilder) -> None:
        """Before any of its windows can be done: what is ready depends on all of them."""
        send = partial(self._send, tasks, wait=False)
        with self._lock:
            while len(self._channels) < len(found.watermarks_s):
                self._channels.append(_Channel(SharedLanguage(), self._new_chain(tasks, send)))
            for each in found.windows:
                self._assembly.expect(each.channel, each.window.start_s)
            self._assembly.advance(found.watermarks_s)
            self._n_due += len(found.windows)
        self._give()

    def _end(self) -> None:
        with self._lock:
            self._assembly.end()
        self._give()
        self._one_done()

    def _new_chain(self, tasks: RequestBuilder, send: Send) -> WindowChain | None:
        if not self._options.condition_on_previous_text:
            return None
        return WindowChain(tasks, tasks.previous_text(), send)

    def _pauses(self) -> bool:
        """Whether enough of its windows are with the engine; then it is resumed later."""
        with self._lock:
            self._is_paused = self._has_enough() and not self.future.done()
            return self._is_paused

    def _has_enough(self) -> bool:
        if self._n_due > self._most_ahead:
            return True
        chains = [channel.chain for channel in self._channels if channel.chain is not None]
        return bool(chains) and sum(c.n_waiting for c in chains) >= _READ_AHEAD * len(chains)

    # --- on any thread -------------------------------------------------------------------------

    def _send(
        self, tasks: RequestBuilder, place: WindowPosition, task: DecodeRequest, wait: bool
    ) -> None:
        per_window = self._options.language == LANGUAGE_PER_WINDOW
        language = None if per_window else self._channels[place.channel].language
        answer = self._means.loops.submit(task, language=language, group=self, wait=wait)
        self._answers.add(answer)
        if self.future.done():  # it was given up before the answer was among those to cancel
            answer.cancel()
        answer.add_done_callback(partial(self._when_decoded, tasks, place))

    def _give(self) -> None:
        """Have the caller told what became ready."""
        with self._lock:
            for segment in self._assembly.ready():
                if self._calls is not None:
                    self._calls.submit(partial(self._tell, segment))

    def _one_done(self) -> None:
        with self._lock:
            self._n_due -= 1
            if self._n_due:
                return
        if self._calls is None:
            self._complete()
        else:
            self._calls.submit(self._complete)

    def _resume(self, *, if_enough: bool) -> None:
        with self._lock:
            if not self._is_paused or (self._has_enough() and not if_enough):
                return
            self._is_paused = False
        self._means.workers.resume(self)

    def _fail(self, error: BaseException) -> None:
        """The first error is the recording's; its other windows are dropped."""
        with self._lock:
            if self._failed or self.future.done():
                return
            self._failed = True  # the future tells so only a moment later
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def _let_go(self, _: Future[Transcript]) -> None:
        for answer in tuple(self._answers):
            answer.cancel()
        with suppress(Closed):
            self._resume(if_enough=True)  # to close the recording

    # --- on a loop's thread, and where the caller is told, on its own ------------------------

    def _when_decoded(
        self, tasks: RequestBuilder, place: WindowPosition, answer: Future[DecodedTokens]
    ) -> None:
        self._answers.discard(answer)  # with all that words were timed by
        try:
            window = tasks.decoded_window(place, answer.result())
            with self._lock:
                self._assembly.decoded(place.channel, place.index, window)
            self._give()
            chain = self._channels[place.channel].chain
            if chain is not None:
                chain.decoded(window)
            self._one_done()
            self._resume(if_enough=False)
        except CancelledError:
            return
        except BaseException as error:
            self._fail(error)

    def _tell(self, segment: Segment) -> None:
        if self._on_segment is None or self.future.done():
            return
        try:
            self._on_segment(segment)
        except BaseException as error:
            failure = CallbackError(
                f"{self._name}: on_segment failed on segment {segment.id}: {error!r}; "
                "the recording was given up"
            )
            failure.__cause__ = error
            self._fail(failure)

    def _complete(self) -> None:
        try:
            transcript = self._transcript()
        except BaseException as error:
            self._fail(error)
            return
        with self._lock:
            if self._failed:
                return
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(transcript)

    def _transcript(self) -> Transcript:
        windows, segments = self._assembly.windows, tuple(self._assembly.segments)
        if self._options.channels == "split":
            text = " ".join(segment.text.strip() for segment in segments)
        else:
            text = "".join(window.text for window in windows).strip()
        return Transcript(
            text=text,
            language=windows[0].language
            if windows
            else language_code_or_none(self._options.language) or "",
            language_probability=windows[0].language_probability if windows else 0.0,
            duration=self._duration_s,
            segments=segments,
            windows=windows,
            name=self._name,
            warnings=self._warnings,
        )


@dataclass(frozen=True)
class _Channel:
    """What a channel's windows share."""

    language: SharedLanguage
    chain: WindowChain | None
    """Where each is told what was said before it."""
