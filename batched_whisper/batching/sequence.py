"""One window's life in the engine, from its audio to its tokens, as a state machine.

A sequence says what its slots are to be fed next and takes what the engine chose. It has one slot,
or with beam search as many as there are beams: the prompt goes into the first one, and the others
are copied from it when there is more than one text to follow. It knows no engine, queue or thread,
and no text: what its tokens mean, and whether to believe them, is for the task's ``judge``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from batched_whisper.batching.beam_slots import BeamSlots
from batched_whisper.decoding.beam import SINGLE_BEAM, Beams, BeamSearch, Hypothesis
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.decoding.rules import Allowed, MaskMode, Rules, TokenMask
from batched_whisper.decoding.sampling import GREEDY, Choice, Sampling
from batched_whisper.engines.interface import Alignment, AlignRow, CopyRow, StepResult, StepRow
from batched_whisper.types import Features


class SequenceState(Enum):
    """Where a window is in its life; the loop moves it from one to the next."""

    WAITING = auto()  # for its audio to be encoded
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

    The first window to be decoded detects it, the others wait for it. The windows may be in
    several loops.
    """

    def __init__(self) -> None:
        self.detected: DetectedLanguage | None = None
        self._detector: Sequence | None = None
        self._changed = threading.Condition()

    def may_detect(self, sequence: Sequence) -> bool:
        """Whether it is this sequence that detects it: the first, or the next if that one died."""
        with self._changed:
            detector = self._detector
            if detector is None or detector.is_over:
                self._detector = detector = sequence
            return detector is sequence

    def found(self, language: DetectedLanguage | None) -> None:
        """Tell what was detected; None to have it detected anew."""
        with self._changed:
            self.detected = language
            self._changed.notify_all()

    def wait(self, at_most_s: float) -> None:
        """Sleep until it is detected; not for long, since who detects it may be cancelled."""
        with self._changed:
            if self.detected is None:
                self._changed.wait(at_most_s)


@dataclass(frozen=True, eq=False)
class DecodeRequest:
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
        beams: how to search at temperature 0.
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
    beams: Beams = SINGLE_BEAM

    @property
    def n_slots(self) -> int:
        """How many slots it takes: one for each beam. Temperatures only rise."""
        return self.beams.size if self.first.temperature == 0 else 1


@dataclass(frozen=True)
class StepInputs:
    """What a window's slots are fed in a step, after the copies were made; one row at least."""

    rows: tuple[StepRow, ...]
    copies: tuple[CopyRow, ...] = ()


