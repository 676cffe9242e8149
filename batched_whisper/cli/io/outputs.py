"""Outputs for results: standard output, a folder of files, or a file of JSON lines.

Each output takes one transcript at a time, knows which results it already has, and never keeps
a partial one, however the program ends. Knows nothing of how transcripts are made.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol

from batched_whisper.cli.io.inputs import RecordingSource
from batched_whisper.errors import OutputError
from batched_whisper.formats import FORMATS, Format, write_atomically

if TYPE_CHECKING:
    from batched_whisper.types import Transcript

_APPENDED = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)  # that: Windows

SYNC_EVERY_S = 1.0
"""Finished work that a power failure may lose; a killed process loses none."""


class Output(Protocol):
    """A destination for results."""

    def has(self, source: RecordingSource) -> bool:
        """Whether an earlier run already wrote this recording's result."""

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Write a result whole, or raise `OutputError` and write nothing."""


class StandardOutput:
    """Writes results to standard output."""

    def __init__(
        self, form: Format, *, named: bool, write: Callable[[str], None] | None = None
    ) -> None:
        """Prefix texts with their recording's name if ``named``; ``write`` replaces the stream."""
        self._form, self._named = form, named
        self._write = write or _write_standard_output

    def has(self, source: RecordingSource) -> bool:
        """Always False: printed results cannot be resumed."""
        return False

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Print the result."""
        if self._named and self._form is FORMATS["text"]:
            self._write(f"{source.name}: {' '.join(transcript.text.split())}\n")
        else:
            self._write(self._form.write(transcript))


def _write_standard_output(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclasses.dataclass(frozen=True)
class FolderOfFiles:
    """One file per recording and format, each written whole or not at all."""

    folder: Path
    forms: Sequence[Format]
    names: Mapping[str, PurePath]

    def has(self, source: RecordingSource) -> bool:
        """Whether all files of this recording exist."""
        try:
            return all(self._path(source, form).is_file() for form in self.forms)
        except (OSError, ValueError):  # for example an impossible file name
            return False

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Write the files of this recording."""
        for form in self.forms:
            path = self._path(source, form)
            make_folder(path.parent)
            write_atomically(path, form.write(transcript))

    def _path(self, source: RecordingSource, form: Format) -> Path:
        path = self.folder / self.names[source.name]
        return path.with_name(path.name + form.suffix)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, or raise `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be created ({error.strerror}); choose another one"
        ) from error


class JsonLinesFile:
    """A file that grows by one whole line per recording. Open it with `open_json_lines`."""

    def __init__(self, path: Path, descriptor: int, names: frozenset[str], size: int) -> None:
        """``names`` are the recordings already in the file; ``size`` is its length in bytes."""
        self._path, self._descriptor = path, descriptor
        self._names, self._size = names, size
        self._synced_s = time.monotonic()

    def has(self, source: RecordingSource) -> bool:
        """Whether an earlier run wrote a line for this recording."""
        return source.name in self._names

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Append the line in one write, so that a killed process cannot split it."""
        line = FORMATS["jsonl"].write(transcript).encode("utf-8")
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(28, "the disk is full")
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise OutputError(
                f"{self._path} cannot be written ({error.strerror}); "
                "it holds all finished results, and --resume continues from there"
            ) from error
        self._size += len(line)
        if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._synced_s = time.monotonic()

    def close(self) -> None:
        """Sync the file to disk and close it."""
        self._sync()
        os.close(self._descriptor)


@contextmanager
def open_json_lines(path: Path, *, resume: bool) -> Iterator[JsonLinesFile]:
    """Open a file of results, exclusively for one job.

    With ``resume``, keep the results of an earlier job, except an incomplete last line.

    Raises:
        OutputError: the file cannot be opened, another job writes to it, it is not a file of
            results, or it has results and ``resume`` is False.
    """
    make_folder(path.parent)
    try:
        descriptor = os.open(path, _APPENDED, 0o666)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another file"
        ) from error
    try:
        _lock(descriptor, path)
        if not resume and os.fstat(descriptor).st_size:
            raise OutputError(
                f"{path} already has results: add --resume to continue, or choose another file"
            )
        names, size = _keep_whole_lines(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    lines = JsonLinesFile(path, descriptor, names, size)
    try:
        yield lines
    finally:
        lines.close()


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # on Windows: one job at a time is then up to its user
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{path}: another job is writing to it; choose another file") from error
    except OSError:
        pass  # no locks on this file system either


def _keep_whole_lines(descriptor: int, path: Path) -> tuple[frozenset[str], int]:
    """Cut off an incomplete last line; return the names in the file and its size."""
    names: set[str] = set()
    size = 0
    with open(descriptor, "rb", closefd=False) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            names.add(_name_in(line, f"{path}, line {number}"))
            size += len(line)
    os.ftruncate(descriptor, size)
    return frozenset(names), size


def _name_in(line: bytes, where: str) -> str:
    try:
        name = json.loads(line)["name"]
    except (ValueError, TypeError, KeyError):
        name = None
    if not isinstance(name, str):
        raise OutputError(f"{where}: not a result of an earlier run; choose another file")
    return name
