"""A transcriber that does what its recordings say, for tests of the command line.

A recording is a text file: its text is what is "said" in it, and it is as many seconds long as it
has characters. Some texts are orders: see `ScriptedWhisper._transcribe`.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batched_whisper.cli.dependencies import Dependencies
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import EngineError, OptionError, UnreadableAudio
from batched_whisper.tokens.languages import language_code_or_none
from batched_whisper.types import DecodedWindow, Segment, Transcript, Word


@dataclass(frozen=True)
class ScriptedInfo:
    model: str = "scripted"
    revision: str | None = None
    source: str = "a test"
    engine: str = "pretend"
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = 2
    why: tuple[str, ...] = ("A test asked for it.",)


@dataclass(frozen=True)
class ScriptedStats:
    n_batches: int = 7
    n_rows: int = 24
    mean_batch_size: float = 3.5
    queue_depth: int = 0
    n_windows: int = 0


@dataclass
class ScriptedWhisper:
    calls: list[DecodingOptions]  # those of each call
    heard: list[str]  # the texts of the recordings, as they are read
    dies_after: int | None = None
    language: str = "en"
    n_in_flight: int = 4
    events: list[str] = field(default_factory=list)
    info: ScriptedInfo = ScriptedInfo()
    stats: ScriptedStats = ScriptedStats()
    n_ended: int = 0
    long: list[tuple[int, Future[Transcript], Transcript]] = field(default_factory=list)

    def load(self) -> ScriptedWhisper:
        self.events.append("load")
        return self

    def close(self) -> None:
        self.events.append("close")

    @property
    def transcribe(self) -> ScriptedWhisper:
        return self

    def submit(self, audio: Any, *, options: DecodingOptions) -> Future[Transcript]:
        """Ends at once, but for what is long: that ends when two more have ended."""
        self.calls.append(options)
        if self.n_ended == self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        future: Future[Transcript] = Future()
        try:
            transcript = self._transcribe(audio, options)
        except Exception as error:
            future.set_exception(error)
        else:
            if transcript.text.startswith(" long"):
                self.long.append((self.n_ended + 2, future, transcript))
                return future
            future.set_result(transcript)
        self._one_ended()
        return future

    def _one_ended(self) -> None:
        self.n_ended += 1
        while self.long and self.long[0][0] <= self.n_ended:
            _, future, transcript = self.long.pop(0)
            future.set_result(transcript)
            self.n_ended += 1

    def __call__(self, audio: Any, *, options: DecodingOptions) -> Transcript:
        self.calls.append(options)
        return self._transcribe(audio, options)

    def map(self, audios: Iterable[Any], *, options: DecodingOptions) -> Iterator[Transcript]:
        self.calls.append(options)
        return (self._transcribe(audio, options) for audio in audios)

    def _transcribe(self, audio: Path | bytes, options: DecodingOptions) -> Transcript:
        said = audio.decode() if isinstance(audio, bytes) else audio.read_text()
        self.heard.append(said)
        if said == "not sound":
            raise UnreadableAudio("no decoder can read it; convert it to WAV")
        if said == "a bug":
            raise RuntimeError("of\nthe program")
        if said == "a dead engine":
            gone = EngineError("the engine is gone; start again")
            gone.none_left = True
            raise gone
        if said == "a lost GPU":
            raise EngineError("the engine on cuda:1 is out of service; the others go on")
        if said == "a wrong option":
            raise OptionError("language='xx' is unknown to Whisper")
        if said == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        if said == "unsure" and options.audio_context == "full":
            said = "sure"
        warnings = ("it is cut off at its end",) if said == "torn" else ()
        words = _timed(said) if options.word_timestamps else None
        part = Segment(0, 0.0, float(len(said)), said, (1,), 0.0, -0.1, 1.0, 0.0, words)
        return Transcript(
            text=f" {said}",
            language=language_code_or_none(options.language) or self.language,
            language_probability=1.0,
            duration=float(len(said)),
            segments=(part,),
            windows=(_window(said, decodes=2 if said == "unsure" else 1),),
            name="whatever the transcriber calls it",
            warnings=warnings,
        )


def _window(said: str, decodes: int) -> DecodedWindow:
    return DecodedWindow(
        0.0, float(len(said)), said, (1,), "en", 1.0, -0.1, 0.0, 1.0, decodes=decodes
    )


def _timed(said: str) -> tuple[Word, ...]:
    """Its words, each character a second."""
    return tuple(
        Word(float(match.start()), float(match.end()), match[0], 1.0)
        for match in re.finditer(r"\s*\S+", said)
    )


@dataclass(frozen=True)
class FoundModel:
    name: str
    revision: str | None
    folder: Path = Path("/models/here")
    source: str = "a test"


@dataclass
class Script:
    """Dependencies with a scripted transcriber, and what was asked of them."""

    dies_after: int | None = None
    language: str = "en"
    settings: list[Settings] = field(default_factory=list)
    calls: list[DecodingOptions] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def dependencies(self) -> Dependencies:
        return Dependencies(open_whisper=self._open, download=FoundModel)

    def _open(self, settings: Settings) -> ScriptedWhisper:
        self.settings.append(settings)
        return ScriptedWhisper(
            self.calls,
            self.heard,
            self.dies_after,
            self.language,
            events=self.events,
        )
