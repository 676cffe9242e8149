"""Makes the requests of a recording's windows from its options, and decoded windows from tokens.

Knows the model's tokens and the engine's requests; no queue, no thread, and not how a recording is
cut into windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from batched_whisper.audio.features import log_mel
from batched_whisper.batching.decode_request import AlignmentPrompt, DecodedTokens, DecodeRequest
from batched_whisper.config.options import DecodingOptions
from batched_whisper.decoding.audio_context import context_policy, token_limit
from batched_whisper.decoding.beam import Beams
from batched_whisper.decoding.fallback import FallbackPolicy, Thresholds
from batched_whisper.decoding.rules import Rules
from batched_whisper.pipeline.model_tokens import ModelTokens
from batched_whisper.pipeline.word_times import time_window_words
from batched_whisper.tokens.languages import language_code_or_none
from batched_whisper.tokens.prompt import PreviousText, sot_sequence
from batched_whisper.transcript.silence import Pause, find_pauses
from batched_whisper.types import SAMPLING_RATE, DecodedWindow, Features, Samples, Window, Word

SOT_SEQUENCE_LENGTH = 4
"""The most tokens of the sequence: the start, the language, the task, and no timestamps."""

_FAINTEST = 2**-15
"""The step of 16 bits. A window that never exceeds it is silent, with dither or without."""


@dataclass(frozen=True)
class WindowPosition:
    """The position of a window in its recording, and its pauses."""

    channel: int
    index: int  # among its channel's windows
    start_s: float
    end_s: float
    pauses: tuple[Pause, ...] = ()
    has_sound: bool = True


class RequestBuilder:
    """Makes the requests of one recording. Immutable: any thread may use it.

    Args:
        model: the model's tokens.
        options: the options of this recording.
        as_samples: whether the engine computes the windows' features itself.

    Raises:
        OptionError: the model does not know the language or the task.
    """

    def __init__(
        self, model: ModelTokens, options: DecodingOptions, *, as_samples: bool = False
    ) -> None:
        self._model = model
        self._as_samples = as_samples
        self._options = options
        self._fallback = FallbackPolicy(model.dimensions.n_audio_ctx, _temperatures(options))
        self._context = context_policy(
            options.audio_context, model.repository, model.dimensions.n_audio_ctx
        )
        self._rules = model.rules(options)
        self._new_request = self._common_request()

    def position(self, window: Window, channel: int) -> WindowPosition:
        """Return the window's position and pauses, without its samples."""
        needs_pauses = self._options.word_timestamps or self._options.timestamps
        pauses = find_pauses(window.samples) if needs_pauses else ()
        has_sound = bool(np.abs(window.samples).max(initial=0.0) > _FAINTEST)
        return WindowPosition(
            channel, window.index, window.start_s, window.end_s, pauses, has_sound
        )

    def request(self, window: Window, position: WindowPosition) -> DecodeRequest:
        """Return the request of a window of at most 30 s, with features or samples."""
        n_samples = len(window.samples)
        context = self._context.positions(n_samples)
        return self._new_request(
            audio=self._audio(window.samples, context),
            rules=self._rules_for(n_samples, position.pauses),
            first=self._fallback.first(context, token_limit(n_samples, SAMPLING_RATE)),
        )

    def previous_text(self) -> PreviousText:
        """Return the text before a channel's first window, for ``condition_on_previous_text``."""
        n_text_ctx = self._model.dimensions.n_text_ctx
        options = self._options
        return PreviousText(
            self._model.tokenizer, options.prompt, n_text_ctx, hotwords=options.hotwords
        )

    def after_text(self, request: DecodeRequest, prefix: tuple[int, ...]) -> DecodeRequest:
        """Return the request with the text before it, which leaves less room for its own."""
        return replace(request, prefix=prefix, max_tokens=self._max_tokens(prefix))

    def decoded_window(self, position: WindowPosition, decoded: DecodedTokens) -> DecodedWindow:
        """Return the decoded window, with word timestamps if the options want them."""
        language, attempt = decoded.language, decoded.attempt
        is_said = position.has_sound and decoded.verdict.has_text
        return DecodedWindow(
            start=position.start_s,
            end=position.end_s,
            text=decoded.text if is_said else "",
            tokens=decoded.tokens if is_said else (),
            language="en" if language is None else self._model.languages[language.token],
            language_probability=1.0 if language is None else language.probability,
            avg_logprob=decoded.avg_logprob,
            no_speech_prob=decoded.no_speech_prob,
            compression_ratio=decoded.compression_ratio,
            temperature=attempt.temperature,
            audio_context=attempt.audio_context,
            decodes=decoded.decodes,
            words=self._words(position, decoded, is_said),
        )

    def _audio(self, samples: Samples, context: int) -> Features | Samples:
        if self._as_samples:
            return samples
        return log_mel(samples, self._model.dimensions.n_mels, n_frames=2 * context)

    def _rules_for(self, n_samples: int, pauses: tuple[Pause, ...]) -> Rules:
        if not self._options.timestamps:
            return self._rules
        return self._rules.with_sound_until(_sound_end_s(n_samples / SAMPLING_RATE, pauses))

    def _common_request(self) -> Callable[..., DecodeRequest]:
        """Return the constructor of requests with their common data. Raise `OptionError`."""
        model, options = self._model, self._options
        language = language_code_or_none(options.language)
        if language is not None or not model.languages:
            sot_sequence(model.tokenizer, language, options.task)  # refuses an unknown language
        prefix = self.previous_text().prefix()
        return partial(
            DecodeRequest,
            sot=model.tokenizer.sot,
            after_language=self._after_language(options.timestamps),
            max_tokens=self._max_tokens(prefix),
            prefix=prefix,
            language=None if language is None else model.tokenizer.language_tokens.get(language),
            languages=frozenset(model.languages),
            fallback=self._fallback,
            thresholds=Thresholds(
                options.compression_ratio_threshold,
                options.logprob_threshold,
                options.no_speech_threshold,
            ),
            max_tokens_asked=options.max_tokens,
            alignment=self._alignment_prompt() if options.word_timestamps else None,
            seed=options.seed,
            beams=Beams(options.beam_size, options.patience, options.length_penalty),
        )

    def _alignment_prompt(self) -> AlignmentPrompt:
        """Return the start of a transcript without timestamps, as openai/whisper aligns words."""
        return AlignmentPrompt(self._after_language(False), self._model.dimensions.n_text_ctx)

    def _after_language(self, timestamps: bool) -> tuple[int, ...]:
        """Return the tokens between the language and the text, the same for every language."""
        any_language = next(iter(self._model.languages.values()), None)
        start = sot_sequence(self._model.tokenizer, any_language, self._options.task, timestamps)
        return start[1:] if any_language is None else start[2:]

    def _max_tokens(self, prefix: tuple[int, ...]) -> int:
        n_text_ctx = self._model.dimensions.n_text_ctx
        room = n_text_ctx - len(prefix) - SOT_SEQUENCE_LENGTH
        return min(self._options.max_tokens or n_text_ctx // 2, room)

    def _words(
        self, position: WindowPosition, decoded: DecodedTokens, is_said: bool
    ) -> tuple[Word, ...] | None:
        if not self._options.word_timestamps:
            return None
        if not is_said:
            return ()
        return time_window_words(
            self._model, decoded, position.pauses, position.start_s, position.end_s
        )


def _sound_end_s(duration_s: float, pauses: tuple[Pause, ...]) -> float:
    """Return the time at which the sound of a window ends: before its final pause, if any."""
    ends = [pause.start_s for pause in pauses if pause.end_s >= duration_s]
    return ends[-1] if ends else duration_s


def _temperatures(options: DecodingOptions) -> tuple[float, ...]:
    """Return the temperatures from the first one up to 1, as in openai/whisper's command line."""
    first, increment = options.temperature, options.temperature_increment
    if not increment:
        return (first,)
    n_more = max(0, math.floor((1 - first) / increment + 1e-6))
    return tuple(round(first + i * increment, 6) for i in range(n_more + 1))
