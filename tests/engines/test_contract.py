"""The laws of `interface.Engine`, for every engine that is installed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from installed import EVERY, Installed
from numpy.typing import NDArray
from tiny_whisper import (
    ANY_TEXT,
    ANYTHING,
    BEGIN,
    IDS,
    N_AUDIO_CTX,
    N_MELS,
    N_TEXT_CTX,
    Heard,
    check,
    random_text,
    reference_logits,
)

from batched_whisper.decoding.rules import EVERYTHING, Allowed, MaskMode, Rules, TokenMask
from batched_whisper.decoding.sampling import Sampling
from batched_whisper.engines.interface import (
    CopyRow,
    EncodeRow,
    Engine,
    StepResult,
    StepRow,
    as_async_engine,
)
from batched_whisper.errors import EngineError

N_SLOTS = 6


class Bench:
    """An engine under test, and its tolerance against the reference."""

    def __init__(self, engine: Engine, installed: Installed) -> None:
        self.engine = engine
        self.tolerance = installed.tolerance

    def hears(self, slot: int, heard: Heard) -> None:
        self.engine.encode([heard.row(slot)])

    def step(self, *rows: StepRow) -> list[StepResult | None]:
        return self.engine.step(rows)

    def reads(
        self, slot: int, text: tuple[int, ...], allowed: Allowed = ANYTHING, position: int = 0
    ) -> list[StepResult]:
        """Feed a text one by one."""
        found = []
        for i, token in enumerate(text, position):
            [result] = self.step(StepRow(slot, (token,), i, allowed))
            assert result is not None
            found.append(result)
        return found

    def agree(
        self, found: list[StepResult], heard: Heard, text: tuple[int, ...], allowed: Allowed
    ) -> None:
        """What was said after each of the last tokens of a text is what NumPy says."""
        logits = reference_logits(heard, text)[-len(found) :]
        for result, after in zip(found, logits, strict=True):
            check(result, StepRow(0, (0,), 0, allowed), after, self.tolerance)


@pytest.fixture(scope="module", params=EVERY, ids=lambda installed: installed.name)
def started(request: pytest.FixtureRequest) -> Iterator[Bench]:
    installed: Installed = request.param
    engine = installed.make(N_SLOTS, None)
    yield Bench(engine, installed)
    engine.close()


@pytest.fixture
def bench(started: Bench) -> Bench:
    started.engine.release(range(N_SLOTS))
    return started


A, B, SHORT = Heard(0, 60), Heard(1, 60), Heard(2, 8)
TEXT, OTHER = random_text(0, 12), random_text(1, 12)


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize("audio_context", [1, 29, 30, 31, 84, 119, N_AUDIO_CTX])
def test_step_agrees_with_numpy(bench: Bench, audio_context: int) -> None:
    heard = Heard(3, audio_context)
    bench.hears(0, heard)
    bench.agree(bench.reads(0, TEXT), heard, TEXT, ANYTHING)


@pytest.mark.parametrize("installed", EVERY, ids=lambda installed: installed.name)
def test_encode_of_the_shortest_window_first(installed: Installed) -> None:
    """It once made OpenVINO's encoder compute wrong results for all later windows."""
    bench = Bench(installed.make(1, None), installed)
    for audio_context in (1, 29, N_AUDIO_CTX):
        heard = Heard(3, audio_context)
        bench.hears(0, heard)
        bench.agree(bench.reads(0, TEXT[:4]), heard, TEXT[:4], ANYTHING)
    bench.engine.close()


def test_reference_depends_on_the_audio_its_length_and_every_token() -> None:
    """Otherwise these tests would show nothing."""
    last = reference_logits(A, TEXT)[-1]
    for other in (
        reference_logits(B, TEXT)[-1],
        reference_logits(Heard(0, 59), TEXT)[-1],
        reference_logits(A, (7, *TEXT[1:]))[-1],
        reference_logits(A, TEXT[1:])[-1],
    ):
        assert np.abs(last - other).max() > 0.1


