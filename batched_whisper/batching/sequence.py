"""One window's life in the engine, from its audio to its tokens, as a state machine.

A sequence says what its slot is to be fed next and takes what the engine chose. It knows no
engine, queue or thread, and no text: what its tokens mean, and whether to believe them, is for
the task's ``judge``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from batched_whisper.decoding.quality import Attempt
from batched_whisper.decoding.rules import Allowed, MaskMode, Rules, TokenMask
from batched_whisper.decoding.sampling import Sampling
from batched_whisper.engines.interface import Alignment, AlignRow, StepResult, StepRow
from batched_whisper.types import Features


class SequenceState(Enum):
    """Where a window is in its life; the loop moves it from one to the next."""

    WAITING = auto()
    DECODING = auto()
    RETRY = auto()  # decoded, not believed: once more on the same slot
    DONE = auto()
    CANCELLED = auto()


@dataclass(frozen=True)
class DetectedLanguage:
    """A language's token and its probability among the languages."""

    token: int
    probability: float


@dataclass(frozen=True)
class DecodedTokens:
    """What came out of one attempt.

    ``tokens`` are the sampled ones without the end of text; ``sum_logprob`` includes it.
    ``ended`` is false where the token limit came first.
    """

    tokens: tuple[int, ...]
    sum_logprob: float
    no_speech_prob: float
    language: DetectedLanguage | None
    attempt: Attempt
    decodes: int
    ended: bool
    alignment: Alignment | None = None
    """Where its text was said, if the task asks for that."""

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the tokens and the end of text, as openai/whisper counts it."""
        return self.sum_logprob / (len(self.tokens) + 1)


@dataclass(frozen=True)
class AlignedText:
    """The tokens to align, from the start of the transcript on; those of the text come last."""

    tokens: tuple[int, ...]
    n_prompt: int


class SharedLanguage:
    """The language of a recording whose windows all have the same one.

    The first window to be decoded detects it, the others wait a step for it. It belongs to the
    loop's thread.
    """

    def __init__(self) -> None:
        self.detected: DetectedLanguage | None = None
        self._detector: Sequence | None = None

    def may_detect(self, sequence: Sequence) -> bool:
        """Whether it is this sequence that detects it: the first, or the next if that one died."""
        detector = self._detector
        if detector is None or detector.state in (SequenceState.DONE, SequenceState.CANCELLED):
            self._detector = detector = sequence
        return detector is sequence


@dataclass(frozen=True, eq=False)
class WindowTask:
    """What a caller wants of one window.

    Attributes:
        features: ``[n_mels, n_frames]`` of an audio context, given by its positions.
        prefix: the prompt's tokens before the start of the transcript.
        sot: the token that starts the transcript.
        after_sot: what follows it, given the language's token (None for English-only models).
        language: the token of the language that the caller gave.
        languages: the tokens to detect it among; empty for English-only models.
        shared_language: where the recording's windows share what is detected.
        rules: what may be said.
        max_tokens: where to stop if the end does not come.
        first: the first attempt.
        judge: gives the next attempt, or None if the tokens are to be believed.
        judge_language: the same, as soon as a language was detected.
        align: the text whose place in the audio is wanted with what is believed; None for none.
        is_wanted: whether anybody still waits for it.
        seed: of its random choices.
    """

    features: Callable[[int], Features]
    sot: int
    after_sot: Callable[[int | None], tuple[int, ...]]
    rules: Rules
    max_tokens: int
    first: Attempt
    prefix: tuple[int, ...] = ()
    language: int | None = None
    languages: frozenset[int] = frozenset()
    shared_language: SharedLanguage = field(default_factory=SharedLanguage)
    judge: Callable[[DecodedTokens], Attempt | None] = lambda decoded: None
    judge_language: Callable[[DetectedLanguage, Attempt], Attempt | None] = lambda found, on: None
    align: Callable[[DecodedTokens], AlignedText | None] = lambda decoded: None
    is_wanted: Callable[[], bool] = lambda: True
    seed: int = 0


class Sequence:
    """A window in a slot."""

    def __init__(self, task: WindowTask, slot: int) -> None:
        self.task = task
        self.slot = slot
        self.attempt = task.first
        self.state = SequenceState.WAITING
        self.result: DecodedTokens | None = None
        self.retry: Attempt | None = None
        """The next attempt, in the state RETRY."""
        self._decodes = 0
        self._position = 0
        self._pending: tuple[int, ...] = ()
        self._tokens: list[int] = []
        self._sum_logprob = 0.0
        self._language: DetectedLanguage | None = None
        self._detected_on: int | None = None  # on how much audio context it detected the language
        self._no_speech_prob = 0.0

    def begin(self) -> None:
        """Start the attempt's text anew; the slot holds the encoded audio.

        A language that it detected on less audio context was part of what is not believed.
        """
        self.state = SequenceState.DECODING
        if self._detected_on is not None and self._detected_on < self.attempt.audio_context:
            self.task.shared_language.detected = self._detected_on = None
        self._decodes += 1
        self._position = 0
        self._pending = (*self.task.prefix, self.task.sot)
        self._tokens = []
        self._sum_logprob = 0.0

    def next_row(self) -> StepRow | None:
        """What to feed its slot next; None while another window detects the language.

        The prompt and the start go in one piece. The few tokens after it go one by one, in the
        same steps as everybody's: a pass of their own would cost the slots around them more.
        """
        if self._position == 0:
            return self._start_row()
        fed, rest = self._pending[:1], self._pending[1:]
        allowed = None if rest else self.task.rules.next(self._tokens)
        return StepRow(self.slot, fed, self._position, allowed, self._sampling())

    def accept(self, row: StepRow, result: StepResult | None) -> None:
        """Take what the engine made of the row that was fed."""
        self._position += len(row.tokens)
        self._pending = self._pending[len(row.tokens) :]
        if row.position == 0:
            self._accept_start(result)
        elif not self._pending and result is not None:
            self._accept_token(result)

    def align_row(self) -> AlignRow | None:
        """What to align once its result is believed, or None."""
        assert self.result is not None
        text = self.task.align(self.result)
        return None if text is None else AlignRow(self.slot, text.tokens, text.n_prompt)

    def accept_alignment(self, alignment: Alignment) -> None:
        """Add it to the result."""
        assert self.result is not None
        self.result = replace(self.result, alignment=alignment)

    def _sampling(self) -> Sampling:
        return Sampling(self.attempt.temperature, self.task.seed)

    def _start_row(self) -> StepRow | None:
        task = self.task
        detects = task.language is None and bool(task.languages) and not self._known_language()
        if detects and not task.shared_language.may_detect(self):
            return None
        allowed = Allowed(TokenMask(MaskMode.ONLY, task.languages)) if detects else None
        return StepRow(self.slot, self._pending, 0, allowed, probe=task.rules.ids.no_speech)

    def _known_language(self) -> bool:
        return self.task.shared_language.detected is not None

    def _accept_start(self, result: StepResult | None) -> None:
        """Language and no-speech probability are read where the transcript starts."""
        task = self.task
        if result is not None and result.probed is not None:
            self._no_speech_prob = result.probed
        if task.language is not None:
            self._language = DetectedLanguage(task.language, 1.0)
        elif task.languages:
            if not self._known_language() and result is not None:
                found = DetectedLanguage(result.token, _probability(result.logprob))
                self.retry = task.judge_language(found, self.attempt)
                if self.retry is not None:
                    self.state = SequenceState.RETRY
                    return
                task.shared_language.detected = found
                self._detected_on = self.attempt.audio_context
            self._language = task.shared_language.detected
        self._pending = task.after_sot(self._language.token if self._language else None)

    def _accept_token(self, result: StepResult) -> None:
        self._sum_logprob += result.logprob
        ended = result.token == self.task.rules.ids.eot
        if not ended:
            self._tokens.append(result.token)
            self._pending = (result.token,)
        limit = self.task.max_tokens
        if self.attempt.max_tokens is not None:
            limit = min(limit, self.attempt.max_tokens)
        if ended or len(self._tokens) >= limit:
            self._finish(ended)

    def _finish(self, ended: bool) -> None:
        self.result = DecodedTokens(
            tokens=tuple(self._tokens),
            sum_logprob=self._sum_logprob,
            no_speech_prob=self._no_speech_prob,
            language=self._language,
            attempt=self.attempt,
            decodes=self._decodes,
            ended=ended,
        )
        again = self.task.judge(self.result)
        if again is None:
            self.state = SequenceState.DONE
        else:
            self.state = SequenceState.RETRY
            self.retry = again


def _probability(logprob: float) -> float:
    return min(1.0, math.exp(logprob))
