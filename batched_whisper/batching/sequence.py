"""Decodes one window, from its audio to its tokens, as a state machine.

A sequence provides the next inputs of its slots and accepts the tokens that the engine chose. It
has one slot, or with beam search one per beam: the prompt goes into the first one, and the others
are copied from it when the text branches. It knows no engine, queue or thread. When a text is
complete, its verdict decides whether the window is decoded again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace
from enum import Enum, auto

from batched_whisper.batching.beam_slots import BeamSlots
from batched_whisper.batching.decode_request import (
    AlignedText,
    DecodedTokens,
    DecodeRequest,
    DetectedLanguage,
    Detokenizer,
    NoText,
    mean_logprob,
)
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.beam import SINGLE_BEAM, Beams, BeamSearch, Hypothesis
from batched_whisper.decoding.fallback import Attempt, measure
from batched_whisper.decoding.rules import Allowed, MaskMode, TokenMask
from batched_whisper.decoding.sampling import GREEDY, Choice, Sampling
from batched_whisper.engines.interface import Alignment, AlignRow, CopyRow, StepResult, StepRow


class SequenceState(Enum):
    """The state of a window in the engine."""

    WAITING = auto()  # for its audio to be encoded
    DECODING = auto()
    RETRY = auto()  # decoded and rejected: decoded again in the same slot
    DONE = auto()
    CANCELLED = auto()


@dataclass(frozen=True)
class StepInputs:
    """The rows of a window's slots in a step, at least one, and the slot copies before it."""

    rows: tuple[StepRow, ...]
    copies: tuple[CopyRow, ...] = ()