def test_step_at_position_0_restarts_the_text_on_the_same_audio(bench: Bench) -> None:
    bench.hears(0, A)
    bench.reads(0, TEXT)
    bench.agree(bench.reads(0, OTHER), A, OTHER, ANYTHING)


def test_step_at_an_earlier_position_discards_later_tokens(bench: Bench) -> None:
    bench.hears(0, A)
    bench.reads(0, TEXT)
    found = bench.reads(0, OTHER[:3], position=5)
    bench.agree(found, A, TEXT[:5] + OTHER[:3], ANYTHING)


@pytest.mark.parametrize("audio_context", [8, 60, 61, 120])
def test_encode_replaces_a_slots_audio(bench: Bench, audio_context: int) -> None:
    again = Heard(1, audio_context)
    bench.hears(0, A)
    bench.reads(0, TEXT)
    bench.hears(0, again)
    bench.agree(bench.reads(0, TEXT), again, TEXT, ANYTHING)


def test_encode_clears_a_slots_text(bench: Bench) -> None:
    bench.hears(0, A)
    bench.reads(0, TEXT)
    bench.hears(0, B)
    with pytest.raises(EngineError):
        bench.step(StepRow(0, (1,), len(TEXT), ANYTHING))


@pytest.mark.parametrize("n_tokens", [2, 3, 12])
def test_step_with_many_tokens_equals_one_by_one(bench: Bench, n_tokens: int) -> None:
    bench.hears(0, A)
    whole, rest = TEXT[:n_tokens], TEXT[n_tokens:]
    [result] = bench.step(StepRow(0, whole, 0, ANYTHING))
    assert result is not None
    bench.agree([result, *bench.reads(0, rest, position=n_tokens)], A, TEXT, ANYTHING)


def test_step_rows_may_have_different_numbers_of_tokens(bench: Bench) -> None:
    heard = [A, B, SHORT, Heard(4, 120)]
    for slot, each in enumerate(heard):
        bench.hears(slot, each)
    bench.reads(2, TEXT[:1])
    rows = [
        StepRow(3, TEXT[:3], 0, ANYTHING),
        StepRow(0, TEXT[:1], 0, ANYTHING),
        StepRow(2, TEXT[1:3], 1, ANYTHING),
        StepRow(1, TEXT[:3], 0, ANYTHING),
    ]
    for row, result in zip(rows, bench.step(*rows), strict=True):
        said = TEXT[: row.position + len(row.tokens)]
        check(result, row, reference_logits(heard[row.slot], said)[-1], bench.tolerance)


def test_steps_can_fill_the_text_context(bench: Bench) -> None:
    """Its caches grow on the way, without affecting idle slots."""
    text = random_text(5, N_TEXT_CTX)
    bench.hears(0, A)
    bench.hears(1, B)
    bench.reads(1, TEXT[:4])
    bench.agree(bench.reads(0, text), A, text, ANYTHING)
    bench.agree(bench.reads(1, TEXT[4:], position=4), B, TEXT, ANYTHING)  # beside a full one
    bench.engine.release([0])
    bench.agree(bench.reads(1, OTHER, position=12), B, TEXT + OTHER, ANYTHING)


def test_one_step_can_fill_the_text_context(bench: Bench) -> None:
    text = random_text(6, N_TEXT_CTX)
    bench.hears(0, A)
    [result] = bench.step(StepRow(0, text, 0, ANYTHING))
    assert result is not None
    bench.agree([result], A, text, ANYTHING)


def test_step_with_a_short_text_leaves_a_long_one_intact(bench: Bench) -> None:
    long = random_text(7, 300)
    bench.hears(0, A)
    bench.hears(1, B)
    bench.step(StepRow(0, long, 0, None))
    [result] = bench.step(StepRow(1, TEXT, 0, ANYTHING))
    assert result is not None
    bench.agree([result], B, TEXT, ANYTHING)
    bench.agree(bench.reads(0, OTHER, position=300), A, long + OTHER, ANYTHING)


# --- what may be said -----------------------------------------------------------------------------


