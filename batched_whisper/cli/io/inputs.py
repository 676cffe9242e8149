"""Finds the recordings named on a command line: files, folders, globs, lists and manifests.

Knows file names and nothing of their content. A missing or impossible path becomes a recording
that fails when it is opened, so that one wrong path does not stop the others.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from batched_whisper.cli.io.manifest import Row, read_manifest
from batched_whisper.errors import ManifestError, OptionError, UnreadableAudio

EXTENSIONS = frozenset(
    re.findall(
        r"\S+",
        """
        .3g2 .3ga .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .awb .caf .dts .eac3
        .flac .flv .gsm .m2ts .m4a .m4b .m4v .mka .mkv .mov .mp1 .mp2 .mp3 .mp4 .mpeg .mpg .mpga
        .mts .oga .ogg .ogv .opus .ra .rm .sph .spx .tta .voc .vob .w64 .wav .weba .webm .wma
        .wmv .wv
        """,
    )
)
"""Extensions of the audio and video files that are taken from a folder. A file that is named
explicitly may have any extension."""


@dataclass(frozen=True)
class RecordingSource:
    """One recording of a job, not yet opened."""

    name: str
    """Its name in results and messages; unique in a job."""
    place: PurePath
    """Its relative path, from which output file names are made."""
    audio: Path | Callable[[], bytes]
    """Its file, or a function that returns its bytes."""
    row: Row | None = None
    """Its row in a manifest, if it comes from one."""

    def is_there(self) -> bool:
        """Whether the file exists, as far as that is known before it is opened."""
        return not isinstance(self.audio, Path) or stat.S_ISREG(_mode(self.audio))

    def open(self) -> Path | bytes:
        """The path or bytes to transcribe; raise `UnreadableAudio` if there is no such file."""
        if not isinstance(self.audio, Path):
            return self.audio()
        try:
            is_file = stat.S_ISREG(self.audio.stat().st_mode)
        except FileNotFoundError as error:
            raise UnreadableAudio(
                "no file matches" if glob.has_magic(self.name) else "there is no such file"
            ) from error
        except (OSError, ValueError) as error:
            raise UnreadableAudio(f"the file cannot be opened: {_reason(error)}") from error
        if not is_file:
            raise UnreadableAudio("not a regular file")
        return self.audio


def find_sources(paths: Iterable[str], read_list: Callable[[], bytes]) -> list[RecordingSource]:
    """List the distinct recordings of these paths, in the given order, folders sorted.

    ``-`` stands for the paths that ``read_list`` returns, one per line (or NUL-separated, as
    ``find -print0`` writes them).

    Raises:
        OptionError: a URL, or audio instead of a list of paths.
        ManifestError: an unreadable list or manifest, or a folder without recordings.
    """
    found: dict[str, RecordingSource] = {}
    for path in paths:
        listed = _split_list(read_list()) if path == "-" else [path]
        for each in listed:
            for source in _expand(each):
                found.setdefault(source.name, source)
    return list(found.values())


def _split_list(listed: bytes) -> list[str]:
    if _NO_LIST in listed:
        raise OptionError(
            "- reads a list of paths from standard input, one per line, and got binary data; "
            "to transcribe a recording, name its file"
        )
    separator = b"\0" if b"\0" in listed else b"\n"
    lines = (line.rstrip(b"\r") for line in listed.split(separator))
    return [os.fsdecode(line) for line in lines if line.strip()]


_NO_LIST = bytes(3)
"""Several NULs in a row mark binary data: a list has at most one between two paths."""


def _expand(path: str) -> Iterator[RecordingSource]:
    if "://" in path:
        raise OptionError(f"{path}: URLs are not supported; download the file and name it")
    here = Path(path)
    if stat.S_ISDIR(_mode(here)):
        yield from _inside(here)
    elif here.suffix.lower() == ".jsonl":
        yield from from_manifest(here)
    elif glob.has_magic(path) and not _mode(here):
        for match in map(Path, _matches(path) or [path]):
            yield from _inside(match) if stat.S_ISDIR(_mode(match)) else [_file(match)]
    else:
        yield _file(here)


def _mode(path: Path) -> int:
    """The file's mode; 0 if there is no such file."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _matches(pattern: str) -> list[str]:
    try:
        return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (any anchor)
    except (OSError, ValueError):
        return []


def _file(path: Path) -> RecordingSource:
    return RecordingSource(name=str(path), place=PurePath(path.name), audio=path)


def _inside(folder: Path) -> Iterator[RecordingSource]:
    """The recordings of a folder and its subfolders, except hidden ones (``.x``, ``._x``)."""
    unread: list[OSError] = []
    found = sorted(_walk(folder, unread.append))
    if not found and not unread:
        raise ManifestError(f"the folder {folder} contains no recordings")
    for path in found:
        yield RecordingSource(name=str(path), place=path.relative_to(folder), audio=path)
    for error in unread:
        path = Path(error.filename)
        yield RecordingSource(str(path), path.relative_to(folder), partial(_refuse_folder, error))


def _refuse_folder(error: OSError) -> bytes:
    raise UnreadableAudio(f"the folder cannot be read: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _walk(folder: Path, unread: Callable[[OSError], None]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=unread):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and PurePath(name).suffix.lower() in EXTENSIONS:
                yield Path(parent, name)


def from_manifest(path: Path) -> Sequence[RecordingSource]:
    """List the recordings of a manifest; raise `ManifestError` if it cannot be read."""
    return [
        RecordingSource(name=str(row.audio), place=_within(row.place), audio=row.audio, row=row)
        for row in read_manifest(path)
    ]


def _within(place: str) -> PurePath:
    """The path, or only its last name if it leaves the manifest's folder."""
    path = PurePath(place)
    if path.is_absolute() or ".." in path.parts or not path.name:
        return PurePath(path.name or "recording")  # "." and "/" have no name
    return path