class Sequence:
    """A window in its slots; the first slot holds its audio.

    Args:
        request: the window and how to decode it.
        slots: its slots, as many as the request needs.
        language: shared with the other windows of its recording; default: not shared.
        detokenizer: makes the text for the verdict; default: every text is empty.
        tokens_per_step: the engine's (`EngineInfo`).
    """

    def __init__(
        self,
        request: DecodeRequest,
        slots: tuple[int, ...],
        *,
        language: SharedLanguage | None = None,
        detokenizer: Detokenizer | None = None,
        tokens_per_step: int = 1,
    ) -> None:
        self.request = request
        self.slots = slots
        self.shared_language = SharedLanguage() if language is None else language
        self._detokenizer = NoText() if detokenizer is None else detokenizer
        self._tokens_per_step = tokens_per_step
        self.attempt = request.first
        self.state = SequenceState.WAITING
        self.result: DecodedTokens | None = None
        self.retry: Attempt | None = None
        """The next attempt, in the state RETRY."""
        self._decodes = 0
        self._position = 0
        self._pending: tuple[int, ...] = ()  # of the prompt
        self._search = BeamSearch(SINGLE_BEAM, request.rules.ids.eot)
        self._places = BeamSlots(slots)
        self._sampling = GREEDY
        self._limit = request.max_tokens
        self._copies: tuple[CopyRow, ...] = ()
        self._language: DetectedLanguage | None = None
        self._detected_on: int | None = None  # the audio context on which it detected the language
        self._no_speech_prob = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the window is done or cancelled."""
        return self.state in (SequenceState.DONE, SequenceState.CANCELLED)

    def begin(self) -> None:
        """Start the text of the attempt; the first slot holds the encoded audio."""
        self.state = SequenceState.DECODING
        self._decodes += 1
        self._position = 0
        self._pending = (*self.request.prefix, self.request.sot)
        self._search = BeamSearch(self._beams(), self.request.rules.ids.eot)
        self._places = BeamSlots(self.slots)
        self._sampling = Sampling(self.attempt.temperature, self.request.seed)
        own = self.attempt.max_tokens
        self._limit = self.request.max_tokens if own is None else min(own, self.request.max_tokens)
        self._copies = ()

    def try_again(self) -> None:
        """Start the next attempt, or wait for its audio if the audio context differs.

        A language that it detected on less audio context is rejected too, and detected again.
        """
        assert self.retry is not None
        is_encoded = self.retry.audio_context == self.attempt.audio_context
        self.attempt = self.retry
        if self._detected_on is not None and self._detected_on < self.attempt.audio_context:
            self.shared_language.found(None)
            self._detected_on = None
        if is_encoded:
            self.begin()
        else:
            self.state = SequenceState.WAITING

    def next_inputs(self) -> StepInputs | None:
        """Return the next inputs of its slots; None while another window detects the language.

        The prompt and the start are one row. The few tokens after them follow one per step, in the
        same steps as other windows' tokens: a pass of their own would delay those more. With
        multi-step decoding they are one row, together with the start if possible.
        """
        if self._position == 0:
            start = self._start_row()
            return None if start is None else StepInputs((start,))
        if len(self._pending) > 1 and self._tokens_per_step == 1:
            return StepInputs((StepRow(self.slots[0], self._pending[:1], self._position, None),))
        rows = map(self._text_row, self._places.taken, self._search.live)
        return StepInputs(tuple(rows), self._copies)

    def accept(self, feed: StepInputs, results: Several[StepResult | None]) -> None:
        """Accept the engine's results for the rows of ``feed``."""
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
        """Return the text to align after acceptance; None without word timestamps or text."""
        assert self.result is not None
        aligned = self._text_to_align(self.result)
        if aligned is None:
            return None
        self.result = replace(self.result, aligned=aligned)
        return AlignRow(self.slots[0], aligned.tokens, aligned.n_prompt)

    def accept_alignment(self, alignment: Alignment) -> None:
        """Add the alignment to the result."""
        assert self.result is not None
        self.result = replace(self.result, alignment=alignment)

    def _text_to_align(self, result: DecodedTokens) -> AlignedText | None:
        """Return the start of the transcript, the text without timestamps, and the end of text."""
        wanted, eot = self.request.alignment, self.request.rules.ids.eot
        text = tuple(token for token in result.tokens if token < eot)
        if wanted is None or not text or not result.verdict.has_text:
            return None
        language = () if result.language is None else (result.language.token,)
        prompt = (self.request.sot, *language, *wanted.after_language)
        return AlignedText((*prompt, *text, eot)[: wanted.max_tokens], len(prompt))

    def _beams(self) -> Beams:
        is_searched = self.attempt.temperature == 0 and len(self.slots) > 1
        return self.request.beams if is_searched else SINGLE_BEAM

    def _text_row(self, slot: int, text: Hypothesis) -> StepRow:
        """Return the row with the last token of a text, or of the prompt."""
        beams, rules = self._search.beams, self.request.rules
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
        """Return the row of the prompt up to the start of the transcript, or of all of it.

        At the start, the language and the no-speech probability are read. The row has the whole
        prompt if text follows the start directly, as in English-only models with timestamps, or
        with multi-step decoding.
        """
        request, n_to_start = self.request, len(self._pending)
        no_speech = request.rules.ids.no_speech
        self._language = self._known_language()
        if self._language is None and request.languages:
            if not self.shared_language.may_detect(self):
                return None
            among = Allowed(TokenMask(MaskMode.ONLY, request.languages))
            return StepRow(self.slots[0], self._pending, 0, among, probe=no_speech)
        after = self._after_start()
        if after and self._tokens_per_step == 1:
            return StepRow(self.slots[0], self._pending, 0, None, probe=no_speech)
        row = self._text_row(self.slots[0], self._search.live[0])
        return replace(row, tokens=self._pending + after, probe=no_speech, probe_at=n_to_start - 1)

    def _known_language(self) -> DetectedLanguage | None:
        """Return the caller's language, or the one detected in the recording; None before that."""
        given = self.request.language
        if given is not None:
            return DetectedLanguage(given, 1.0)
        return self.shared_language.detected

    def _after_start(self) -> tuple[int, ...]:
        """Return the tokens between the start of the transcript and the text."""
        language = () if self._language is None else (self._language.token,)
        return language + self.request.after_language

    def _accept_start(self, result: StepResult | None) -> None:
        """Read the language and the no-speech probability at the start of the transcript."""
        request = self.request
        if result is not None and result.probed is not None:
            self._no_speech_prob = result.probed
        if self._language is None and request.languages and result is not None:
            found = DetectedLanguage(result.token, _probability(result.logprob))
            self.retry = request.fallback.after_language(self.attempt, found.probability)
            if self.retry is not None:
                self.state = SequenceState.RETRY
                return
            self.shared_language.found(found)
            self._detected_on = self.attempt.audio_context
            self._language = found
        self._pending += self._after_start()

    def _accept_tokens(self, results: Several[StepResult | None]) -> None:
        """Advance the search. Rows without the best tokens have one candidate: the chosen token."""
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
            self._position += 1  # the engine already decoded the token before it
            self._search.advance([[choice]])
        if self._is_finished():
            self._finish(self._search.result())
        else:
            self._copies = self._places.branch(sources)

    def _is_finished(self) -> bool:
        return self._search.is_over or self._search.length >= self._limit

    def _finish(self, found: Hypothesis) -> None:
        """Evaluate the text, once per attempt; it is accepted or decoded again."""
        self.result = self._evaluated(found)
        self.retry = self.request.fallback.after(self.attempt, self.result.verdict)
        self.state = SequenceState.DONE if self.retry is None else SequenceState.RETRY

    def _evaluated(self, found: Hypothesis) -> DecodedTokens:
        text = self._detokenizer.text(found.tokens)
        metrics = measure(
            text,
            avg_logprob=mean_logprob(found.sum_logprob, len(found.tokens)),
            no_speech_prob=self._no_speech_prob,
            ended=found.ended or len(found.tokens) == self.request.max_tokens_asked,
        )
        return DecodedTokens(
            tokens=found.tokens,
            text=text,
            sum_logprob=found.sum_logprob,
            no_speech_prob=self._no_speech_prob,
            compression_ratio=metrics.compression_ratio,
            verdict=self.request.thresholds.evaluate(metrics),
            language=self._language,
            attempt=self.attempt,
            decodes=self._decodes,
            ended=found.ended,
        )


def _probability(logprob: float) -> float:
    return min(1.0, math.exp(logprob))
