"""One recording's transcript while its windows are decoded, in whatever order they are done.

It has the only lock over what several threads add to a transcript: the thread that reads says which
windows there are, the threads that take results say what they became. Knows no audio, no engine
and no queue.
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
    """Takes decoded windows, gives segments as they become ready, and at last the transcript.

    Args:
        model: the model's tokens.
        options: of the recording.
        future: gets the transcript, or the first error.
        on_segment: called with each segment when it is ready.
        calls: where that is called, one call after another; None where there is nobody to call.
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
        """What the recording is called in errors and in the transcript."""
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
        # Reentrant: the recording may be given up by the garbage collector, anywhere.
        self._lock = threading.RLock()
        self._failed = False
        self._n_pending = 1  # windows not decoded, and one for the end of the recording
        self._duration_s = 0.0
        self._warnings: tuple[str, ...] = ()

    @property
    def n_pending(self) -> int:
        """How many windows are not decoded yet; one more while the recording is being read."""
        return self._n_pending

    def expect(self, batch: WindowBatch) -> None:
        """Windows that will be decoded; called before any of them can be done."""
        with self._lock:
            for each in batch.windows:
                self._assembly.expect(each.channel, each.window.start_s)
            self._assembly.advance(batch.watermarks_s)
            self._n_pending += len(batch.windows)
        self._give_ready()

    def add(self, position: WindowPosition, window: DecodedWindow) -> None:
        """A window that was decoded."""
        with self._lock:
            self._assembly.decoded(position.channel, position.index, window)
        self._give_ready()
        self._one_less()

    def end(self, duration_s: float, warnings: Sequence[str]) -> None:
        """No more windows will be expected: so much was read, and this should be known of it."""
        with self._lock:
            self._duration_s, self._warnings = duration_s, tuple(warnings)
            self._assembly.end()
        self._give_ready()
        self._one_less()

    def fail(self, error: BaseException) -> None:
        """End the recording with an error, unless it has ended; the first one counts."""
        with self._lock:
            if self._failed or self._future.done():
                return
            self._failed = True  # the future says so only a moment later
        if self._future.set_running_or_notify_cancel():
            self._future.set_exception(error)

    def _give_ready(self) -> None:
        with self._lock:
            for segment in self._assembly.ready():
                if self._calls is not None:
                    self._calls.submit(partial(self._tell, segment))

    def _one_less(self) -> None:
        with self._lock:
            self._n_pending -= 1
            if self._n_pending:
                return
        if self._calls is None:
            self._complete()
        else:  # after the last segment was told
            self._calls.submit(self._complete)

    def _tell(self, segment: Segment) -> None:
        if self._on_segment is None or self._future.done():
            return
        try:
            self._on_segment(segment)
        except BaseException as error:
            failure = CallbackError(
                f"{self.name}: on_segment failed on segment {segment.id}: {error!r}; "
                "the recording was given up"
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
