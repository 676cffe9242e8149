"""Batched Whisper: continuous batching for Whisper and for your own functions.

Defines the public names. Each is imported at its first use, so that importing the package, or the
help of the command line, does not wait for NumPy or an engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batched_whisper.config.options import DecodingOptions, Settings
    from batched_whisper.errors import (
        AudioError,
        BatchedWhisperError,
        BatchingError,
        CallbackError,
        Closed,
        DeadlineExceeded,
        EmptyAudio,
        EngineError,
        HubUnreachable,
        InvalidSamples,
        ManifestError,
        MissingExtra,
        ModelError,
        ModelFileMissing,
        NoAudioStream,
        OptionError,
        OutputError,
        QueueFull,
        UnknownModel,
        UnreadableAudio,
        UnsupportedCheckpoint,
        WrongBatchLength,
        WrongHash,
    )
    from batched_whisper.functions.decorator import batched
    from batched_whisper.functions.lifecycle import enter, exit, running
    from batched_whisper.types import DecodedWindow, Segment, Transcript, Word
    from batched_whisper.whisper import Whisper

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "BatchedWhisperError",
    "BatchingError",
    "CallbackError",
    "Closed",
    "DeadlineExceeded",
    "DecodedWindow",
    "DecodingOptions",
    "EmptyAudio",
    "EngineError",
    "HubUnreachable",
    "InvalidSamples",
    "ManifestError",
    "MissingExtra",
    "ModelError",
    "ModelFileMissing",
    "NoAudioStream",
    "OptionError",
    "OutputError",
    "QueueFull",
    "Segment",
    "Settings",
    "Transcript",
    "UnknownModel",
    "UnreadableAudio",
    "UnsupportedCheckpoint",
    "Whisper",
    "Word",
    "WrongBatchLength",
    "WrongHash",
    "__version__",
    "batched",
    "enter",
    "exit",
    "running",
]

_MODULES = {
    "AudioError": "errors",
    "BatchedWhisperError": "errors",
    "BatchingError": "errors",
    "CallbackError": "errors",
    "Closed": "errors",
    "DeadlineExceeded": "errors",
    "DecodedWindow": "types",
    "DecodingOptions": "config.options",
    "EmptyAudio": "errors",
    "EngineError": "errors",
    "HubUnreachable": "errors",
    "InvalidSamples": "errors",
    "ManifestError": "errors",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "ModelFileMissing": "errors",
    "NoAudioStream": "errors",
    "OptionError": "errors",
    "OutputError": "errors",
    "QueueFull": "errors",
    "Segment": "types",
    "Settings": "config.options",
    "Transcript": "types",
    "UnknownModel": "errors",
    "UnreadableAudio": "errors",
    "UnsupportedCheckpoint": "errors",
    "Whisper": "whisper",
    "Word": "types",
    "WrongBatchLength": "errors",
    "WrongHash": "errors",
    "batched": "functions.decorator",
    "enter": "functions.lifecycle",
    "exit": "functions.lifecycle",
    "running": "functions.lifecycle",
}


if not TYPE_CHECKING:  # type checkers see only the names above

    def __getattr__(name: str) -> Any:
        """Import a public name from its module at its first use (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value  # later accesses bypass this function
        return value


def __dir__() -> list[str]:
    """List the public names, imported or not, and all other globals."""
    return sorted({*globals(), *__all__})