def some_rules(timestamps: bool) -> Rules:
    return Rules(
        IDS,
        suppress=frozenset(range(IDS.eot + 1, BEGIN)) | {3, 25},
        suppress_begin=frozenset([13, IDS.eot]),
        timestamps=timestamps,
    )


@pytest.mark.parametrize("timestamps", [False, True])
def test_steps_by_rules_give_the_reference_texts(bench: Bench, timestamps: bool) -> None:
    rules = some_rules(timestamps)
    bench.hears(0, A)
    text: tuple[int, ...] = (151, 152)
    sampled = list[int]()
    [result] = bench.step(StepRow(0, text, 0, rules.next([])))
    while len(sampled) < 30:
        assert result is not None
        row = StepRow(0, text[-1:], len(text) - 1, rules.next(sampled))
        check(result, row, reference_logits(A, text)[-1], bench.tolerance)
        # Now and then something else is said than was chosen, to get out of its loops.
        surprise = 10 if not timestamps or sampled[-1:] != [BEGIN + 5] else BEGIN + 5
        sampled.append(result.token if len(sampled) % 3 else surprise)
        text = (*text, sampled[-1])
        [result] = bench.step(StepRow(0, text[-1:], len(text) - 1, rules.next(sampled)))


def test_allowed_mask_applies_to_its_own_row(bench: Bench) -> None:
    """With many more masks than a model uses, several in one step."""
    random = np.random.default_rng(0)
    for slot in range(N_SLOTS):
        bench.hears(slot, Heard(slot, 20 * slot + 10))
    for position in range(12):
        rows = []
        for slot in range(N_SLOTS):
            listed = frozenset(int(t) for t in random.integers(0, BEGIN, random.integers(1, 99)))
            mode = MaskMode.ONLY if random.integers(2) else MaskMode.ALL_BUT
            first = int(random.integers(BEGIN, IDS.n_vocab))
            span = range(first, int(random.integers(first, IDS.n_vocab)) + 1)
            timed = span if random.integers(2) else range(0)
            allowed = Allowed(TokenMask(mode, listed), timed)
            rows.append(StepRow(slot, (TEXT[position],), position, allowed))
        for row, result in zip(rows, bench.step(*rows), strict=True):
            heard = Heard(row.slot, 20 * row.slot + 10)
            logits = reference_logits(heard, TEXT[: position + 1])[-1]
            check(result, row, logits, bench.tolerance)


@pytest.mark.parametrize("token", [0, IDS.eot, BEGIN - 1])
def test_allowed_of_one_token_has_probability_1(bench: Bench, token: int) -> None:
    bench.hears(0, A)
    only = Allowed(TokenMask(MaskMode.ONLY, frozenset([token])))
    [result] = bench.step(StepRow(0, (1,), 0, only))
    assert result is not None
    assert result.token == token
    assert result.logprob == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("token", [BEGIN, IDS.n_vocab - 1])
def test_allowed_of_one_timestamp_has_probability_1(bench: Bench, token: int) -> None:
    bench.hears(0, A)
    only = Allowed(TokenMask(MaskMode.ONLY, frozenset()), range(token, token + 1))
    [result] = bench.step(StepRow(0, (1,), 0, only))
    assert result is not None
    assert result.token == token
    assert result.logprob == pytest.approx(0, abs=1e-5)


def test_step_result_is_none_without_allowed(bench: Bench) -> None:
    bench.hears(0, A)
    bench.hears(1, B)
    silent, asked = bench.step(StepRow(0, TEXT[:1], 0, None), StepRow(1, TEXT[:1], 0, ANYTHING))
    assert silent is None
    assert asked is not None
    bench.agree(bench.reads(0, TEXT[1:], position=1), A, TEXT, ANYTHING)


@pytest.mark.parametrize("allowed", [None, ANY_TEXT])
@pytest.mark.parametrize("n_tokens", [1, 4])
def test_probe_returns_a_probability_over_all_tokens(
    bench: Bench, allowed: Allowed | None, n_tokens: int
) -> None:
    bench.hears(0, A)
    for probe in (IDS.no_speech, BEGIN + 3, 0):
        row = StepRow(0, TEXT[:n_tokens], 0, allowed, probe=probe)
        [result] = bench.step(row)
        check(result, row, reference_logits(A, TEXT[:n_tokens])[-1], bench.tolerance)


