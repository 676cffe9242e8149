"""A `Whisper` of a real tokenizer, and the listener in place of its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from scripted_speech import Listener

from batched_whisper.backends import local
from batched_whisper.engines.factory import max_concurrent_windows
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Transcript
from batched_whisper.whisper import Whisper

if TYPE_CHECKING:
    from conftest import LoadedModel


class Room:
    """A `Whisper`, and the listener in place of its engine."""

    def __init__(
        self, model: LoadedModel, monkeypatch: pytest.MonkeyPatch, **settings: Any
    ) -> None:
        monkeypatch.setenv("BATCHED_WHISPER_VAD", "false")  # nobody speaks in tones
        # The tokenizer is the session's: reading it again takes longer than most tests.
        monkeypatch.setattr(Tokenizer, "from_folder", lambda _folder: model.tokenizer)
        self.whisper = Whisper(model.files.folder, **{"wait_ms": 0, **settings})
        self.tokenizer = model.tokenizer
        self.listener = Listener(model.tokenizer, max_concurrent_windows(self.whisper.settings))
        monkeypatch.setattr(local, "make_engines", lambda *_: [self.listener])

    def hear(self, audio: Any, **options: Any) -> Transcript:
        return self.whisper.transcribe(audio, **options)

    def close(self) -> None:
        self.whisper.close()
