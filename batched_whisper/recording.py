"""One recording's way through the engine: its windows out, their tokens back, its transcript.

The job runs on a worker thread, which brings the windows to the loop's queue one after another as
the audio is decoded, so that a long recording is never in memory as a whole. The loop's thread
puts the transcript together when the last window is done.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial

from batched_whisper.audio.decode import AudioSource, open_audio
from batched_whisper.audio.features import log_mel, pad_features
from batched_whisper.audio.packing import PackingOptions, windows_by_speech
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.audio.windows import cut
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.sequence import AlignedText, DecodedTokens, SharedLanguage, WindowTask
from batched_whisper.config import LANGUAGE_PER_WINDOW, DecodingOptions
from batched_whisper.decoding.audio_context import context_policy, token_limit
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.quality import (
    Attempt,
    Figures,
    Ladder,
    Thresholds,
    Verdict,
    compression_ratio,
    says_twice,
)
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.errors import EmptyAudio
from batched_whisper.models.catalog import original_repository
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.tokens.languages import language_code
from batched_whisper.tokens.prompt import prompt_tokens, sot_sequence
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.transcript.pauses import Pause, find_pauses
from batched_whisper.transcript.segments import TimestampTokens, build_segments
from batched_whisper.types import SAMPLING_RATE, DecodedWindow, Samples, Transcript, Window, Word
from batched_whisper.window_words import WindowWords

SOT_SEQUENCE_LENGTH = 4
"""At most: the start, the language, the task, and no timestamps."""


class ModelTokens:
    """What a model's recordings need to know of it: its tokens and what it may say."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
        self.dimensions = checkpoint.dimensions
        self.repository = original_repository(checkpoint.name)
        self.tokenizer = tokenizer
        self.ids = TokenIds(
            eot=tokenizer.eot,
            timestamp_begin=tokenizer.timestamp_begin,
            n_vocab=checkpoint.dimensions.n_vocab,
            no_speech=tokenizer.no_speech,
        )
        self.languages = {token: code for code, token in tokenizer.language_tokens.items()}
        self._rules = {
            timestamps: Rules(
                self.ids,
                suppress=frozenset(checkpoint.suppress_tokens) | _never_said(tokenizer),
                suppress_begin=frozenset(checkpoint.begin_suppress_tokens),
                timestamps=timestamps,
            )
            for timestamps in (False, True)
        }

    def text(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without their timestamps."""
        begin = self.ids.timestamp_begin
        return self.tokenizer.decode([token for token in tokens if token < begin])

    def rules(self, options: DecodingOptions) -> Rules:
        """What may be said with these options."""
        return self._rules[options.timestamps]


def _never_said(tokenizer: Tokenizer) -> frozenset[int]:
    """Marks that belong to prompts, as openai/whisper's SuppressTokens adds them."""
    marks = (
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
        tokenizer.no_timestamps,
        tokenizer.transcribe,
        tokenizer.translate,
    )
    return frozenset(mark for mark in marks if mark is not None)


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
        self._thresholds = Thresholds(
            options.compression_ratio_threshold,
            options.logprob_threshold,
            options.no_speech_threshold,
        )
        self._ladder = Ladder(model.dimensions.n_audio_ctx, _temperatures(options))
        self._words: WindowWords | None = None
        if options.word_timestamps:
            n_text_ctx = model.dimensions.n_text_ctx
            self._words = WindowWords(model.tokenizer, model.languages, options.task, n_text_ctx)
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
        make_task = self._task_maker()
        with open_audio(self._audio, sampling_rate=self._sampling_rate) as stream:
            self._name = stream.name
            for window in self._windows(self._measured(stream)):
                if self.future.done():
                    return
                self._bring(window, make_task(window))
            self._warnings = tuple(stream.warnings)
        if not self._duration_s:
            raise EmptyAudio(f"{self._name}: there are no samples in it")

    def _windows(self, blocks: Iterable[Samples]) -> Iterator[Window]:
        """The stretches that are transcribed: where someone speaks, or everything."""
        if not self._options.vad:
            yield from cut(blocks)
            return
        # Without overlap: what two windows share would be written twice.
        packing = PackingOptions(overlap_s=0.0)
        for each in windows_by_speech(blocks, self._speech_detector(), packing):
            yield each.window

    def _measured(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for block in blocks:
            self._duration_s += len(block) / SAMPLING_RATE
            yield block

    def _task_maker(self) -> Callable[[Window], WindowTask]:
        """What all windows of the recording have in common. Raises OptionError."""
        model, options = self._model, self._options
        tokenizer, half = model.tokenizer, model.dimensions.n_text_ctx // 2
        per_window = options.language == LANGUAGE_PER_WINDOW
        language = None
        if options.language is not None and not per_window:
            language = language_code(options.language)
        begin = partial(_after_sot, tokenizer, model.languages, options)
        language_token = None if language is None else tokenizer.language_tokens.get(language)
        if language is not None or not model.languages:
            sot_sequence(tokenizer, language, options.task)  # refuses what the model cannot do
        prefix = prompt_tokens(tokenizer, options.prompt, model.dimensions.n_text_ctx)
        room = model.dimensions.n_text_ctx - len(prefix) - SOT_SEQUENCE_LENGTH
        common = partial(
            WindowTask,
            sot=tokenizer.sot,
            after_sot=begin,
            rules=model.rules(options),
            max_tokens=min(options.max_tokens or half, room),
            prefix=prefix,
            language=language_token,
            languages=frozenset(model.languages),
            judge=self._next_attempt,
            align=self._to_align,
            judge_language=lambda found, on: self._ladder.after_language(on, found.probability),
            is_wanted=lambda: not self.future.done(),
            seed=options.seed,
            beams=Beams(options.beam_size, options.patience, options.length_penalty),
        )
        policy = context_policy(
            options.audio_context, model.repository, model.dimensions.n_audio_ctx
        )

        whole = SharedLanguage()

        def make_task(window: Window) -> WindowTask:
            n_samples = len(window.samples)
            context = policy.positions(n_samples)
            features = log_mel(window.samples, model.dimensions.n_mels, n_frames=2 * context)
            return common(
                shared_language=SharedLanguage() if per_window else whole,
                features=lambda positions: pad_features(features, 2 * positions),
                first=self._ladder.first(context, token_limit(n_samples, SAMPLING_RATE)),
            )

        return make_task

    def _verdict(self, decoded: DecodedTokens) -> Verdict:
        text = self._model.text(decoded.tokens)
        figures = Figures(
            compression_ratio(text),
            decoded.avg_logprob,
            decoded.no_speech_prob,
            decoded.ended,
            says_twice(text),
        )
        return self._thresholds.judge(figures)

    def _next_attempt(self, decoded: DecodedTokens) -> Attempt | None:
        """On the loop's thread."""
        return self._ladder.after(decoded.attempt, self._verdict(decoded))

    def _to_align(self, decoded: DecodedTokens) -> AlignedText | None:
        """On the loop's thread."""
        if self._words is None or self._verdict(decoded) is Verdict.SILENCE:
            return None
        return self._words.to_align(decoded)

    def _bring(self, window: Window, task: WindowTask) -> None:
        with self._lock:
            self._n_due += 1
        answer = self._loop.submit(task, group=self)
        self._answers.append(answer)
        pauses = () if self._words is None else find_pauses(window.samples)
        place = _Place(window.index, window.start_s, window.end_s, pauses)
        answer.add_done_callback(partial(self._when_decoded, place))

    def _when_decoded(self, place: _Place, answer: Future[DecodedTokens]) -> None:
        """On the loop's thread."""
        try:
            self._decoded[place.index] = self._window(place, answer.result())
            self._one_done()
        except CancelledError:
            return
        except BaseException as error:
            self._fail(error)

    def _window(self, place: _Place, decoded: DecodedTokens) -> DecodedWindow:
        model, found = self._model, decoded.language
        tokens = () if self._verdict(decoded) is Verdict.SILENCE else decoded.tokens
        text = model.text(tokens)
        return DecodedWindow(
            start_s=place.start_s,
            end_s=place.end_s,
            text=text,
            tokens=tokens,
            language="en" if found is None else model.languages[found.token],
            language_probability=1.0 if found is None else found.probability,
            avg_logprob=decoded.avg_logprob,
            no_speech_prob=decoded.no_speech_prob,
            compression_ratio=compression_ratio(model.text(decoded.tokens)),
            temperature=decoded.attempt.temperature,
            audio_context=decoded.attempt.audio_context,
            decodes=decoded.decodes,
            words=self._timed(place, decoded),
        )

    def _timed(self, place: _Place, decoded: DecodedTokens) -> tuple[Word, ...] | None:
        if self._words is None:
            return None
        return self._words.timed(decoded, place.pauses, place.start_s, place.end_s)

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


def _temperatures(options: DecodingOptions) -> tuple[float, ...]:
    """From the first one up to 1, as openai/whisper's command line counts them."""
    first, increment = options.temperature, options.temperature_increment
    if not increment:
        return (first,)
    n_more = max(0, math.floor((1 - first) / increment + 1e-6))
    return tuple(round(first + i * increment, 6) for i in range(n_more + 1))


@dataclass(frozen=True)
class _Place:
    """Where a window stands in its recording."""

    index: int
    start_s: float
    end_s: float
    pauses: tuple[Pause, ...] = ()


def _after_sot(
    tokenizer: Tokenizer,
    languages: Mapping[int, str],
    options: DecodingOptions,
    language: int | None,
) -> tuple[int, ...]:
    code = None if language is None else languages[language]
    return sot_sequence(tokenizer, code, options.task, options.timestamps)[1:]