# --- chance ---------------------------------------------------------------------------------------


def test_step_mixes_greedy_and_sampling_rows(bench: Bench) -> None:
    for slot in range(N_SLOTS):
        bench.hears(slot, A)
    for position, token in enumerate(TEXT):
        rows = [
            StepRow(slot, (token,), position, ANYTHING, Sampling(slot * 0.4, seed=slot))
            for slot in range(N_SLOTS)
        ]
        logits = reference_logits(A, TEXT[: position + 1])[-1]
        for row, result in zip(rows, bench.step(*rows), strict=True):
            check(result, row, logits, bench.tolerance)


def test_sampling_with_a_seed_does_not_depend_on_other_rows(bench: Bench) -> None:
    def sampled() -> list[StepResult | None]:
        return [
            bench.step(StepRow(0, (token,), i, ANY_TEXT, Sampling(1.0, seed=5)))[0]
            for i, token in enumerate(TEXT)
        ]

    bench.hears(0, A)
    alone = sampled()
    for slot in range(1, N_SLOTS):
        bench.hears(slot, B)
        bench.reads(slot, TEXT[:slot])
    assert [each and each.token for each in sampled()] == [each and each.token for each in alone]


# --- several tokens per call ----------------------------------------------------------------------


def spoken(
    bench: Bench, slot: int, rules: Rules, n_tokens: int, sampling: Sampling, limit: int
) -> list[tuple[int, float]]:
    """Decode a text in one slot with ``n_tokens`` per step; return its choices."""
    fed, sampled = TEXT[:2], list[tuple[int, float]]()
    position = 0
    while len(sampled) < limit:
        said = [token for token, _ in sampled]
        at_most = min(n_tokens, limit - len(sampled))
        [result] = bench.step(
            StepRow(
                slot,
                fed,
                position,
                rules.next(said),
                sampling,
                n_tokens=at_most,
                constraints=rules.constraints(said),
            )
        )
        assert result is not None
        found = [(result.token, result.logprob), *((c.token, c.logprob) for c in result.more)]
        assert len(found) <= min(at_most, bench.engine.info.tokens_per_step)
        assert IDS.eot not in [token for token, _ in found[:-1]]
        sampled += found
        if sampled[-1][0] == IDS.eot:
            break
        position += len(fed) + len(result.more)
        fed = (sampled[-1][0],)
    return sampled


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("n_tokens", [2, 5, 8, 30])
def test_tokens_per_step_equal_separate_steps(
    bench: Bench, timestamps: bool, temperature: float, n_tokens: int
) -> None:
    rules = some_rules(timestamps).with_sound_until(0.9)
    for slot in range(2):
        bench.hears(slot, Heard(slot, 60))
    for slot in range(2):
        sampling = Sampling(temperature, seed=slot)
        alone = spoken(bench, slot, rules, 1, sampling, 20)
        together = spoken(bench, slot, rules, n_tokens, sampling, 20)
        assert [token for token, _ in together] == [token for token, _ in alone]
        for (_, found), (_, expected) in zip(together, alone, strict=True):
            assert found == pytest.approx(expected, abs=bench.tolerance)


def test_tokens_per_step_are_used_up(bench: Bench) -> None:
    rules = Rules(IDS, suppress=frozenset([IDS.eot]), suppress_begin=frozenset(), timestamps=False)
    bench.hears(0, A)
    at_most = bench.engine.info.tokens_per_step
    row = StepRow(
        0, TEXT[:2], 0, rules.next([]), n_tokens=at_most, constraints=rules.constraints([])
    )
    [result] = bench.step(row)
    assert result is not None
    assert len(result.more) == at_most - 1


def test_tokens_per_step_stop_at_the_end_of_text(bench: Bench) -> None:
    rules = some_rules(False)
    bench.hears(0, A)
    only_the_end = Allowed(TokenMask(MaskMode.ONLY, frozenset([IDS.eot])))
    row = StepRow(0, TEXT[:2], 0, only_the_end, n_tokens=5, constraints=rules.constraints([]))
    [result] = bench.step(row)
    assert result is not None
    assert (result.token, result.more) == (IDS.eot, ())


