"""The only thread that uses the engine: it keeps the slots full and steps them.

Each round it drops cancelled windows, admits waiting windows to free slots and encodes them, steps
every slot, and answers the finished windows. For an engine with asynchronous steps, windows are
admitted and encoded while a step runs. The beams of a window are rows of the same steps as all
other windows. An error of the engine, or of a request's own data, fails only the windows of that
call; the loop continues with the others. If other loops serve the same queue, a broken engine
leaves the queue to them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

from batched_whisper.batching.clock import Clock
from batched_whisper.batching.decode_request import (
    DecodedTokens,
    DecodeRequest,
    Detokenizer,
    NoText,
)
from batched_whisper.batching.engine_health import EngineHealth, LoopRoster, dropped, failure
from batched_whisper.batching.metrics import LoopMetrics, LoopStats
from batched_whisper.batching.policy import FixedWait, OfBatch, Policy
from batched_whisper.batching.queue import Item, ItemQueue
from batched_whisper.batching.scheduler import Limits, enough_encodes, plan
from batched_whisper.batching.sequence import Sequence, SequenceState, StepInputs
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.batching.slots import SlotTable
from batched_whisper.engines.encoder_input import encoder_input
from batched_whisper.engines.interface import (
    AlignRow,
    EncodeRow,
    Engine,
    PendingStep,
    StepResult,
    as_async_engine,
)
from batched_whisper.errors import EngineError, OptionError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class QueuedWindow:
    """A request, and the language that the windows of its recording share."""

    request: DecodeRequest
    language: SharedLanguage


WindowQueue = ItemQueue[QueuedWindow, DecodedTokens]
WindowItem = Item[QueuedWindow, DecodedTokens]
StepBatch = list[tuple[Sequence, StepInputs]]

_PATIENCE_S = 0.01
"""How long a loop without rows to step waits for another loop's language before it looks again."""


