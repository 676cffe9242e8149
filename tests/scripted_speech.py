"""A `Whisper` with a real tokenizer and a scripted engine: every recording is a tone.

The engine returns a sentence and a language for each tone, so that everything around the model can
be tested in milliseconds, and nothing depends on a model's output.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.features import log_mel
from batched_whisper.engines.interface import (
    Alignment,
    AlignRow,
    CopyRow,
    EncodeRow,
    EngineInfo,
    StepResult,
    StepRow,
)
from batched_whisper.engines.scripted import Script, ScriptedEngine
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Features

SOON_S = 60.0  # a deadline for what happens at once unless something is broken
RATE = 16_000
N_SLOTS = 64  # what "auto" is to the pretend engine
TONES_HZ = (250, 450, 800, 1300, 2000, 3000, 4300, 6000)
_BREATH = RATE * 3 // 10
LANGUAGES = ("en", "de", "en", "fr", "en", "es", "en", "it")


def tone(number: int, seconds: float = 1.0) -> NDArray[np.float32]:
    """Return a recording that decodes to `sentence(number)`, with a pause every five seconds."""
    breathless = hum(number, seconds)
    for end in range(5 * RATE, len(breathless), 5 * RATE):
        breathless[end - _BREATH : end] = 0
    return breathless


def hum(number: int, seconds: float = 1.0) -> NDArray[np.float32]:
    """The same without a pause: windows of it overlap."""
    at = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * TONES_HZ[number] * at)).astype(np.float32)


def sentence(number: int) -> str:
    return f"This is recording number {number}."


@dataclass
class Listener:
    """The pretend engine. What stands in the table of ``scripts`` is said instead.

    ``hold`` makes the engine stop before it encodes that tone, until `go` is set; `held` tells
    that it stands there.
    """

    tokenizer: Tokenizer
    max_batch_size: int | str
    scripts: dict[int, Script] = field(default_factory=dict)
    fails: frozenset[int] = frozenset()
    hold: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    before_step: Callable[[Sequence[StepRow]], object] = lambda rows: None
    encoded: list[int] = field(default_factory=list)
    contexts: list[int] = field(default_factory=list)
    starts: list[tuple[int, ...]] = field(default_factory=list)  # the tokens at position 0
    said: list[int] = field(default_factory=list)  # every token that was fed after that

    def __post_init__(self) -> None:
        max_slots = N_SLOTS if isinstance(self.max_batch_size, str) else self.max_batch_size
        self.engine = ScriptedEngine(self._script, eot=self.tokenizer.eot, max_slots=max_slots)

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def encode(self, rows: Sequence[EncodeRow]) -> None:
        for row in rows:
            number = self._heard(row.features)
            if number == self.hold:
                self.held.set()
                assert self.go.wait(SOON_S)
            self.encoded.append(number)
            self.contexts.append(row.audio_context)
            if number in self.fails:
                raise RuntimeError(f"tone {number} breaks the engine")
        self.engine.encode(rows)

    def step(self, rows: Sequence[StepRow]) -> list[StepResult | None]:
        self.before_step(rows)
        for row in rows:
            if row.position == 0:
                self.starts.append(row.tokens)
            else:
                self.said.extend(row.tokens)
        return self.engine.step(rows)

    def copy(self, rows: Sequence[CopyRow]) -> None:
        self.engine.copy(rows)

    def align(self, rows: Sequence[AlignRow]) -> list[Alignment]:
        return self.engine.align(rows)

    def release(self, slots: Sequence[int]) -> None:
        self.engine.release(slots)

    def close(self) -> None:
        self.engine.close()

    def _heard(self, features: Features) -> int:
        """The tone of the loudest mel band."""
        loudest = int(features.mean(axis=1).argmax())
        return int(np.abs(_tone_bands(features.shape[0]) - loudest).argmin())

    def _script(self, features: Features, audio_context: int) -> Script:
        number = self._heard(features)
        if number in self.scripts:
            return self.scripts[number]
        return self.script(" " + sentence(number), LANGUAGES[number])

    def script(self, text: str, language: str | None = "en", **figures: Any) -> Script:
        """What is said in a recording, as tokens."""
        known = self.tokenizer.language_tokens
        token = known.get(language) if language else None
        return Script(tuple(self.tokenizer.encode(text)), token, **figures)


@cache
def _tone_bands(n_mels: int) -> NDArray[np.int64]:
    bands = [int(log_mel(tone(i, 0.5), n_mels).mean(axis=1).argmax()) for i in range(8)]
    assert len(set(bands)) == len(bands)
    return np.array(bands)
