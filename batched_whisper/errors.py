"""The exceptions of this package.

The message of each says what happened and what to do; ``http_status`` is the status code that a
server responds with::

    BatchedWhisperError                500
    ├── AudioError                     400  a recording cannot be used
    │   ├── UnreadableAudio            400  no decoder can read it
    │   ├── NoAudioStream              400  a readable file without audio
    │   ├── EmptyAudio                 400  zero samples
    │   └── InvalidSamples             400  NaN, infinities, a wrong shape or sampling rate
    ├── OptionError (ValueError)       400  an option that is out of range or does not exist
    ├── ModelError                     500
    │   ├── UnknownModel               404  no such name, folder or repository
    │   ├── ModelFileMissing           500  a model without one of its files
    │   ├── WrongHash                  500  a file with an unexpected SHA-256
    │   ├── HubUnreachable             503  not cached, and the Hub does not respond
    │   └── UnsupportedCheckpoint      500  files that are not a readable Whisper checkpoint
    ├── EngineError                    500  the engine cannot start, or failed while running
    ├── BatchingError                  500
    │   ├── QueueFull                  429  more work than the queue may hold
    │   ├── DeadlineExceeded           504  no result before the deadline of the caller
    │   ├── Closed                     503  called after close()
    │   └── WrongBatchLength           500  a batch function returned the wrong number of results
    ├── CallbackError                  500  a callback of the caller failed
    ├── ManifestError                  400  a list of recordings that cannot be read
    ├── MissingExtra                   500  an optional dependency is not installed
    └── OutputError                    500  results cannot be written
"""

from __future__ import annotations


class BatchedWhisperError(Exception):
    """The base class of all exceptions of this package."""

    http_status = 500


class AudioError(BatchedWhisperError):
    """A recording cannot be used; the other recordings of a job are not affected."""

    http_status = 400


class UnreadableAudio(AudioError):
    """No decoder can read the file, or no part of it could be read."""


class NoAudioStream(AudioError):
    """The file is readable, but has no audio stream."""


class EmptyAudio(AudioError):
    """The recording has no samples."""


class InvalidSamples(AudioError):
    """Samples that are not audio: NaN, infinities, a wrong shape or sampling rate."""


class OptionError(BatchedWhisperError, ValueError):
    """An option is out of range or does not exist."""

    http_status = 400


class ModelError(BatchedWhisperError):
    """A model cannot be found, read or verified."""


class UnknownModel(ModelError):
    """No short name, folder, cached snapshot or repository of that name."""

    http_status = 404


class ModelFileMissing(ModelError):
    """The model was found, but one of its files is missing."""


class WrongHash(ModelError):
    """A file's SHA-256 is not the pinned one, so the file is not used."""


class HubUnreachable(ModelError):
    """The model is not on this machine and the Hub does not respond."""

    http_status = 503


class UnsupportedCheckpoint(ModelError):
    """The files are not a Whisper checkpoint in a supported format."""


class EngineError(BatchedWhisperError):
    """The engine cannot start on this machine, or failed while running."""

    none_left = False
    """Whether no working engine is left, so that every other recording would fail too. Otherwise
    only this recording failed."""


class BatchingError(BatchedWhisperError):
    """A call could not be batched."""


class QueueFull(BatchingError):
    """The queue is full; retry later, or let the call wait."""

    http_status = 429


class DeadlineExceeded(BatchingError):
    """The call had no result before its deadline."""

    http_status = 504


class Closed(BatchingError):
    """The model or function was closed before this call."""

    http_status = 503


class WrongBatchLength(BatchingError):
    """A batch function did not return one result per input."""


class CallbackError(BatchedWhisperError):
    """A callback of the caller failed; its exception is the cause."""


class ManifestError(BatchedWhisperError):
    """A list of recordings cannot be read; the message names the line and the reason."""

    http_status = 400


class MissingExtra(BatchedWhisperError):
    """An optional dependency is not installed; the message names the extra to install."""


class OutputError(BatchedWhisperError):
    """Results cannot be written to the requested location."""