class EngineLoop:
    """Runs one engine for all windows.

    Args:
        engine: owned by the loop from here on: only its thread calls it, and closes it.
        max_batch_size: the most windows, and beams of windows, decoded together.
        policy: how long an idle engine waits for more windows.
        max_queue_size: the places in the queue.
        clock: times the policy's waiting.
        queue: a queue shared with other loops, with its own size and clock; default: a new one.
        roster: the loops that share the queue; default: this one alone.
        detokenizer: makes the texts for the verdicts; default: every text is empty.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch_size: int,
        policy: Policy | None = None,
        max_queue_size: int = 256,
        clock: Clock | None = None,
        queue: WindowQueue | None = None,
        roster: LoopRoster | None = None,
        detokenizer: Detokenizer | None = None,
    ) -> None:
        self.queue = ItemQueue(max_queue_size, clock) if queue is None else queue
        self._engine = engine
        self._ahead = as_async_engine(engine)
        self._policy = OfBatch(policy or FixedWait(20), max_batch_size)
        n_encodes = enough_encodes(max_batch_size, engine.info.tokens_per_step)
        self._limits = Limits(max_batch_size, max(n_encodes, engine.info.encode_batch_size))
        self._slots = SlotTable(max_batch_size)
        self._items: dict[Sequence, WindowItem] = {}
        self._metrics = LoopMetrics()
        self._health = EngineHealth()
        self._roster = roster or LoopRoster(1)
        self._detokenizer = NoText() if detokenizer is None else detokenizer
        self._thread = threading.Thread(target=self._run, name="whisper-engine", daemon=True)
        self._thread.start()

    @property
    def max_batch_size(self) -> int:
        """The most windows, and beams of windows, decoded together."""
        return self._limits.max_batch_size

    @property
    def stats(self) -> LoopStats:
        """The counters now."""
        return self._metrics.read(len(self.queue), len(self._slots))

    def submit(
        self,
        request: DecodeRequest,
        *,
        language: SharedLanguage | None = None,
        group: Hashable | None = None,
        priority: int = 0,
        wait: bool = True,
    ) -> Future[DecodedTokens]:
        """Queue a window; block while the queue is full. Raise `Closed` or `OptionError`.

        Cancelling the future removes the window from the queue, or from its slots before the next
        step.

        Args:
            request: the window and how to decode it.
            language: shared with the other windows of its recording; default: it detects its own.
            group: the group whose turns it uses; default: its own.
            priority: lower first.
            wait: false returns immediately; a window without a place waits outside the queue
                (`ItemQueue.put_queued`), so that a callback on the loop's own thread can call this.
        """
        n_slots, at_most = request.n_slots, self.max_batch_size
        if n_slots > at_most:
            raise OptionError(
                f"beam_size={n_slots} is more than the {at_most} windows that one engine decodes "
                "together (max_batch_size, divided among all engines), and each beam takes the "
                "place of a window; give fewer beams, or load the model with a larger "
                "max_batch_size or fewer engines (streams of the CPU)"
            )
        put = self.queue.put if wait else self.queue.put_queued
        window = QueuedWindow(request, SharedLanguage() if language is None else language)
        return put(window, group=group, priority=priority, size=n_slots)

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Accept no more windows, and return when the engine is closed, or after ``timeout_s``.

        With ``drain`` all accepted windows are answered first. Otherwise waiting windows fail with
        `Closed`, and windows in slots are answered.
        """
        self.queue.close(drain=drain)
        if not self.is_own_thread():
            self._thread.join(timeout_s)

    def is_own_thread(self) -> bool:
        """Return whether the caller runs on the loop's thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            while not self.queue.drained or len(self._slots):
                self._round()
                if self._health.broken_after_round() and self._roster.leave():
                    self._give_up()
                    break
        except BaseException as error:  # a defect of ours; no caller must wait forever
            broken = EngineError(f"the engine's loop broke: {error!r}")
            if not self._roster.leave():
                broken.none_left = True
                self.queue.close(drain=False)
            self._fail_all(broken)
            raise
        finally:
            self._close_engine()

    def _give_up(self) -> None:
        """Leave the queue to the other loops, because this engine is broken."""
        where, error = self._engine.info.device, self._health.last_error
        log.error("the engine on %s is broken and out of service: %s", where, error)
        gone = EngineError(
            f"the engine on {where} is broken and out of service; the other engines continue "
            f"({error})"
        )
        gone.__cause__ = error
        self._fail_all(gone)

    def _fail_all(self, error: EngineError) -> None:
        for sequence in self._slots:
            self._fail(sequence, error)

    def _close_engine(self) -> None:
        try:
            self._engine.close()
        except Exception as error:  # for example a lost device; all windows are answered already
            log.error("the engine on %s could not be closed: %s", self._engine.info.device, error)

    def _round(self) -> None:
        """Run one round. It ends with a step of all windows that can be stepped, if any.

        With asynchronous steps, the step of the encoded windows starts first, and windows are
        encoded for the next round while it runs.
        """
        self._drop_unwanted()
        for sequence in self._in_state(SequenceState.RETRY):
            self._retry(sequence)
        fed = self._fed() if self._ahead else []
        if not fed:
            self._admit_waiting()
            fed = self._fed()
        fed = self._copied(fed)
        if fed:
            self._step(fed)
        else:
            self._await_language()

    def _in_state(self, state: SequenceState) -> list[Sequence]:
        return [sequence for sequence in self._slots if sequence.state is state]

    def _admit_waiting(self) -> None:
        """Encode windows that are retried with more audio context, and newly admitted ones."""
        again = self._in_state(SequenceState.WAITING)
        items = self._take(len(again))
        admitted = [self._admit(item) for item in items if self._is_wanted(item)]
        self._encode([*again, *(sequence for sequence in admitted if sequence is not None)])

    def _take(self, n_again: int) -> list[WindowItem]:
        """Take the items to admit now; block while no slot is taken."""
        if len(self._slots):
            todo = plan(len(self.queue), self._slots.n_taken, n_again, self._limits)
            return self.queue.take_now(todo.n_admit, room=todo.n_free) if todo.n_admit else []
        room = self._limits.max_batch_size
        n_first = min(self._limits.max_encodes, room)
        return self.queue.take(n_first, self._policy, room=room)

    def _is_wanted(self, item: WindowItem) -> bool:
        if item.future.is_wanted:
            return True
        self._metrics.n_cancelled += 1
        item.future.set_exception(dropped())
        return False

    def _admit(self, item: WindowItem) -> Sequence | None:
        request = item.payload.request
        new = partial(
            Sequence,
            request,
            language=item.payload.language,
            detokenizer=self._detokenizer,
            tokens_per_step=self._engine.info.tokens_per_step,
        )
        try:
            sequence = self._slots.allocate(request.n_slots, new)
        except BaseException as error:  # the request's own rules
            self._metrics.n_failed += 1
            item.future.set_exception(failure(error))
            return None
        self._items[sequence] = item
        return sequence

    def _retry(self, sequence: Sequence) -> None:
        self._metrics.n_retries += 1
        sequence.try_again()
        if len(sequence.slots) > 1:  # a higher temperature needs only one
            self._release(sequence.slots[1:])

    def _encode(self, sequences: list[Sequence]) -> None:
        """Encode windows, up to ``encode_batch_size`` per call."""
        together = self._engine.info.encode_batch_size
        for i in range(0, len(sequences), together):
            began = time.perf_counter()
            rows: list[tuple[Sequence, EncodeRow]] = []
            for sequence in sequences[i : i + together]:
                context = sequence.attempt.audio_context
                try:
                    audio = encoder_input(sequence.request.audio, context)
                except Exception as error:  # for example features without a frame
                    self._fail(sequence, error)
                    continue
                rows.append((sequence, EncodeRow(sequence.slots[0], audio, context)))
            if rows:
                self._encode_rows(rows, began)

    def _encode_rows(self, rows: list[tuple[Sequence, EncodeRow]], began: float) -> None:
        """Encode in one call; if it fails, encode each alone, to fail only the window at fault."""
        try:
            self._engine.encode([row for _, row in rows])
        except BaseException as error:
            if len(rows) == 1:
                self._fail(rows[0][0], self._health.failed(error))
                return
            for each in rows:
                self._encode_rows([each], time.perf_counter())
            return
        self._metrics.encoded(len(rows), time.perf_counter() - began)
        for sequence, _ in rows:
            sequence.begin()

    def _step(self, fed: StepBatch) -> None:
        began = time.perf_counter()
        rows = [row for _, feed in fed for row in feed.rows]
        if self._ahead is None:
            self._finish(fed, partial(self._engine.step, rows), began)
            return
        try:
            started = self._ahead.start(rows)
        except Exception as error:
            self._fail_step(fed, error)
            return
        try:
            self._admit_waiting()
        finally:  # the protocol allows no other call before the step is finished
            self._finish(fed, started, began)

    def _finish(self, fed: StepBatch, started: PendingStep, began: float) -> None:
        try:
            results = started()
        except Exception as error:
            self._fail_step(fed, error)
            return
        self._health.stepped()
        self._metrics.stepped(len(results), time.perf_counter() - began)
        self._accept(fed, iter(results))

    def _fail_step(self, fed: StepBatch, error: Exception) -> None:
        why = self._health.failed(error)
        for sequence, _ in fed:
            self._fail(sequence, why)

    def _accept(self, fed: StepBatch, results: Iterator[StepResult | None]) -> None:
        done: list[Sequence] = []
        for sequence, feed in fed:
            own = list(islice(results, len(feed.rows)))
            try:
                sequence.accept(feed, own)
            except BaseException as error:  # the request's own rules
                self._fail(sequence, error)
                continue
            if sequence.state is SequenceState.DONE:
                done.append(sequence)
        self._deliver(done)

    def _await_language(self) -> None:
        """Sleep briefly: all windows wait for a language that another loop detects."""
        for sequence in self._in_state(SequenceState.DECODING)[:1]:
            sequence.shared_language.wait(_PATIENCE_S)

    def _fed(self) -> StepBatch:
        """Return the step's inputs, without windows that wait for a language or their audio."""
        fed: StepBatch = []
        for sequence in self._in_state(SequenceState.DECODING):
            try:
                feed = sequence.next_inputs()
            except BaseException as error:  # the request's own rules
                self._fail(sequence, error)
                continue
            if feed is not None:
                fed.append((sequence, feed))
        return fed

    def _copied(self, fed: StepBatch) -> StepBatch:
        """Copy the slots of texts that branched. Return the inputs that can be stepped."""
        copies = [row for _, feed in fed for row in feed.copies]
        try:
            if copies:
                self._engine.copy(copies)
            return fed
        except Exception as error:
            for sequence, feed in fed:
                if feed.copies:
                    self._fail(sequence, error)
            return [(sequence, feed) for sequence, feed in fed if not feed.copies]

    def _deliver(self, done: list[Sequence]) -> None:
        """Answer windows without word timestamps; align the texts of the others in one call."""
        asked: list[tuple[Sequence, AlignRow]] = []
        for sequence in done:
            try:
                row = sequence.align_row()
            except BaseException as error:  # the request's own data
                self._fail(sequence, error)
                continue
            if row is None:
                self._answer(sequence)
            else:
                asked.append((sequence, row))
        if asked:
            self._align(asked)

    def _align(self, asked: list[tuple[Sequence, AlignRow]]) -> None:
        """Align and answer; if it fails, align each alone, to fail only the window at fault."""
        try:
            alignments = self._engine.align([row for _, row in asked])
        except Exception as error:
            if len(asked) == 1:
                self._fail(asked[0][0], error)
                return
            for each in asked:
                self._align([each])
            return
        for (sequence, _), alignment in zip(asked, alignments, strict=True):
            sequence.accept_alignment(alignment)
            self._answer(sequence)

    def _answer(self, sequence: Sequence) -> None:
        assert sequence.result is not None
        self._metrics.n_windows += 1
        self._health.answered()
        self._leave(sequence).future.set_result(sequence.result)

    def _fail(self, sequence: Sequence, error: BaseException) -> None:
        sequence.state = SequenceState.CANCELLED
        self._metrics.n_failed += 1
        self._leave(sequence).future.set_exception(failure(error))

    def _leave(self, sequence: Sequence) -> WindowItem:
        self._slots.free(sequence)
        self._release(sequence.slots)
        return self._items.pop(sequence)

    def _release(self, slots: tuple[int, ...]) -> None:
        with suppress(Exception):  # the next window overwrites the slots in any case
            self._engine.release(slots)

    def _drop_unwanted(self) -> None:
        for sequence in self._slots:
            if not self._items[sequence].future.is_wanted:
                sequence.state = SequenceState.CANCELLED
                self._metrics.n_cancelled += 1
                self._leave(sequence).future.set_exception(dropped())
