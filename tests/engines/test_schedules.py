"""Random schedules of calls on many slots, compared with a Whisper without slots or caches.

Slots are encoded, stepped, rewound, restarted, copied, released and encoded again in any order:
each row's result is that of plain NumPy on its own audio and its own text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installed import EVERY, Installed
from tiny_whisper import BEGIN, IDS, N_AUDIO_CTX, Heard, check, reference_logits

from batched_whisper.decoding.rules import Allowed, MaskMode, TokenMask
from batched_whisper.decoding.sampling import GREEDY, Sampling
from batched_whisper.engines.interface import CopyRow, Engine, StepRow

N_SLOTS = 5


@dataclass(frozen=True)
class Encode:
    slot: int
    heard: Heard


@dataclass(frozen=True)
class Release:
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Copy:
    """The source slot of each target; what the protocol forbids is skipped."""

    sources: dict[int, int]


@dataclass(frozen=True)
class Feed:
    """One row of a step: where its text continues, as a fraction, and what it asks for."""

    tokens: tuple[int, ...]
    back_to: float
    allowed: Allowed | None
    sampling: Sampling
    probe: int | None
    n_best: int


@dataclass(frozen=True)
class Step:
    """The rows of a step, by slot; empty slots are skipped."""

    rows: dict[int, Feed]


tokens = st.integers(0, IDS.n_vocab - 1)
contexts = st.integers(1, N_AUDIO_CTX) | st.sampled_from([30, 31, 54, 55, 84, 85, N_AUDIO_CTX])
heard = st.builds(Heard, st.integers(0, 3), contexts)
masks = st.builds(
    TokenMask, st.sampled_from(MaskMode), st.frozensets(st.integers(0, BEGIN - 1), min_size=1)
)
spans = st.just(range(0)) | st.integers(BEGIN, IDS.n_vocab - 1).map(
    lambda first: range(first, IDS.n_vocab)
)
feeds = st.builds(
    Feed,
    tokens=st.lists(tokens, min_size=1, max_size=1).map(tuple)
    | st.lists(tokens, min_size=1, max_size=40).map(tuple),
    back_to=st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.5, 0.0]),
    allowed=st.none() | st.builds(Allowed, masks, spans),
    sampling=st.just(GREEDY) | st.builds(Sampling, st.just(0.7), st.integers(0, 99)),
    probe=st.none() | st.just(IDS.no_speech),
    n_best=st.sampled_from([0, 0, 1, 4]),
)
slots = st.integers(0, N_SLOTS - 1)
encodes = st.builds(Encode, slots, heard)
steps = st.builds(Step, st.dictionaries(slots, feeds, min_size=1))
copies = st.builds(Copy, st.dictionaries(slots, slots, min_size=1, max_size=3))
releases = st.builds(Release, st.lists(slots, min_size=1, max_size=3).map(tuple))
schedules = st.tuples(
    st.lists(encodes, min_size=1, max_size=N_SLOTS),
    st.lists(st.one_of(steps, steps, steps, copies, encodes, releases), min_size=5, max_size=40),
).map(lambda parts: [*parts[0], *parts[1]])


@dataclass
class Play:
    """Runs a schedule on an engine, and tracks what each slot should hold."""

    engine: Engine
    tolerance: float
    heard: dict[int, Heard] = field(default_factory=dict)
    texts: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def act(self, action: Encode | Copy | Release | Step) -> None:
        if isinstance(action, Encode):
            self.engine.encode([action.heard.row(action.slot)])
            self.heard[action.slot], self.texts[action.slot] = action.heard, ()
        elif isinstance(action, Copy):
            self._copy(action)
        elif isinstance(action, Release):
            self.engine.release(action.slots)
            for slot in action.slots:
                self.heard.pop(slot, None)
        else:
            self._step(action)

    def _copy(self, copy: Copy) -> None:
        heard, texts = dict(self.heard), dict(self.texts)
        rows = [
            CopyRow(source, target)
            for target, source in copy.sources.items()
            if source in heard and source not in copy.sources
        ]
        self.engine.copy(rows)
        for row in rows:
            self.heard[row.target], self.texts[row.target] = heard[row.source], texts[row.source]

    def _step(self, step: Step) -> None:
        rows = [self._row(slot, feed) for slot, feed in step.rows.items() if slot in self.heard]
        for row, result in zip(rows, self.engine.step(rows), strict=True):
            text = self.texts[row.slot] = self.texts[row.slot][: row.position] + row.tokens
            if row.allowed is None and row.probe is None:
                assert result is None
            else:
                logits = reference_logits(self.heard[row.slot], text)[-1]
                check(result, row, logits, self.tolerance)

    def _row(self, slot: int, feed: Feed) -> StepRow:
        position = int(len(self.texts[slot]) * feed.back_to)
        return StepRow(
            slot, feed.tokens, position, feed.allowed, feed.sampling, feed.probe, feed.n_best
        )


@pytest.fixture(scope="module", params=EVERY, ids=lambda installed: installed.name)
def started(request: pytest.FixtureRequest) -> Iterator[Play]:
    installed: Installed = request.param
    engine = installed.make(N_SLOTS, None)
    yield Play(engine, installed.tolerance)
    engine.close()


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(schedule=schedules)
def test_random_schedules_of_calls_do_not_affect_other_slots(
    started: Play, schedule: list[Encode | Copy | Release | Step]
) -> None:
    started.engine.release(range(N_SLOTS))
    play = Play(started.engine, started.tolerance)
    for action in schedule:
        play.act(action)