def test_step_rows_may_have_different_n_tokens(bench: Bench) -> None:
    """Each stops where it should, beside prompts, probes and rows with one token."""
    rules = Rules(
        IDS,
        suppress=frozenset(range(IDS.eot, BEGIN)),
        suppress_begin=frozenset(),
        timestamps=False,
    )
    for slot in range(4):
        bench.hears(slot, Heard(slot, 40))
    constraints = rules.constraints([])
    rows = [
        StepRow(0, TEXT[:3], 0, rules.next([]), n_tokens=6, constraints=constraints),
        StepRow(1, TEXT[:1], 0, ANYTHING, probe=IDS.no_speech),
        StepRow(2, TEXT[:4], 0, None),
        StepRow(3, TEXT[:2], 0, rules.next([]), n_tokens=2, constraints=constraints),
    ]
    first, second, third, last = bench.step(*rows)
    assert first is not None
    assert last is not None
    assert second is not None
    assert third is None
    assert second.more == ()
    assert len(last.more) <= 1
    for slot, row, result in ((0, rows[0], first), (3, rows[3], last)):
        said = (result.token, *(choice.token for choice in result.more))
        fed = row.tokens + said
        [after] = bench.step(StepRow(slot, said[-1:], len(fed) - 1, ANYTHING))
        assert after is not None
        bench.agree([after], Heard(slot, 40), fed, ANYTHING)


def test_async_step_is_not_affected_by_encode_and_release(bench: Bench) -> None:
    """Tests all memory shared with a step: inputs, outputs, staged batches."""
    ahead = as_async_engine(bench.engine)
    if ahead is None:
        return
    first, others = [Heard(i, 20 + i) for i in range(3)], [Heard(9 + i, 60 + i) for i in range(3)]
    for slot, each in enumerate(first):
        bench.hears(slot, each)
    bench.hears(4, Heard(30, 7))
    texts = [random_text(slot, 5 + slot) for slot in range(3)]
    finish = ahead.start([StepRow(slot, text, 0, ANYTHING) for slot, text in enumerate(texts)])
    ahead.encode([each.row(3 + i) for i, each in enumerate(others)])
    ahead.release([5])
    for each in others:
        ahead.encode([each.row(5)])
    for each, text, result in zip(first, texts, finish(), strict=True):
        assert result is not None
        bench.agree([result], each, text, ANYTHING)
    for slot, each in ((3, others[0]), (4, others[1]), (5, others[2])):
        bench.agree(bench.reads(slot, texts[0]), each, texts[0], ANYTHING)


def test_probe_at_reads_within_a_whole_prompt(bench: Bench) -> None:
    if bench.engine.info.tokens_per_step == 1:
        pytest.skip("an engine that says one token a call gets no whole prompts")
    bench.hears(0, A)
    row = StepRow(0, TEXT[:5], 0, ANYTHING, probe=IDS.no_speech, probe_at=2)
    [result] = bench.step(row)
    assert result is not None
    assert result.probed is not None
    asked = StepRow(0, TEXT[:3], 0, None, probe=IDS.no_speech)
    check(result, asked, reference_logits(A, TEXT[:3])[-1], bench.tolerance)
    bench.agree([result], A, TEXT[:5], ANYTHING)


# --- several texts of one window ------------------------------------------------------------------


@pytest.mark.parametrize("n_best", [1, 2, 6, 11, IDS.n_vocab + 5])
@pytest.mark.parametrize(
    "allowed",
    [
        ANYTHING,
        ANY_TEXT,
        Allowed(TokenMask(MaskMode.ONLY, frozenset([3, 5, 99])), range(BEGIN, BEGIN + 2)),
        Allowed(TokenMask(MaskMode.ONLY, frozenset()), range(BEGIN + 4, IDS.n_vocab)),
        Allowed(TokenMask(MaskMode.ONLY, frozenset([7]))),
    ],
    ids=["anything", "any text", "five tokens", "timestamps", "one token"],
)
def test_n_best_equals_numpy(bench: Bench, allowed: Allowed, n_best: int) -> None:
    bench.hears(0, A)
    for i, token in enumerate(TEXT):
        row = StepRow(0, (token,), i, allowed, n_best=n_best)
        [result] = bench.step(row)
        check(result, row, reference_logits(A, TEXT[: i + 1])[-1], bench.tolerance)


