"""Laws of several loops behind one queue: the results are those of one loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest
from scripted_windows import (
    ENGLISH,
    LANGUAGES,
    SOON_S,
    Stage,
    UntilClosed,
    either_order,
    number_in,
    run,
    said,
    window,
)

from batched_whisper.batching.clock import ManualClock
from batched_whisper.batching.decode_request import DecodedTokens
from batched_whisper.batching.engine_group import EngineGroup, total
from batched_whisper.batching.engine_health import MAX_FAILED_ROUNDS, LoopRoster
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.batching.policy import FixedWait
from batched_whisper.batching.shared_language import SharedLanguage
from batched_whisper.decoding.rules import MaskMode, TokenMask
from batched_whisper.engines.interface import EncodeRow, StepRow
from batched_whisper.engines.scripted import Script
from batched_whisper.errors import Closed, EngineError, OptionError

SCRIPTS = {number: Script((number % 30 + 1,) * (number % 7)) for number in range(60)}


def stages(n: int, max_slots: int = 4, async_steps: bool = False) -> list[Stage]:
    return [Stage(SCRIPTS, max_slots=max_slots, async_steps=async_steps) for _ in range(n)]


@either_order
@pytest.mark.parametrize("n_engines", [1, 2, 3])
def test_all_windows_are_answered_as_by_one_engine(n_engines: int, async_steps: bool) -> None:
    tasks = [window(number) for number in SCRIPTS]
    alone = [said(future) for future in run(Stage(SCRIPTS), tasks)]
    several = stages(n_engines, async_steps=async_steps)
    loops = EngineGroup(several, policy=UntilClosed(), max_queue_size=100, clock=ManualClock())
    futures = [loops.submit(task) for task in tasks]
    loops.close()
    assert [said(future) for future in futures] == alone
    assert not any(stage.held for stage in several)
    assert all(stage.engine.closed for stage in several)
    assert loops.stats.n_windows == len(tasks)
    assert loops.stats.n_active == loops.stats.queue_depth == 0


def test_while_one_engine_is_busy_another_takes_what_comes() -> None:
    others = threading.Event()
    held = threading.Event()

    def hold(number: int) -> None:
        if number == 0:
            held.set()
            assert others.wait(SOON_S)

    several = [Stage(SCRIPTS, max_slots=4, before_encode=hold) for _ in range(2)]
    loops = EngineGroup(several, policy=FixedWait(0))
    first = loops.submit(window(0))
    assert held.wait(SOON_S)
    for number in range(1, 9):  # one engine stands still, so these are the other one's
        assert said(loops.submit(window(number))) == SCRIPTS[number].tokens
    others.set()
    assert said(first) == SCRIPTS[0].tokens
    loops.close()
    assert sorted(len(stage.encoded) for stage in several) == [1, 8]


class Meeting:
    """Makes each of two engines wait before it encodes, until the other is ready to encode too."""

    def __init__(self) -> None:
        self._both = threading.Barrier(2, timeout=SOON_S)

    def __call__(self, number: int) -> None:
        if not self._both.broken:
            self._both.wait()


def two_windows_of_a_recording(
    several: list[Stage], shared: SharedLanguage
) -> tuple[EngineGroup, list[Future[DecodedTokens]]]:
    loops = EngineGroup(several, policy=FixedWait(0))
    requests = [window(number, languages=LANGUAGES) for number in range(2)]
    return loops, [loops.submit(request, language=shared) for request in requests]


@either_order
def test_a_window_waits_for_the_language_that_another_engine_detects(async_steps: bool) -> None:
    waits = threading.Event()

    class Watched(SharedLanguage):
        def wait(self, at_most_s: float) -> None:
            waits.set()
            super().wait(at_most_s)

    both = threading.Semaphore(0)

    def before_step(numbers: tuple[int, ...]) -> None:
        """Continue the first one when the other waits, or steps too."""
        if not both.acquire(blocking=False):
            both.release()
            assert waits.wait(SOON_S)
        waits.set()

    scripts = {0: Script((1, 2), ENGLISH), 1: Script((3, 4), ENGLISH)}
    meeting = Meeting()
    several = [
        Stage(
            scripts,
            max_slots=1,
            async_steps=async_steps,
            before_encode=meeting,
            before_step=before_step,
        )
        for _ in range(2)
    ]
    loops, futures = two_windows_of_a_recording(several, Watched())
    assert {said(future) for future in futures} == {(1, 2), (3, 4)}
    loops.close()
    rows = [row for stage in several for row in stage.rows]
    assert sum(_detects(row) for row in rows) == 1


def _detects(row: StepRow) -> bool:
    return row.allowed is not None and row.allowed.mask == TokenMask(MaskMode.ONLY, LANGUAGES)


@either_order
def test_where_the_detecting_window_fails_in_one_engine_the_other_engine_detects(
    async_steps: bool,
) -> None:
    scripts = {0: Script((1, 2), ENGLISH), 1: Script((3, 4), ENGLISH)}
    meeting = Meeting()
    failed = threading.Lock()

    def fail_once(numbers: tuple[int, ...]) -> None:
        if failed.acquire(blocking=False):  # whoever steps first is the one that detects
            raise ArithmeticError

    several = [
        Stage(
            scripts,
            max_slots=1,
            async_steps=async_steps,
            before_encode=meeting,
            after_step=fail_once,
        )
        for _ in range(2)
    ]
    loops, futures = two_windows_of_a_recording(several, SharedLanguage())
    errors = [future.exception(SOON_S) for future in futures]
    assert [type(error) for error in errors if error] == [EngineError]
    [heard] = [future.result() for future in futures if not future.exception()]
    assert heard.language is not None and heard.language.token == ENGLISH
    loops.close()


# --- engines that break ---------------------------------------------------------------------------

N_SLOTS = 4


@dataclass
class Watched(Stage):
    """Signals when it is closed."""

    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        super().close()
        self.closed.set()


def one_breaks(
    fault: Callable[[tuple[int, ...]], None], at: str = "before_step", async_steps: bool = False
) -> tuple[EngineGroup, Watched, Watched]:
    """Break the first engine; start the other one when that one is closed."""
    breaks = Watched(SCRIPTS, max_slots=N_SLOTS, async_steps=async_steps)
    setattr(breaks, at, fault)

    def hold(number: int) -> None:
        assert breaks.closed.wait(SOON_S)

    sound = Watched(SCRIPTS, max_slots=N_SLOTS, async_steps=async_steps, before_encode=hold)
    return EngineGroup([breaks, sound], policy=FixedWait(0)), breaks, sound


def assert_the_other_goes_on(loops: EngineGroup, breaks: Watched, sound: Watched) -> None:
    """The windows in the broken engine fail; all others are answered, also later ones."""
    futures = {number: loops.submit(window(number)) for number in SCRIPTS}
    lost = {number for number, future in futures.items() if said(future) == "EngineError"}
    assert lost == {number for number, _ in breaks.encoded}
    assert 0 < len(lost) <= MAX_FAILED_ROUNDS * N_SLOTS
    for number in SCRIPTS.keys() - lost:
        assert said(futures[number]) == SCRIPTS[number].tokens
    assert said(loops.submit(window(7))) == SCRIPTS[7].tokens
    assert not sound.closed.is_set()
    loops.close()
    assert not breaks.held and not sound.held
    assert breaks.engine.closed and breaks.engine.journal.violations == []
    assert loops.stats.n_failed == len(lost)
    assert loops.stats.n_active == 0


@either_order
@pytest.mark.parametrize("at", ["before_step", "after_step"])
def test_an_engine_that_only_fails_leaves_the_queue_to_the_others(
    at: str, async_steps: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(numbers: tuple[int, ...]) -> None:
        raise RuntimeError("the GPU fell off the bus")

    loops, breaks, sound = one_breaks(fail, at, async_steps)
    assert_the_other_goes_on(loops, breaks, sound)
    assert "out of service" in caplog.text and "fell off the bus" in caplog.text


@either_order
def test_an_engine_that_cannot_encode_any_more_leaves_too(async_steps: bool) -> None:
    loops, breaks, sound = one_breaks(lambda numbers: None, async_steps=async_steps)

    def encode(rows: Sequence[EncodeRow]) -> None:
        breaks.encoded.extend((number_in(row.features), 0) for row in rows)
        raise RuntimeError("the GPU fell off the bus")

    breaks.encode = encode  # type: ignore[method-assign]
    assert_the_other_goes_on(loops, breaks, sound)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@either_order
@pytest.mark.parametrize("at", ["before_step", "after_step"])
def test_a_loop_that_dies_takes_only_its_own_windows_with_it(at: str, async_steps: bool) -> None:
    def die(numbers: tuple[int, ...]) -> None:
        raise SystemExit

    loops, breaks, sound = one_breaks(die, at, async_steps)
    assert_the_other_goes_on(loops, breaks, sound)
    assert len(breaks.steps) == 1


def test_a_window_that_waited_in_a_slot_of_an_engine_given_up_is_told_so() -> None:
    class OfAnotherEngine(SharedLanguage):
        def may_detect(self, sequence: object) -> bool:
            return False

    def fail(numbers: tuple[int, ...]) -> None:
        raise RuntimeError("the GPU fell off the bus")

    stage = Stage(SCRIPTS, max_slots=N_SLOTS, before_step=fail)
    loop = EngineLoop(
        stage,
        max_batch_size=N_SLOTS,
        policy=UntilClosed(),
        clock=ManualClock(),
        roster=LoopRoster(2),
    )
    waits = loop.submit(window(0, languages=LANGUAGES), language=OfAnotherEngine())
    for number in range(1, 20):
        loop.submit(window(number))
    loop.close()
    with pytest.raises(EngineError, match=r"on none .*out of service.*fell off the bus"):
        waits.result(SOON_S)
    assert stage.engine.closed and not stage.held


def test_the_last_engine_stays_whatever_happens_and_serves_on_when_it_is_well() -> None:
    ill = threading.Event()
    ill.set()

    def fail(numbers: tuple[int, ...]) -> None:
        if ill.is_set():
            raise RuntimeError("no")

    several = [Watched(SCRIPTS, max_slots=N_SLOTS, before_step=fail) for _ in range(3)]
    loops = EngineGroup(several, policy=FixedWait(0))
    futures = [loops.submit(window(number)) for number in SCRIPTS]
    assert {said(future) for future in futures} == {"EngineError"}
    ill.clear()
    for number in range(7):
        assert said(loops.submit(window(number))) == SCRIPTS[number].tokens
    loops.close()
    assert all(stage.closed.is_set() for stage in several)


def none_left(future: Future[DecodedTokens]) -> bool:
    error = future.exception(SOON_S)
    assert isinstance(error, EngineError)
    return error.none_left


def test_a_window_is_told_that_no_engine_is_left_only_by_the_last_one_and_while_it_is_broken() -> (
    None
):
    ill = threading.Event()
    ill.set()

    def fail(numbers: tuple[int, ...]) -> None:
        if ill.is_set():
            raise RuntimeError("no")

    loops = EngineGroup(
        [Watched(SCRIPTS, max_slots=1, before_step=fail) for _ in range(3)], policy=FixedWait(0)
    )
    told = [none_left(loops.submit(window(number))) for number in range(4 * MAX_FAILED_ROUNDS)]
    assert (
        sum(told) == MAX_FAILED_ROUNDS and told[-1]
    )  # two engines leave, the last is found broken
    ill.clear()
    assert said(loops.submit(window(5))) == SCRIPTS[5].tokens
    ill.set()
    assert not none_left(loops.submit(window(6)))
    loops.close()


def test_an_engine_that_steps_again_is_left_though_windows_fail_in_it() -> None:
    meanwhile: list[Future[DecodedTokens]] = []

    def refuse(number: int) -> None:
        if number % 2:
            raise RuntimeError("not this one")

    def bring_more(numbers: tuple[int, ...]) -> None:
        if len(meanwhile) < 3:
            meanwhile.append(loops.submit(window(1), wait=False))

    stage = Stage(SCRIPTS, max_slots=2, before_encode=refuse, before_step=bring_more)
    loops = EngineGroup([stage], policy=FixedWait(0))
    told = [none_left(loops.submit(window(1))) for _ in range(MAX_FAILED_ROUNDS + 1)]
    assert told == [False] * MAX_FAILED_ROUNDS + [True]
    assert said(loops.submit(window(6))) == SCRIPTS[6].tokens
    assert [none_left(future) for future in meanwhile] == [False] * 3
    loops.close()


@either_order
def test_an_engine_that_answers_stays_though_some_windows_fail_in_it(
    async_steps: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One of any four successive windows is answered, and idle engines take four."""

    def refuse(number: int) -> None:
        if number % 3:
            raise RuntimeError("not this one")

    several = [
        Stage(SCRIPTS, max_slots=N_SLOTS, async_steps=async_steps, before_encode=refuse)
        for _ in range(2)
    ]
    loops = EngineGroup(several, policy=UntilClosed(), clock=ManualClock())
    futures = [loops.submit(window(number)) for number in SCRIPTS]
    loops.close()
    for number, future in enumerate(futures):
        assert said(future) == ("EngineError" if number % 3 else SCRIPTS[number].tokens)
    assert "out of service" not in caplog.text


