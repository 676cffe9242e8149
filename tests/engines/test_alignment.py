"""The laws of ``Engine.align``, for every engine that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from installed import EVERY, EXACT, Installed
from numpy.typing import NDArray
from numpy_whisper import Audio, NumpyWhisper
from tiny_whisper import ANY_TEXT, IDS, N_AUDIO_CTX, N_TEXT_CTX, Heard, random_text, tiny_checkpoint

from batched_whisper.engines.interface import Alignment, AlignRow, Engine, StepRow
from batched_whisper.errors import EngineError

N_SLOTS = 4
N_PROMPT = 3


class WatchedWhisper(NumpyWhisper):
    """Records the cross-attention of every layer's heads, ``[n_heads, n_tokens, n_own]``."""

    def __init__(self) -> None:
        super().__init__(tiny_checkpoint())
        self.seen: dict[str, NDArray[np.float32]] = {}

    def _attention(
        self, name: str, x: NDArray[np.float32], audio: Audio | None, n_heads: int
    ) -> NDArray[np.float32]:
        if audio is not None and name.endswith("cross_attn"):
            own = audio.hidden[: audio.n_own]
            weights = np.exp(self._scores(name, x, own, n_heads))
            self.seen[name] = weights / weights.sum(-1, keepdims=True)
        return super()._attention(name, x, audio, n_heads)


def by_numpy(heard: Heard, row: AlignRow) -> Alignment:
    whisper = WatchedWhisper()
    logits = whisper.logits(list(row.tokens), whisper.encode(heard.features)).astype(np.float64)
    totals = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    logprobs = np.zeros(len(row.tokens), np.float32)
    for i in range(row.n_prompt, len(row.tokens)):
        logprobs[i] = logits[i - 1, row.tokens[i]] - totals[i - 1]
    heads = [
        whisper.seen[f"decoder.blocks.{place.layer}.cross_attn"][place.head]
        for place in tiny_checkpoint().alignment_heads
    ]
    return Alignment(np.stack(heads), logprobs)


@dataclass(frozen=True)
class Case:
    """A text, and the audio to align it with."""

    heard: Heard
    row: AlignRow


def case(slot: int, audio_context: int, n_tokens: int) -> Case:
    row = AlignRow(slot, random_text(slot, n_tokens), N_PROMPT)
    return Case(Heard(slot, audio_context), row)


CASES = [
    case(0, N_AUDIO_CTX, 40),
    case(1, 9, 5),
    case(2, 61, N_TEXT_CTX),
    case(3, N_AUDIO_CTX, 16),
]


@pytest.fixture(scope="module", params=EVERY, ids=lambda installed: installed.name)
def started(request: pytest.FixtureRequest) -> Iterator[Engine]:
    installed: Installed = request.param
    engine = installed.make(N_SLOTS, None)
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    started.release(range(N_SLOTS))
    started.encode([each.heard.row(each.row.slot) for each in CASES])
    return started


@pytest.mark.parametrize("installed", EXACT, ids=lambda installed: installed.name)
def test_align_agrees_with_numpy(installed: Installed) -> None:
    engine = installed.make(N_SLOTS, None)
    engine.encode([each.heard.row(each.row.slot) for each in CASES])
    for found, each in zip(engine.align([each.row for each in CASES]), CASES, strict=True):
        expected = by_numpy(each.heard, each.row)
        assert found.weights.dtype == found.logprobs.dtype == np.float32
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-3)
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-3)
    engine.close()


def test_align_is_close_to_numpy_in_every_precision(engine: Engine) -> None:
    for found, each in zip(engine.align([each.row for each in CASES]), CASES, strict=True):
        expected = by_numpy(each.heard, each.row)
        assert found.weights.shape == expected.weights.shape
        np.testing.assert_allclose(found.weights.sum(axis=2), 1, atol=1e-3)
        assert np.abs(found.weights - expected.weights).mean() < 0.02
        assert np.abs(found.logprobs - expected.logprobs).mean() < 0.5


def test_align_of_a_slot_does_not_depend_on_others(engine: Engine) -> None:
    together = engine.align([each.row for each in CASES])
    for found, each in zip(together, CASES, strict=True):
        [alone] = engine.align([each.row])
        assert np.array_equal(found.weights, alone.weights)
        assert np.array_equal(found.logprobs, alone.logprobs)


def test_align_returns_arrays_that_the_caller_owns(engine: Engine) -> None:
    first, second = CASES[0].row, CASES[3].row
    [found] = engine.align([first])
    kept = found.weights.copy()
    engine.align([replace(second, slot=first.slot)])
    assert np.array_equal(found.weights, kept)


def test_align_does_not_change_a_slots_text(engine: Engine) -> None:
    text = random_text(7, 6)
    steps = [StepRow(0, (token,), i, ANY_TEXT) for i, token in enumerate(text)]
    undisturbed = [engine.step([row]) for row in steps]
    disturbed = []
    for row in steps:
        engine.align([CASES[0].row, CASES[1].row])
        disturbed.append(engine.step([row]))
    assert disturbed == undisturbed


def test_align_uses_the_slots_audio_after_others_were_released(engine: Engine) -> None:
    [before] = engine.align([CASES[3].row])
    engine.release([0])
    [after] = engine.align([CASES[3].row])
    assert np.array_equal(before.weights, after.weights)


@pytest.mark.parametrize(
    "row",
    [
        AlignRow(0, (1, 2, 3), 3),
        AlignRow(0, (1, 2, 3), 0),
        AlignRow(0, (1,) * (N_TEXT_CTX + 1), 3),
        AlignRow(0, (1, 2, IDS.n_vocab), 2),
        AlignRow(0, (1, 2, -1), 2),
        AlignRow(N_SLOTS, (1, 2, 3), 2),
    ],
    ids=["no text", "no prompt", "too long", "no such token", "negative", "no such slot"],
)
def test_align_rejects_wrong_rows(engine: Engine, row: AlignRow) -> None:
    with pytest.raises(EngineError):
        engine.align([row])
