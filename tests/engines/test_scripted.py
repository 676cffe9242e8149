"""The scripted engine rejects wrong calls, which the tests of the loop rely on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from batched_whisper.decoding.rules import Allowed, MaskMode, TokenMask
from batched_whisper.engines.interface import AlignRow, CopyRow, EncodeRow, StepResult, StepRow
from batched_whisper.engines.scripted import Script, ScriptedEngine
from batched_whisper.errors import EngineError

EOT = 50
ANYTHING = Allowed(TokenMask(MaskMode.ALL_BUT, frozenset()))


def encoded(*slots: int) -> list[EncodeRow]:
    return [EncodeRow(slot, np.zeros((1, 10), np.float32), 5) for slot in slots]


def steps(*slots: int) -> list[StepRow]:
    return [StepRow(slot, (1,), 0, ANYTHING) for slot in slots]


@pytest.fixture
def engine() -> ScriptedEngine:
    """An engine with slots 0 to 3 encoded."""
    made = ScriptedEngine(lambda features, context: Script((7,)), eot=EOT, max_slots=6)
    made.encode(encoded(0, 1, 2, 3))
    return made


def test_scripted_engine_encodes_and_releases_during_a_step(engine: ScriptedEngine) -> None:
    started = engine.start(steps(0, 1))
    engine.encode(encoded(2, 4))
    engine.release([3])
    assert started() == [StepResult(7, -0.1)] * 2
    assert engine.journal.encodes_during_step == [(2, 4)]
    assert engine.journal.violations == []


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.encode(encoded(4, 1)),
        lambda engine: engine.release([0]),
        lambda engine: engine.copy([CopyRow(2, 3)]),
        lambda engine: engine.align([AlignRow(2, (1, 2, EOT), 1)]),
        lambda engine: engine.step(steps(2)),
        lambda engine: engine.close(),
    ],
    ids=["encode", "release", "copy", "align", "step", "close"],
)
def test_scripted_engine_rejects_other_calls_during_a_step(
    engine: ScriptedEngine, call: Callable[[ScriptedEngine], object]
) -> None:
    started = engine.start(steps(0, 1))
    with pytest.raises(EngineError, match="is in progress"):
        call(engine)
    assert len(engine.journal.violations) == 1
    assert started() == [StepResult(7, -0.1)] * 2
    engine.close()


def test_scripted_engine_step_is_waited_for_once(engine: ScriptedEngine) -> None:
    started = engine.start(steps(0))
    started()
    with pytest.raises(EngineError, match="not in progress"):
        started()