def test_an_engine_that_cannot_be_closed_blocks_no_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Stage):
        def close(self) -> None:
            raise RuntimeError("the context is gone")

    loops = EngineGroup([Stuck(SCRIPTS), Stage(SCRIPTS)], policy=FixedWait(0))
    assert said(loops.submit(window(5))) == SCRIPTS[5].tokens
    loops.close()
    assert "could not be closed: the context is gone" in caplog.text


def test_without_draining_what_waits_fails_and_every_engine_is_closed() -> None:
    several = stages(2)
    loops = EngineGroup(several, policy=UntilClosed(), clock=ManualClock())
    future = loops.submit(window(3))
    loops.close(drain=False)
    assert said(future) in ("Closed", SCRIPTS[3].tokens)  # taken already, or not
    assert all(stage.engine.closed for stage in several)
    with pytest.raises(Closed):
        loops.submit(window(1))


def test_a_window_must_fit_into_one_engine() -> None:
    from batched_whisper.decoding.beam import Beams

    loops = EngineGroup(stages(2, max_slots=2), policy=FixedWait(0))
    both_numbers = "beam_size=3 .* the 2 windows that one engine"
    with pytest.raises(OptionError, match=both_numbers):
        loops.submit(window(1, beams=Beams(size=3)))
    loops.close()


def test_figures_add_up_and_the_shared_queue_counts_once() -> None:
    one = LoopStats(n_windows=3, largest_batch=2, queue_depth=5, step_s=1.5, n_active=1)
    other = LoopStats(n_windows=4, largest_batch=6, queue_depth=5, step_s=0.5, n_active=2)
    assert total([one, other]) == LoopStats(
        n_windows=7, largest_batch=6, queue_depth=5, step_s=2.0, n_active=3
    )