def test_n_best_does_not_affect_other_rows(bench: Bench) -> None:
    for slot in range(3):
        bench.hears(slot, A)
    for i, token in enumerate(TEXT):
        rows = [
            StepRow(0, (token,), i, ANYTHING),
            StepRow(1, (token,), i, ANYTHING, n_best=6, probe=IDS.no_speech),
            StepRow(2, (token,), i, ANYTHING, Sampling(0.8, 3), n_best=2),
        ]
        for row, result in zip(rows, bench.step(*rows), strict=True):
            check(result, row, reference_logits(A, TEXT[: i + 1])[-1], bench.tolerance)


def copied(*pairs: tuple[int, int]) -> list[CopyRow]:
    return [CopyRow(source, target) for source, target in pairs]


@pytest.mark.parametrize("held", [None, A, B, SHORT, Heard(6, 59), Heard(6, 61)])
def test_copy_continues_as_its_source(bench: Bench, held: Heard | None) -> None:
    bench.hears(0, A)
    bench.reads(0, TEXT[:5])
    if held is not None:
        bench.hears(1, held)
        bench.reads(1, OTHER)
    bench.engine.copy(copied((0, 1)))
    for slot in (1, 0):
        bench.agree(bench.reads(slot, TEXT[5:], position=5), A, TEXT, ANYTHING)


def test_copies_are_independent_and_outlive_their_source(bench: Bench) -> None:
    bench.hears(0, A)
    bench.reads(0, TEXT[:5])
    bench.engine.copy(copied((0, 3), (0, 1)))
    for slot, seed in ((0, 11), (1, 12), (3, 13)):
        tail = random_text(seed, 6)
        bench.agree(bench.reads(slot, tail, position=5), A, TEXT[:5] + tail, ANYTHING)
    bench.engine.release([0])
    bench.hears(0, B)
    for slot, seed in ((1, 12), (3, 13)):
        text = TEXT[:5] + random_text(seed, 6) + OTHER
        bench.agree(bench.reads(slot, OTHER, position=11), A, text, ANYTHING)


def test_copy_between_beams_of_several_windows(bench: Bench) -> None:
    """Each time one text of a window is replaced by a copy of another."""
    heard = {0: A, 1: A, 2: SHORT, 3: SHORT, 4: B}
    texts: dict[int, tuple[int, ...]] = {}
    for slot in (0, 2, 4):
        bench.hears(slot, heard[slot])
        bench.reads(slot, TEXT[:2])
        texts[slot] = TEXT[:2]
    for turn in range(8):
        source, target = (0, 1) if turn % 3 < 2 else (1, 0)
        bench.engine.copy(copied((source, target), (source + 2, target + 2)))
        texts[target], texts[target + 2] = texts[source], texts[source + 2]
        rows = [
            StepRow(slot, (17 * turn + 3 * slot,), 2 + turn, ANYTHING, n_best=3) for slot in heard
        ]
        for row, result in zip(rows, bench.step(*rows), strict=True):
            texts[row.slot] += row.tokens
            logits = reference_logits(heard[row.slot], texts[row.slot])[-1]
            check(result, row, logits, bench.tolerance)


def test_copy_transfers_audio_that_was_encoded_again(bench: Bench) -> None:
    for heard in (A, B, Heard(3, 58), SHORT, A):
        bench.hears(0, heard)
        bench.reads(0, TEXT[:3])
        bench.engine.copy(copied((0, 2), (0, 1)))
        for slot in (2, 1, 0):
            bench.agree(bench.reads(slot, TEXT[3:6], position=3), heard, TEXT[:6], ANYTHING)


