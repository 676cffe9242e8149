"""Every error that this package raises on purpose.

Each says in its message what happened and what to do, and knows the HTTP status that a server
answers with::

    BatchedWhisperError                500
    ├── AudioError                     400  something is wrong with a recording
    │   ├── UnreadableAudio            400  no decoder can read it, or not to its end
    │   ├── NoAudioStream              400  a readable file without sound in it
    │   ├── EmptyAudio                 400  zero samples
    │   └── InvalidSamples             400  NaN, infinities, a wrong shape or sampling rate
    ├── OptionError (ValueError)       400  a setting out of its range, or one that does not exist
    ├── ModelError                     500
    │   ├── UnknownModel               404  no such name, folder or repository
    │   ├── ModelFileMissing           500  a model without one of its files
    │   ├── WrongHash                  500  a file that is not the one it should be
    │   ├── HubUnreachable             503  not here, and the Hub does not answer
    │   └── UnsupportedCheckpoint      500  files that are not a Whisper checkpoint we can read
    ├── EngineError                    500  the engine cannot start, or failed while running
    ├── BatchingError                  500
    │   ├── QueueFull                  429  more work than the queue may hold
    │   ├── DeadlineExceeded           504  not answered by the time that the caller gave
    │   ├── Closed                     503  called after close()
    │   └── WrongBatchLength           500  a batch function returned another number of results
    ├── CallbackError                  500  the caller's own function, called on the way, failed
    ├── ManifestError                  400  a list of recordings that cannot be read
    ├── MissingExtra                   500  an optional dependency is not installed
    └── OutputError                    500  results cannot be written

It knows nothing of where an error is raised or shown.
"""

from __future__ import annotations


class BatchedWhisperError(Exception):
    """The root of the tree; catch it to catch all of them."""

    http_status = 500


class AudioError(BatchedWhisperError):
    """Something is wrong with a recording; the others of a job are not affected."""

    http_status = 400


class UnreadableAudio(AudioError):
    """No decoder can read the file, or nothing of it could be read."""


class NoAudioStream(AudioError):
    """The file is readable, but there is no sound in it."""


class EmptyAudio(AudioError):
    """The recording has no samples."""


class InvalidSamples(AudioError):
    """Samples that are not sound: NaN, infinities, a wrong shape or sampling rate."""


class OptionError(BatchedWhisperError, ValueError):
    """A setting out of its range, or one that does not exist."""

    http_status = 400


class ModelError(BatchedWhisperError):
    """A model cannot be found, read or trusted."""


class UnknownModel(ModelError):
    """No short name, folder, cached snapshot or repository of that name."""

    http_status = 404


class ModelFileMissing(ModelError):
    """The model is there, but one of its files is not."""


class WrongHash(ModelError):
    """A file's SHA-256 is not the pinned one, so the file is not used."""


class HubUnreachable(ModelError):
    """The model is not on this machine and the Hub does not answer."""

    http_status = 503


class UnsupportedCheckpoint(ModelError):
    """Files that are not a Whisper checkpoint in a format that can be read."""


class EngineError(BatchedWhisperError):
    """The engine cannot start on this machine, or failed while running."""

    none_left = False
    """Whether no engine is left that could do anything, so that every other recording would fail
    as well. Otherwise what failed was this recording alone."""


class BatchingError(BatchedWhisperError):
    """A call could not go through the batcher."""


class QueueFull(BatchingError):
    """The queue holds all it may; try again later, or let the call wait."""

    http_status = 429


class DeadlineExceeded(BatchingError):
    """The call was not answered within the time that its caller gave."""

    http_status = 504


class Closed(BatchingError):
    """The batcher was closed before this call."""

    http_status = 503


class WrongBatchLength(BatchingError):
    """A batch function returned another number of results than it was given inputs."""


class CallbackError(BatchedWhisperError):
    """The caller's own function, called on the way, failed; its error is the cause."""


class ManifestError(BatchedWhisperError):
    """A list of recordings that cannot be read; says which line and why."""

    http_status = 400


class MissingExtra(BatchedWhisperError):
    """An optional dependency is not installed; says which extra brings it."""


class OutputError(BatchedWhisperError):
    """Results cannot be written where the caller asked for them."""
