"""Why a window has no answer, as an error of ours: its caller left, or something broke on it."""

from __future__ import annotations

from batched_whisper.batching.sequence import WindowTask
from batched_whisper.errors import BatchedWhisperError, EngineError


def refusal(task: WindowTask) -> BatchedWhisperError | None:
    """Why a window is dropped: nobody waits for it, or that cannot be found out."""
    try:
        if task.is_wanted():
            return None
    except BaseException as error:  # a task's own code may even call sys.exit
        return failure(error)
    return EngineError("dropped, because its caller no longer waits for it")


def failure(error: BaseException) -> BatchedWhisperError:
    """Errors of ours as they are; others are the cause of one of ours."""
    if isinstance(error, BatchedWhisperError):
        return error
    wrapped = EngineError(f"the engine failed on this window: {error!r}")
    wrapped.__cause__ = error
    return wrapped


def of_all(error: BaseException) -> BatchedWhisperError:
    """The same, of the last engine that there is, where every other window fails in it as well."""
    told = failure(error)
    if isinstance(told, EngineError):
        told.none_left = True
    return told
