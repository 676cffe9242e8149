"""Where results go: standard output, a folder of files, or a file of JSON lines.

Each place takes transcripts one at a time, can say what it already has, and is never left with
half of one, whatever ends the program. Knows nothing of how transcripts are made.
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
"""How much finished work a power failure may cost; a killed process costs none of it."""


class Output(Protocol):
    """One place for results."""

    def has(self, source: RecordingSource) -> bool:
        """Whether the result of this recording is there from an earlier run."""

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Put a result there; `OutputError` where it cannot be, with nothing of it written."""


class StandardOutput:
    """Results for reading, or for a pipe."""

    def __init__(
        self, form: Format, *, named: bool, write: Callable[[str], None] | None = None
    ) -> None:
        """Named results begin with the recording's name; ``write`` replaces standard output."""
        self._form, self._named = form, named
        self._write = write or _write_standard_output

    def has(self, source: RecordingSource) -> bool:
        """Never: what was printed is gone."""
        return False

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Print it at once."""
        if self._named and self._form is FORMATS["text"]:
            self._write(f"{source.name}: {' '.join(transcript.text.split())}\n")
        else:
            self._write(self._form.write(transcript))


def _write_standard_output(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclasses.dataclass(frozen=True)
class FolderOfFiles:
    """A file a recording and format, each written whole or not at all."""

    folder: Path
    forms: Sequence[Format]
    names: Mapping[str, PurePath]

    def has(self, source: RecordingSource) -> bool:
        """Whether all its files are there."""
        try:
            return all(self._path(source, form).is_file() for form in self.forms)
        except (OSError, ValueError):  # such as of a name that no file can have
            return False

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Write its files."""
        for form in self.forms:
            path = self._path(source, form)
            make_folder(path.parent)
            write_atomically(path, form.write(transcript))

    def _path(self, source: RecordingSource, form: Format) -> Path:
        path = self.folder / self.names[source.name]
        return path.with_name(path.name + form.suffix)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; `OutputError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be made ({error.strerror}); choose another place"
        ) from error


class JsonLinesFile:
    """A file that grows by one whole line a recording. Make it with `open_json_lines`."""

    def __init__(self, path: Path, descriptor: int, names: frozenset[str], size: int) -> None:
        """``names`` are those of the recordings in its ``size`` bytes."""
        self._path, self._descriptor = path, descriptor
        self._names, self._size = names, size
        self._synced_s = time.monotonic()

    def has(self, source: RecordingSource) -> bool:
        """Whether a line of an earlier run is this recording's."""
        return source.name in self._names

    def write(self, source: RecordingSource, transcript: Transcript) -> None:
        """Append its line in one write, so that no end of the process can split it."""
        line = FORMATS["jsonl"].write(transcript).encode("utf-8")
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(28, "the disk is full")
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise OutputError(
                f"{self._path} cannot be written ({error.strerror}); "
                "what was finished is in it, and --resume goes on from there"
            ) from error
        self._size += len(line)
        if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._synced_s = time.monotonic()

    def close(self) -> None:
        """Bring what was written to the disk."""
        self._sync()
        os.close(self._descriptor)


@contextmanager
def open_json_lines(path: Path, *, resume: bool) -> Iterator[JsonLinesFile]:
    """Open a file of results for one job at a time.

    With ``resume``, what an earlier job left is kept, apart from a last line that was torn.

    Raises:
        OutputError: it cannot be opened, another job writes to it, it is not ours, or it has
            results in it and ``resume`` was not asked for.
    """
    make_folder(path.parent)
    try:
        descriptor = os.open(path, _APPENDED, 0o666)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        _lock(descriptor, path)
        if not resume and os.fstat(descriptor).st_size:
            raise OutputError(
                f"{path} has results in it: --resume goes on with them; else give another name"
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
        raise OutputError(f"{path}: another job is writing to it; give another name") from error
    except OSError:
        pass  # a file system without locks: the same


def _keep_whole_lines(descriptor: int, path: Path) -> tuple[frozenset[str], int]:
    """The names in the file and its size, after cutting off a last line that was torn."""
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
        raise OutputError(f"{where}: this is not a result of an earlier run; give another name")
    return name
