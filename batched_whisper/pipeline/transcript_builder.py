"""Builds one recording's transcript while its windows are decoded, in any order.

Several threads add to a transcript under its one lock: the reading thread announces windows, and
the threads that receive results add them. Knows no audio, no engine and no queue.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from batched_whisper.concurrency.serial_executor import SerialExecutor
from batched_whisper.config.options import DecodingOptions
from batched_whisper.errors import CallbackError
from batched_whisper.pipeline.decode_requests import WindowPosition
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.windowing import WindowBatch
from batched_whisper.tokens.languages import language_code_or_none
from batched_whisper.transcript.assembly import Assembly
from batched_whisper.transcript.segments import TimestampTokens, window_segments
from batched_whisper.transcript.stitching import Stitcher
from batched_whisper.types import DecodedWindow, OnSegment, Segment, Transcript


class TranscriptBuilder:
    """Accepts decoded windows, emits final segments, and completes the transcript.

    Args:
        model: the model's tokens.
        options: the options of the recording.
        future: gets the transcript, or the first error.
        on_segment: called with each segment when it is final.
        calls: makes those calls, one after another; None without ``on_segment``.
    """

    def __init__(
        self,
        model: ModelTokens,
        options: DecodingOptions,
        future: Future[Transcript],
        on_segment: OnSegment | None = None,
        calls: SerialExecutor | None = None,
    ) -> None:
        self.name = "audio"
        """The name of the recording in errors and in the transcript."""
        self._options = options
        self._future = future
        self._on_segment = on_segment
        self._calls = calls
        tokenizer, timestamps = model.tokenizer, TimestampTokens(model.ids.timestamp_begin)
        self._assembly = Assembly(
            partial(window_segments, timestamps=timestamps, decode=tokenizer.decode),
            Stitcher(timestamps, tokenizer.decode, tokenizer.decode_bytes).stitch,
            is_split=options.channels == "split",
        )
        # Reentrant: the garbage collector may cancel the recording at any time.
        self._lock = threading.RLock()
        self._failed = False
        self._n_pending = 1  # windows not decoded yet, and one for the end of the recording
        self._duration_s = 0.0
        self._warnings: tuple[str, ...] = ()

    @property
    def n_pending(self) -> int:
        """The number of windows not decoded yet, plus one while the recording is being read."""
        return self._n_pending

    def expect(self, batch: WindowBatch) -> None:
        """Announce windows that will be decoded, before any of them can be done."""
        with self._lock:
            for each in batch.windows:
                self._assembly.expect(each.channel, each.window.start_s)
            self._assembly.advance(batch.watermarks_s)
            self._n_pending += len(batch.windows)
        self._give_ready()

    def add(self, position: WindowPosition, window: DecodedWindow) -> None:
        """Add a decoded window."""
        with self._lock:
            self._assembly.decoded(position.channel, position.index, window)
        self._give_ready()
        self._one_less()

    def end(self, duration_s: float, warnings: Sequence[str]) -> None:
        """Announce the end: no more windows follow. Set the duration and the warnings."""
        with self._lock:
            self._duration_s, self._warnings = duration_s, tuple(warnings)
            self._assembly.end()
        self._give_ready()
        self._one_less()

    def fail(self, error: BaseException) -> None:
        """Fail the recording, unless it is done; the first error counts."""
        with self._lock:
            if self._failed or self._future.done():
                return
            self._failed = True  # the future is failed only after the lock is released
        if self._future.set_running_or_notify_cancel():
            self._future.set_exception(error)

    def _give_ready(self) -> None:
        with self._lock:
            for segment in self._assembly.ready():
                if self._calls is not None:
                    self._calls.submit(partial(self._call_on_segment, segment))

    def _one_less(self) -> None:
        with self._lock:
            self._n_pending -= 1
            if self._n_pending:
                return
        if self._calls is None:
            self._complete()
        else:  # after the call with the last segment
            self._calls.submit(self._complete)

    def _call_on_segment(self, segment: Segment) -> None:
        if self._on_segment is None or self._future.done():
            return
        try:
            self._on_segment(segment)
        except BaseException as error:
            failure = CallbackError(
                f"{self.name}: on_segment failed on segment {segment.id}: {error!r}; "
                "the recording was cancelled"
            )
            failure.__cause__ = error
            self.fail(failure)

    def _complete(self) -> None:
        try:
            transcript = self._transcript()
        except BaseException as error:
            self.fail(error)
            return
        with self._lock:
            if self._failed:
                return
        if self._future.set_running_or_notify_cancel():
            self._future.set_result(transcript)

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
            name=self.name,
            warnings=self._warnings,
        )
