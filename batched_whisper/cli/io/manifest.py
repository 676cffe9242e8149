"""Reads manifests: lists of recordings, one JSON object per line.

Reads the field ``audio`` (a path, relative to the manifest) and the optional fields ``text``,
``language``, ``duration_s`` and ``collection``; ignores others. Does not look at the audio: a
missing file fails when it is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batched_whisper.errors import ManifestError
from batched_whisper.tokens.languages import known_language


@dataclass(frozen=True)
class Row:
    """One recording of a manifest; absent fields are None."""

    audio: Path
    place: str
    """The path as written in the manifest."""
    text: str | None = None
    language: str | None = None
    """The language code; None if Whisper does not support it."""
    duration_s: float | None = None
    collection: str | None = None


_TYPES: dict[str, tuple[type[Any], ...]] = {
    "text": (str,),
    "language": (str,),
    "duration_s": (int, float),
    "collection": (str,),
}
_CALLED = {str: "a string", int: "a number"}


def read_manifest(path: Path) -> list[Row]:
    """Read the rows of a manifest, in order; skip blank lines.

    Raises:
        ManifestError: unreadable file, or a malformed line; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"the manifest {path} is not UTF-8 text") from error
    except (OSError, ValueError) as error:  # a name with NUL in it is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(f"the manifest {path} cannot be read: {reason}") from error
    return [
        _row(line, path, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _row(line: str, manifest: Path, where: str) -> Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{where}: not JSON; a manifest has one JSON object per line"
        ) from error
    if not isinstance(fields, dict):
        raise ManifestError(f'{where}: expected an object such as {{"audio": "a.wav"}}')
    audio = fields.get("audio")
    if not isinstance(audio, str) or not audio or "\0" in audio:
        raise ManifestError(f'{where}: the field "audio" must be the path of a recording')
    known = {name: _field(fields, name, where) for name in _TYPES}
    known["language"] = known_language(known["language"])
    return Row(audio=manifest.parent / audio, place=audio, **known)


def _field(fields: dict[str, Any], name: str, where: str) -> Any:
    value, types = fields.get(name), _TYPES[name]
    if value is None:
        return None
    if not isinstance(value, types) or isinstance(value, bool):
        raise ManifestError(f'{where}: the field "{name}" must be {_CALLED[types[0]]}')
    return value