class Sequence:
    """A window in its slots; the first of them holds its audio.

    Args:
        task: what is wanted.
        slots: its own, as many as the task takes.
        tokens_per_step: the engine's (`EngineInfo`).
    """

    def __init__(
        self, task: DecodeRequest, slots: tuple[int, ...], tokens_per_step: int = 1
    ) -> None:
        self.task = task
        self.slots = slots
        self._tokens_per_step = tokens_per_step
        self.attempt = task.first
        self.state = SequenceState.WAITING
        self.result: DecodedTokens | None = None
        self.retry: Attempt | None = None
        """The next attempt, in the state RETRY."""
        self._decodes = 0
        self._position = 0
        self._pending: tuple[int, ...] = ()  # of the prompt
        self._search = BeamSearch(SINGLE_BEAM, task.rules.ids.eot)
        self._places = BeamSlots(slots)
        self._sampling = GREEDY
        self._limit = task.max_tokens
        self._copies: tuple[CopyRow, ...] = ()
        self._language: DetectedLanguage | None = None
        self._detected_on: int | None = None  # on how much audio context it detected the language
        self._no_speech_prob = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in (SequenceState.DONE, SequenceState.CANCELLED)

    def begin(self) -> None:
        """Start the attempt's text anew; the first slot holds the encoded audio."""
        self.state = SequenceState.DECODING
        self._decodes += 1
        self._position = 0
        self._pending = (*self.task.prefix, self.task.sot)
        self._search = BeamSearch(self._beams(), self.task.rules.ids.eot)
        self._places = BeamSlots(self.slots)
        self._sampling = Sampling(self.attempt.temperature, self.task.seed)
        own = self.attempt.max_tokens
        self._limit = self.task.max_tokens if own is None else min(own, self.task.max_tokens)
        self._copies = ()

    def try_again(self) -> None:
        """Go over to the next attempt: begin it, or wait for its audio if that is another context.

        A language that it detected on less audio context was part of what is not believed.
        """
        assert self.retry is not None
        is_encoded = self.retry.audio_context == self.attempt.audio_context
        self.attempt = self.retry
        if self._detected_on is not None and self._detected_on < self.attempt.audio_context:
            self.task.shared_language.found(None)
            self._detected_on = None
        if is_encoded:
            self.begin()
        else:
            self.state = SequenceState.WAITING

    def next_inputs(self) -> StepInputs | None:
        """What to feed its slots next; None while another window detects the language.

        The prompt and the start go in one piece. The few tokens after it go one by one, in the
        same steps as everybody's: a pass of their own would cost the slots around them more. An
        engine that says several tokens a call gets them at once, if it can with the start.
        """
        if self._position == 0:
            start = self._start_row()
            return None if start is None else StepInputs((start,))
        if len(self._pending) > 1 and self._tokens_per_step == 1:
            return StepInputs((StepRow(self.slots[0], self._pending[:1], self._position, None),))
        rows = map(self._text_row, self._places.taken, self._search.live)
        return StepInputs(tuple(rows), self._copies)

    def accept(self, feed: StepInputs, results: Several[StepResult | None]) -> None:
        """Take what the engine made of the rows that were fed."""
        n_tokens = len(feed.rows[0].tokens)
        if self._position == 0:
            self._accept_start(results[0])
            if self.state is SequenceState.RETRY:
                return
        self._position += n_tokens
        self._pending = self._pending[n_tokens:]
        if not self._pending:
            self._accept_tokens(results)

    def align_row(self) -> AlignRow | None:
        """What to align once its result is believed, or None."""
        assert self.result is not None
        text = self.task.align(self.result)
        return None if text is None else AlignRow(self.slots[0], text.tokens, text.n_prompt)

    def accept_alignment(self, alignment: Alignment) -> None:
        """Add it to the result."""
        assert self.result is not None
        self.result = replace(self.result, alignment=alignment)

    def _beams(self) -> Beams:
        is_searched = self.attempt.temperature == 0 and len(self.slots) > 1
        return self.task.beams if is_searched else SINGLE_BEAM

    def _text_row(self, slot: int, text: Hypothesis) -> StepRow:
        """The last token of a text, or of the prompt."""
        beams, rules = self._search.beams, self.task.rules
        position, allowed = self._position, rules.next(text.tokens)
        tokens = text.tokens[-1:] or self._pending
        if beams.size > 1:
            return StepRow(
                slot, tokens, position, allowed, self._sampling, n_best=beams.n_candidates
            )
        n_tokens = min(self._tokens_per_step, self._limit - self._search.length)
        if n_tokens <= 1:
            return StepRow(slot, tokens, position, allowed, self._sampling)
        constraints = rules.constraints(text.tokens)
        return StepRow(
            slot,
            tokens,
            position,
            allowed,
            self._sampling,
            n_tokens=n_tokens,
            constraints=constraints,
        )

    def _start_row(self) -> StepRow | None:
        """The prompt up to the start of the transcript, where two things are asked, or all of it.

        All of it where text follows the start at once, as in English-only models with timestamps,
        and for an engine that says several tokens a call.
        """
        task, n_to_start = self.task, len(self._pending)
        no_speech = task.rules.ids.no_speech
        self._language = self._known_language()
        if self._language is None and task.languages:
            if not task.shared_language.may_detect(self):
                return None
            among = Allowed(TokenMask(MaskMode.ONLY, task.languages))
            return StepRow(self.slots[0], self._pending, 0, among, probe=no_speech)
        after = self._after_sot()
        if after and self._tokens_per_step == 1:
            return StepRow(self.slots[0], self._pending, 0, None, probe=no_speech)
        row = self._text_row(self.slots[0], self._search.live[0])
        return replace(row, tokens=self._pending + after, probe=no_speech, probe_at=n_to_start - 1)

    def _known_language(self) -> DetectedLanguage | None:
        """The one that the caller gave, or that was detected in the recording; None so far."""
        given = self.task.language
        if given is not None:
            return DetectedLanguage(given, 1.0)
        return self.task.shared_language.detected

    def _after_sot(self) -> tuple[int, ...]:
        return self.task.after_sot(self._language.token if self._language else None)

    def _accept_start(self, result: StepResult | None) -> None:
        """Language and no-speech probability are read where the transcript starts."""
        task = self.task
        if result is not None and result.probed is not None:
            self._no_speech_prob = result.probed
        if self._language is None and task.languages and result is not None:
            found = DetectedLanguage(result.token, _probability(result.logprob))
            self.retry = task.judge_language(found, self.attempt)
            if self.retry is not None:
                self.state = SequenceState.RETRY
                return
            task.shared_language.found(found)
            self._detected_on = self.attempt.audio_context
            self._language = found
        self._pending += self._after_sot()

    def _accept_tokens(self, results: Several[StepResult | None]) -> None:
        """Where nobody asked for the best tokens there is one candidate: the token chosen."""
        sources = self._search.advance(
            [
                result.best or (Choice(result.token, result.logprob),)
                for result in results
                if result is not None
            ]
        )
        for choice in results[0].more if results[0] is not None else ():
            if self._is_finished():
                break
            self._position += 1  # the engine has fed the token before to itself
            self._search.advance([[choice]])
        if self._is_finished():
            self._finish(self._search.result())
        else:
            self._copies = self._places.branch(sources)

    def _is_finished(self) -> bool:
        return self._search.is_over or self._search.length >= self._limit

    def _finish(self, found: Hypothesis) -> None:
        self.result = DecodedTokens(
            tokens=found.tokens,
            sum_logprob=found.sum_logprob,
            no_speech_prob=self._no_speech_prob,
            language=self._language,
            attempt=self.attempt,
            decodes=self._decodes,
            ended=found.ended,
        )
        again = self.task.judge(self.result)
        if again is None:
            self.state = SequenceState.DONE
        else:
            self.state = SequenceState.RETRY
            self.retry = again


def _probability(logprob: float) -> float:
    return min(1.0, math.exp(logprob))
