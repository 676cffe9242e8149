"""The public face: which names there are, how they are called, and what importing them costs."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import batched_whisper
from batched_whisper import (
    DecodingOptions,
    Settings,
    Whisper,
    batched,
    enter,
    errors,
    exit,
    running,
)
from batched_whisper.calls import Transcribe, TranscribeMap, TranscribeSegments
from batched_whisper.concurrency.bounded_map import Mapper
from batched_whisper.functions.decorator import BatchedFunction

ERRORS = {
    name
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, Exception)
}

NAMES = ERRORS | {
    *("DecodedWindow", "DecodingOptions", "Segment", "Settings"),
    *("Transcript", "Whisper", "Word", "__version__", "batched", "enter", "exit", "running"),
}


def by_name(owner: type[Any]) -> str:
    """The options as keyword arguments with their defaults."""
    fields = [field for field in dataclasses.fields(owner) if field.name != "model"]
    return ", ".join(f"{field.name}={field.default!r}" for field in fields)


CALL = f"options=None, sampling_rate=None, on_segment=None, {by_name(DecodingOptions)}"
SEGMENTS = f"options=None, sampling_rate=None, {by_name(DecodingOptions)}"
MAP = "order_outputs=True, return_exceptions=False"

SIGNATURES: dict[Callable[..., Any], str] = {
    Whisper: f"(model=None, *, settings=None, backend=None, {by_name(Settings)})",
    Whisper.load: "(self)",
    Whisper.close: "(self)",
    Whisper.transcribe_batch: f"(self, audios, *, {CALL})",
    Whisper.submit: f"(self, audio, *, {CALL})",
    Transcribe.__call__: f"(self, audio, *, {CALL})",
    Transcribe.aio: f"(self, audio, *, {CALL})",
    TranscribeMap.__call__: f"(self, audios, *, {MAP}, {CALL})",
    TranscribeMap.aio: f"(self, audios, *, {MAP}, {CALL})",
    TranscribeSegments.__call__: f"(self, audio, *, {SEGMENTS})",
    TranscribeSegments.aio: f"(self, audio, *, {SEGMENTS})",
    batched: "(*, max_batch_size=64, wait_ms=1000.0, max_queue_size=4096, clock=None)",
    enter: "()",
    exit: "()",
    running: "(instance)",
    BatchedFunction.__call__: "(self, *arguments, **keywords)",
    BatchedFunction.aio: "(self, *arguments, **keywords)",
    BatchedFunction.close: "(self)",
    BatchedFunction.aclose: "(self)",
    Mapper.__call__: "(self, *iterables, order_outputs=True, return_exceptions=False)",
    Mapper.aio: "(self, *iterables, order_outputs=True, return_exceptions=False)",
}

ATTRIBUTES: dict[type, set[str]] = {
    Whisper: {"close", "info", "load", "stats", "submit", "transcribe", "transcribe_batch"},
    BatchedFunction: {"aclose", "aio", "close", "map", "starmap", "stats"},
}


def signature(function: Callable[..., Any]) -> str:
    """Names, kinds and defaults; annotations are the type checker's to look at."""
    whole = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in whole.parameters.values()]
    return str(inspect.Signature(bare))


def test_public_names_are_exactly_these() -> None:
    assert set(batched_whisper.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_can_be_imported_and_is_listed(name: str) -> None:
    assert getattr(batched_whisper, name) is not None
    assert name in dir(batched_whisper)


def test_every_error_is_one_of_its_module_and_none_is_missing() -> None:
    assert {"BatchedWhisperError", "UnreadableAudio", "OptionError", "Closed"} <= ERRORS
    for name in ERRORS:
        assert getattr(batched_whisper, name) is getattr(errors, name)


def test_another_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="Whispr"):
        batched_whisper.Whispr  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_public_signatures_are_unchanged(function: Callable[..., Any]) -> None:
    assert signature(function) == SIGNATURES[function]


@pytest.mark.parametrize("owner", ATTRIBUTES, ids=lambda owner: owner.__name__)
def test_public_attributes_are_unchanged(owner: type) -> None:
    assert {name for name in vars(owner) if not name.startswith("_")} == ATTRIBUTES[owner]


IMPORTED = "import sys, batched_whisper{}; print(*sys.modules)"
WITHOUT = (
    "import sys; sys.modules.update(fcntl=None, resource=None); import batched_whisper.cli.app"
)


@pytest.mark.parametrize("module", ["", ".cli.app"], ids=["the package", "the command line"])
def test_importing_the_package_imports_no_engine(module: str) -> None:
    loaded = printed_by(IMPORTED.format(module)).split()
    assert not {"numpy", "openvino", "av", "tokenizers", "datasets"} & set(loaded)


def test_the_command_line_begins_where_modules_of_unix_are_missing() -> None:
    assert printed_by(WITHOUT) == ""


def printed_by(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
