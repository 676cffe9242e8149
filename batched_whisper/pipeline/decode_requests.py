"""What the engine is asked about each window of a recording, and what is made of its answers.

Options become tasks here, and tokens become decoded windows. Knows the model's tokens and the
engine's tasks; no queue, no thread, and not where windows are from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from batched_whisper.audio.features import log_mel, pad_features
from batched_whisper.batching.sequence import (
    AlignedText,
    DecodedTokens,
    DecodeRequest,
    SharedLanguage,
)
from batched_whisper.config.options import LANGUAGE_PER_WINDOW, DecodingOptions
from batched_whisper.decoding.audio_context import context_policy, token_limit
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.fallback import (
    Attempt,
    FallbackPolicy,
    TextMetrics,
    Thresholds,
    Verdict,
    compression_ratio,
    says_twice,
)
from batched_whisper.decoding.rules import Rules
from batched_whisper.pipeline.align_requests import WindowWords
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.tokens.languages import language_code_or_none
from batched_whisper.tokens.prompt import PreviousText, sot_sequence
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.transcript.silence import Pause, find_pauses
from batched_whisper.types import SAMPLING_RATE, DecodedWindow, Features, Samples, Window, Word

SOT_SEQUENCE_LENGTH = 4
"""At most: the start, the language, the task, and no timestamps."""

_FAINTEST = 2**-15
"""The step of 16 bits: what never exceeds it is a silent recording, with dither or without."""


@dataclass(frozen=True)
class WindowPosition:
    """Where a window stands in its recording."""

    channel: int
    index: int  # among its channel's windows
    start_s: float
    end_s: float
    pauses: tuple[Pause, ...] = ()
    has_sound: bool = True


class RequestBuilder:
    """The tasks of one recording. Immutable: workers and the loop may share it.

    Args:
        model: the model's tokens.
        options: of this recording.
        is_wanted: whether anybody still waits for the recording.
        as_samples: whether the engine makes the windows' features itself.

    Raises:
        OptionError: the model does not know the language or the task.
    """

    def __init__(
        self,
        model: ModelTokens,
        options: DecodingOptions,
        is_wanted: Callable[[], bool],
        *,
        as_samples: bool = False,
    ) -> None:
        self._model = model
        self._as_samples = as_samples
        self._options = options
        self._thresholds = Thresholds(
            options.compression_ratio_threshold,
            options.logprob_threshold,
            options.no_speech_threshold,
        )
        self._ladder = FallbackPolicy(model.dimensions.n_audio_ctx, _temperatures(options))
        self._context = context_policy(
            options.audio_context, model.repository, model.dimensions.n_audio_ctx
        )
        self._words: WindowWords | None = None
        if options.word_timestamps:
            n_text_ctx = model.dimensions.n_text_ctx
            self._words = WindowWords(model.tokenizer, model.languages, options.task, n_text_ctx)
        self._rules = model.rules(options)
        self._common = self._common_task(is_wanted)

    def place(self, window: Window, channel: int) -> WindowPosition:
        """Where the window stands, without its samples."""
        pauses = () if self._words is None else find_pauses(window.samples)
        has_sound = bool(np.abs(window.samples).max(initial=0.0) > _FAINTEST)
        return WindowPosition(
            channel, window.index, window.start_s, window.end_s, pauses, has_sound
        )

    def task(self, window: Window, language: SharedLanguage) -> DecodeRequest:
        """What is asked about a window; computes its features, unless the engine does.

        Args:
            window: of at most 30 s.
            language: what the recording's windows share, unless each is asked for its own.
        """
        n_samples = len(window.samples)
        context = self._context.positions(n_samples)
        per_window = self._options.language == LANGUAGE_PER_WINDOW
        return self._common(
            rules=self._rules_for(window),
            shared_language=SharedLanguage() if per_window else language,
            features=self._heard(window.samples, context),
            first=self._ladder.first(context, token_limit(n_samples, SAMPLING_RATE)),
        )

    def _heard(self, samples: Samples, context: int) -> Callable[[int], Features | Samples]:
        """What the engine is given of a window, for an audio context of that or more."""
        if self._as_samples:
            return lambda positions: samples
        features = log_mel(samples, self._model.dimensions.n_mels, n_frames=2 * context)
        return lambda positions: pad_features(features, 2 * positions)

    def previous_text(self) -> PreviousText:
        """What a channel's first window is told, for those that are told what was said."""
        n_text_ctx = self._model.dimensions.n_text_ctx
        options = self._options
        return PreviousText(
            self._model.tokenizer, options.prompt, n_text_ctx, hotwords=options.hotwords
        )

    def after_text(self, task: DecodeRequest, prefix: tuple[int, ...]) -> DecodeRequest:
        """The task with the text before it, which leaves the less room for its own."""
        return replace(task, prefix=prefix, max_tokens=self._max_tokens(prefix))

    def decoded_window(self, place: WindowPosition, decoded: DecodedTokens) -> DecodedWindow:
        """What the model made of a window; its words are timed if that was asked for."""
        model, found = self._model, decoded.language
        is_said = place.has_sound and self._verdict(decoded).has_text
        tokens = decoded.tokens if is_said else ()
        return DecodedWindow(
            start=place.start_s,
            end=place.end_s,
            text=model.text(tokens),
            tokens=tokens,
            language="en" if found is None else model.languages[found.token],
            language_probability=1.0 if found is None else found.probability,
            avg_logprob=decoded.avg_logprob,
            no_speech_prob=decoded.no_speech_prob,
            compression_ratio=compression_ratio(model.text(decoded.tokens)),
            temperature=decoded.attempt.temperature,
            audio_context=decoded.attempt.audio_context,
            decodes=decoded.decodes,
            words=self._timed(place, decoded) if is_said else self._no_words,
        )

    def _rules_for(self, window: Window) -> Rules:
        if not self._options.timestamps:
            return self._rules
        return self._rules.with_sound_until(_sound_end_s(window.samples))

    def _common_task(self, is_wanted: Callable[[], bool]) -> Callable[..., DecodeRequest]:
        """What all windows of the recording have in common. Raises OptionError."""
        model, options = self._model, self._options
        tokenizer = model.tokenizer
        language = language_code_or_none(options.language)
        if language is not None or not model.languages:
            sot_sequence(tokenizer, language, options.task)  # refuses what the model cannot do
        prefix = self.previous_text().prefix()
        return partial(
            DecodeRequest,
            sot=tokenizer.sot,
            after_sot=partial(_after_sot, tokenizer, model.languages, options),
            max_tokens=self._max_tokens(prefix),
            prefix=prefix,
            language=None if language is None else tokenizer.language_tokens.get(language),
            languages=frozenset(model.languages),
            judge=self._next_attempt,
            align=self._to_align,
            judge_language=lambda found, on: self._ladder.after_language(on, found.probability),
            is_wanted=is_wanted,
            seed=options.seed,
            beams=Beams(options.beam_size, options.patience, options.length_penalty),
        )

    def _max_tokens(self, prefix: tuple[int, ...]) -> int:
        n_text_ctx = self._model.dimensions.n_text_ctx
        room = n_text_ctx - len(prefix) - SOT_SEQUENCE_LENGTH
        return min(self._options.max_tokens or n_text_ctx // 2, room)

    def _verdict(self, decoded: DecodedTokens) -> Verdict:
        text = self._model.text(decoded.tokens)
        figures = TextMetrics(
            compression_ratio(text),
            decoded.avg_logprob,
            decoded.no_speech_prob,
            decoded.ended or self._is_cut_as_asked(decoded),
            says_twice(text),
        )
        return self._thresholds.evaluate(figures)

    def _is_cut_as_asked(self, decoded: DecodedTokens) -> bool:
        """Whether it has all the tokens that the caller lets it have."""
        return len(decoded.tokens) == self._options.max_tokens

    def _next_attempt(self, decoded: DecodedTokens) -> Attempt | None:
        """On the loop's thread."""
        return self._ladder.after(decoded.attempt, self._verdict(decoded))

    def _to_align(self, decoded: DecodedTokens) -> AlignedText | None:
        """On the loop's thread."""
        if self._words is None or not self._verdict(decoded).has_text:
            return None
        return self._words.to_align(decoded)

    @property
    def _no_words(self) -> tuple[Word, ...] | None:
        return None if self._words is None else ()

    def _timed(self, place: WindowPosition, decoded: DecodedTokens) -> tuple[Word, ...] | None:
        if self._words is None:
            return None
        return self._words.timed(decoded, place.pauses, place.start_s, place.end_s)


def _sound_end_s(samples: Samples) -> float:
    """Where the sound of a window ends: at the silence that it ends with, if there is one."""
    duration_s = len(samples) / SAMPLING_RATE
    ends = [pause.start_s for pause in find_pauses(samples) if pause.end_s >= duration_s]
    return ends[-1] if ends else duration_s


def _temperatures(options: DecodingOptions) -> tuple[float, ...]:
    """From the first one up to 1, as openai/whisper's command line counts them."""
    first, increment = options.temperature, options.temperature_increment
    if not increment:
        return (first,)
    n_more = max(0, math.floor((1 - first) / increment + 1e-6))
    return tuple(round(first + i * increment, 6) for i in range(n_more + 1))


def _after_sot(
    tokenizer: Tokenizer,
    languages: Mapping[int, str],
    options: DecodingOptions,
    language: int | None,
) -> tuple[int, ...]:
    code = None if language is None else languages[language]
    return sot_sequence(tokenizer, code, options.task, options.timestamps)[1:]