def test_copy_to_a_released_slot(bench: Bench) -> None:
    bench.hears(0, A)
    bench.reads(0, TEXT[:3])
    for _ in range(3):
        bench.engine.copy(copied((0, 2), (0, 1)))
        for slot in (1, 2, 0):
            bench.agree(bench.reads(slot, TEXT[3:6], position=3), A, TEXT[:6], ANYTHING)
        bench.engine.release([2, 1])


def test_copy_of_a_slot_without_text(bench: Bench) -> None:
    bench.hears(0, A)
    bench.hears(1, B)
    bench.reads(1, TEXT)
    bench.engine.copy(copied((0, 1)))
    with pytest.raises(EngineError):
        bench.step(StepRow(1, (1,), 1, ANYTHING))
    bench.agree(bench.reads(1, OTHER), A, OTHER, ANYTHING)


# --- slots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("released", [[0], [2], [1, 3], [3, 1], [0, 1, 2]])
def test_release_does_not_affect_other_slots(bench: Bench, released: list[int]) -> None:
    heard = [Heard(slot, 58 + slot) for slot in range(5)]  # of one pool, where engines have them
    for slot, each in enumerate(heard):
        bench.hears(slot, each)
        bench.reads(slot, TEXT[: 3 + slot])
    bench.engine.release(released)
    for slot in set(range(5)) - set(released):
        found = bench.reads(slot, TEXT[3 + slot :], position=3 + slot)
        bench.agree(found, heard[slot], TEXT, ANYTHING)


def test_release_of_an_empty_slot_does_nothing(bench: Bench) -> None:
    bench.hears(0, A)
    bench.engine.release([3, 3])
    bench.agree(bench.reads(0, TEXT), A, TEXT, ANYTHING)


def test_encode_after_release_starts_a_clean_slot(bench: Bench) -> None:
    for heard in (Heard(7, 120), SHORT, A, Heard(8, 1)):
        bench.hears(0, heard)
        bench.agree(bench.reads(0, TEXT), heard, TEXT, ANYTHING)
        bench.engine.release([0])


def test_all_max_slots_can_be_used(bench: Bench) -> None:
    for slot in range(bench.engine.info.max_slots):
        bench.hears(slot, Heard(slot, 60))
    rows = [StepRow(slot, TEXT[:1], 0, ANYTHING) for slot in range(bench.engine.info.max_slots)]
    for row, result in zip(rows, bench.step(*rows), strict=True):
        check(result, row, reference_logits(Heard(row.slot, 60), TEXT[:1])[-1], bench.tolerance)


def test_encode_reads_features_before_it_returns(bench: Bench) -> None:
    features = A.features
    bench.engine.encode([EncodeRow(0, features, A.audio_context)])
    features[:] = 0
    bench.agree(bench.reads(0, TEXT), A, TEXT, ANYTHING)


def test_encode_accepts_features_that_are_a_view(bench: Bench) -> None:
    wide = np.zeros((N_MELS, 4 * A.audio_context), np.float32)
    wide[:, ::2] = A.features
    bench.engine.encode([EncodeRow(0, wide[:, ::2], A.audio_context)])
    bench.agree(bench.reads(0, TEXT), A, TEXT, ANYTHING)


# --- being called wrongly -------------------------------------------------------------------------


def features(n_mels: int, n_frames: int, value: float = 0.0) -> NDArray[np.float32]:
    return np.full((n_mels, n_frames), value, np.float32)


