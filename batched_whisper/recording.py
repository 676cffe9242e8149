"""One recording's way through the engine: its windows out, their tokens back, its transcript.

The job runs on a worker thread, which brings the windows to the loop's queue one after another as
the audio is decoded, so that a long recording is never in memory as a whole. The loop's thread
puts the transcript together when the last window is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial

from batched_whisper.audio.decode import AudioSource, open_audio
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.sequence import DecodedTokens, SharedLanguage, WindowTask
from batched_whisper.config import DecodingOptions
from batched_whisper.errors import EmptyAudio
from batched_whisper.model_tokens import ModelTokens
from batched_whisper.transcript.segments import TimestampTokens, build_segments
from batched_whisper.types import SAMPLING_RATE, DecodedWindow, Samples, Transcript
from batched_whisper.window_source import windows_of
from batched_whisper.window_tasks import Place, WindowTasks


class RecordingJob:
    """Transcribes one recording; ``future`` gets its transcript, and gives up when cancelled."""

    def __init__(
        self,
        model: ModelTokens,
        loop: EngineLoop,
        audio: AudioSource,
        sampling_rate: int | None,
        options: DecodingOptions,
        speech_detector: Callable[[], SpeechDetector],
    ) -> None:
        self.future: Future[Transcript] = Future()
        self._speech_detector = speech_detector
        self._model = model
        self._loop = loop
        self._audio = audio
        self._sampling_rate = sampling_rate
        self._options = options
        self._lock = threading.Lock()
        self._answers: list[Future[DecodedTokens]] = []
        self._decoded: dict[int, DecodedWindow] = {}
        self._failed = False
        self._n_due = 1  # windows not answered, and one for the end of the recording
        self._name = "audio"
        self._duration_s = 0.0
        self._warnings: tuple[str, ...] = ()
        self.future.add_done_callback(self._let_go)

    def run(self) -> None:
        """Decode the recording and bring its windows to the queue; on a worker thread."""
        try:
            if not self.future.done():
                self._bring_windows()
                self._one_done()
        except BaseException as error:  # whatever it is: nobody shall wait for ever because of it
            self._fail(error)

    def _bring_windows(self) -> None:
        tasks = WindowTasks(self._model, self._options, lambda: not self.future.done())
        language = SharedLanguage()
        with open_audio(self._audio, sampling_rate=self._sampling_rate) as stream:
            self._name = stream.name
            blocks = self._measured(stream)
            for each in windows_of(blocks, self._options, self._speech_detector):
                if self.future.done():
                    return
                done = partial(self._when_decoded, tasks, tasks.place(each.window))
                self._bring(tasks.task(each.window, language), done)
            self._warnings = tuple(stream.warnings)
        if not self._duration_s:
            raise EmptyAudio(f"{self._name}: there are no samples in it")

    def _measured(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for block in blocks:
            self._duration_s += len(block) / SAMPLING_RATE
            yield block

    def _bring(self, task: WindowTask, done: Callable[[Future[DecodedTokens]], None]) -> None:
        with self._lock:
            self._n_due += 1
        answer = self._loop.submit(task, group=self)
        self._answers.append(answer)
        answer.add_done_callback(done)

    def _when_decoded(
        self, tasks: WindowTasks, place: Place, answer: Future[DecodedTokens]
    ) -> None:
        """On the loop's thread."""
        try:
            self._decoded[place.index] = tasks.decoded_window(place, answer.result())
            self._one_done()
        except CancelledError:
            return
        except BaseException as error:
            self._fail(error)

    def _one_done(self) -> None:
        with self._lock:
            self._n_due -= 1
            if self._n_due:
                return
        transcript = self._transcript()
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(transcript)

    def _transcript(self) -> Transcript:
        windows = tuple(self._decoded[index] for index in sorted(self._decoded))
        timestamps = TimestampTokens(self._model.ids.timestamp_begin)
        return Transcript(
            text="".join(window.text for window in windows).strip(),
            language=windows[0].language if windows else self._options.language or "",
            language_probability=windows[0].language_probability if windows else 0.0,
            duration_s=self._duration_s,
            segments=build_segments(windows, timestamps, self._model.tokenizer.decode),
            windows=windows,
            name=self._name,
            warnings=self._warnings,
        )

    def _fail(self, error: BaseException) -> None:
        """The first error is the recording's; its other windows are dropped."""
        with self._lock:
            if self._failed or self.future.done():
                return
            self._failed = True  # the future tells so only a moment later
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def _let_go(self, _: Future[Transcript]) -> None:
        for answer in self._answers:
            answer.cancel()