@pytest.mark.parametrize(
    "row",
    [
        EncodeRow(N_SLOTS, features(N_MELS, 20), 10),
        EncodeRow(-1, features(N_MELS, 20), 10),
        EncodeRow(0, features(N_MELS, 20), 11),
        EncodeRow(0, features(N_MELS + 1, 20), 10),
        EncodeRow(0, features(N_MELS, 2 * N_AUDIO_CTX + 2), N_AUDIO_CTX + 1),
        EncodeRow(0, features(N_MELS, 0), 0),
        EncodeRow(0, features(N_MELS, 20, np.nan), 10),
        EncodeRow(0, features(N_MELS, 20, np.inf), 10),
        EncodeRow(0, np.where(np.arange(20) == 3, -np.inf, features(N_MELS, 20)), 10),
    ],
    ids=["slot 6 of 6", "slot -1", "context", "mels", "too long", "empty", "NaN", "inf", "-inf"],
)
def test_encode_rejects_wrong_rows_without_side_effects(bench: Bench, row: EncodeRow) -> None:
    bench.hears(1, SHORT)
    bench.reads(1, TEXT[:5])
    with pytest.raises(EngineError):
        bench.engine.encode([row])
    bench.agree(bench.reads(1, TEXT[5:], position=5), SHORT, TEXT, ANYTHING)
    bench.hears(0, Heard(5, 9))
    bench.agree(bench.reads(0, TEXT), Heard(5, 9), TEXT, ANYTHING)


@pytest.mark.parametrize(
    "row",
    [
        StepRow(0, (1,), 4, ANY_TEXT),
        StepRow(2, (1,), 0, ANY_TEXT),
        StepRow(N_SLOTS, (1,), 0, ANY_TEXT),
        StepRow(0, (), 3, ANY_TEXT),
        StepRow(0, (1,) * (N_TEXT_CTX + 1), 0, ANY_TEXT),
        StepRow(0, (IDS.n_vocab,), 3, ANY_TEXT),
        StepRow(0, (-1,), 3, ANY_TEXT),
    ],
    ids=["a gap", "not encoded", "no slot", "no token", "too long", "no such token", "negative"],
)
def test_step_rejects_wrong_rows_without_side_effects(bench: Bench, row: StepRow) -> None:
    bench.hears(0, A)
    bench.hears(1, B)
    bench.reads(0, TEXT[:3])
    bench.reads(1, TEXT[:3])
    with pytest.raises(EngineError):
        bench.step(StepRow(1, TEXT[3:4], 3, ANYTHING), row)
    for slot, heard in ((0, A), (1, B)):
        found = bench.reads(slot, TEXT[3:], position=3)
        bench.agree(found, heard, TEXT, ANYTHING)


def test_step_rejects_a_slot_in_two_rows(bench: Bench) -> None:
    bench.hears(0, A)
    with pytest.raises(EngineError):
        bench.step(StepRow(0, (1,), 0, ANY_TEXT), StepRow(0, (1,), 0, ANY_TEXT))


@pytest.mark.parametrize(
    "pairs",
    [
        [(2, 1)],
        [(0, N_SLOTS)],
        [(0, -1)],
        [(0, 3), (1, 3)],
        [(0, 1), (1, 0)],
        [(0, 0)],
    ],
    ids=["no audio", "no slot", "negative", "copied to twice", "exchanged", "itself"],
)
def test_copy_rejects_wrong_rows_without_side_effects(
    bench: Bench, pairs: list[tuple[int, int]]
) -> None:
    bench.hears(0, A)
    bench.hears(1, B)
    bench.reads(0, TEXT[:3])
    bench.reads(1, TEXT[:3])
    with pytest.raises(EngineError):
        bench.engine.copy(copied((0, 4), *pairs))
    for slot, heard in ((0, A), (1, B)):
        bench.agree(bench.reads(slot, TEXT[3:], position=3), heard, TEXT, ANYTHING)


def test_step_rejects_texts_beyond_the_text_context(bench: Bench) -> None:
    bench.hears(0, A)
    bench.step(StepRow(0, random_text(6, N_TEXT_CTX), 0, None))
    with pytest.raises(EngineError):
        bench.step(StepRow(0, (1,), N_TEXT_CTX, ANY_TEXT))


def test_step_without_rows_returns_nothing(bench: Bench) -> None:
    assert bench.step() == []
    bench.engine.encode([])
    bench.engine.copy([])


def test_info_describes_the_engine(bench: Bench) -> None:
    info = bench.engine.info
    assert info.max_slots == N_SLOTS
    assert info.engine
    assert info.precision in ("float32", "bfloat16", "float16", "int8")
    assert EVERYTHING.mode is MaskMode.ALL_BUT
