"""Loads models from the Hugging Face Hub and its local cache.

Knows which files of a repository are needed, and explains the errors of the Hub. The cache is that
of huggingface_hub, shared with other programs and set by its variables (HF_HOME, HF_HUB_CACHE);
HF_ENDPOINT and HF_TOKEN apply too. Knows nothing of other sources.
"""

from __future__ import annotations

import errno
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors

from batched_whisper.errors import (
    HubUnreachable,
    ModelError,
    ModelFileMissing,
    UnknownModel,
)
from batched_whisper.models.ctranslate2_file import MODEL_FILE
from batched_whisper.models.model_files import ModelFiles, Source
from batched_whisper.models.safetensors_file import INDEX_FILE, SINGLE_FILE

PROBE_TIMEOUT_S = 5.0
"""Seconds until the first response, after which the Hub counts as unreachable."""

DEFAULT_ENDPOINT = "https://huggingface.co"

_BESIDE_WEIGHTS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
_CTRANSLATE2_VOCABULARIES = ("vocabulary.txt", "vocabulary.json")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def endpoint() -> str:
    """Return the URL of the Hub."""
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the Hub's environment variables forbid using the network."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.upper() in ("1", "TRUE", "YES", "ON") for value in values)


def is_reachable() -> bool:
    """Whether the network is allowed and the Hub responds within `PROBE_TIMEOUT_S`."""
    if is_offline():
        return False
    request = urllib.request.Request(endpoint(), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True  # an error status is a response
    except (OSError, ValueError):
        return False
    return True


def from_cache(repository: str, revision: str | None, cache: Path | None) -> Path | None:
    """Return the newest cached snapshot of a revision, if it is complete."""
    try:
        found = huggingface_hub.try_to_load_from_cache(
            repository, "config.json", cache_dir=cache, revision=revision
        )
    except hub_errors.HFValidationError:  # not a valid repository name
        return None
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return None if missing_file(folder) else folder


def missing_file(folder: Path) -> str | None:
    """Describe the first file that is missing in a model folder; None if it is complete."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return "tokenizer.json"
    if any((folder / name).is_file() for name in (SINGLE_FILE, MODEL_FILE)):
        return None
    if not (folder / INDEX_FILE).is_file():
        return "its weights (model.safetensors or model.bin)"
    try:
        shards = json.loads((folder / INDEX_FILE).read_text("utf-8"))["weight_map"].values()
    except (ValueError, KeyError, AttributeError, TypeError):
        return None  # reading the weights raises the error
    return next((name for name in sorted(set(shards)) if not (folder / name).is_file()), None)


def needed_files(present: Iterable[str]) -> list[str]:
    """Select the files of a repository to download: one kind of weights, never a pickle.

    Empty if there are no weights in a supported format.
    """
    names = sorted(present)
    if SINGLE_FILE in names:
        weights = [SINGLE_FILE]
    elif INDEX_FILE in names:
        weights = [INDEX_FILE, *(name for name in names if _SHARD.fullmatch(name))]
    elif MODEL_FILE in names:
        weights = [MODEL_FILE, *(name for name in names if name in _CTRANSLATE2_VOCABULARIES)]
    else:
        return []
    return [*(name for name in names if name in _BESIDE_WEIGHTS), *weights]


def fetch(name: str, repository: str, revision: str | None, cache: Path | None) -> ModelFiles:
    """Download the needed files of a repository, with progress; resumes an interrupted download.

    Raises:
        HubUnreachable: no response within some seconds, or the connection was lost.
        UnknownModel: no such repository or revision, or it is not public.
        ModelFileMissing: the repository lacks a file, or has no supported weights.
    """
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache,
                allow_patterns=_choose(repository, revision),
                etag_timeout=PROBE_TIMEOUT_S,
                endpoint=endpoint(),
            )
        )
    except ModelError:
        raise
    # huggingface_hub passes on exceptions of its HTTP client, which has changed twice
    except Exception as error:
        raise _explained(error, repository, revision) from error
    lacking = missing_file(folder)
    if lacking:
        raise ModelFileMissing(f"{repository} on the Hub lacks {lacking}; choose another")
    return ModelFiles(name, folder.name, folder, Source.HUB)


def _choose(repository: str, revision: str | None) -> list[str]:
    """Return the files to download. This first request has a timeout, to fail fast if offline."""
    api = huggingface_hub.HfApi(endpoint=endpoint(), library_name="batched-whisper")
    found = api.model_info(repository, revision=revision, timeout=PROBE_TIMEOUT_S)
    wanted = needed_files(file.rfilename for file in found.siblings or ())
    if not wanted:
        raise ModelFileMissing(
            f"{repository} on the Hub has no supported weights: neither "
            "model.safetensors nor CTranslate2's model.bin; choose another repository"
        )
    return wanted


def _explained(error: Exception, repository: str, revision: str | None) -> ModelError:
    at = f"the Hub ({endpoint()})"
    if isinstance(error, hub_errors.GatedRepoError):
        return UnknownModel(
            f"{repository} on {at} is not open to everyone; accept its terms there and set HF_TOKEN"
        )
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return UnknownModel(f"{repository} on {at} has no revision {revision!r}; try main")
    if isinstance(error, (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError)):
        return UnknownModel(
            f"{at} has no repository {repository}; check the name, or set HF_TOKEN if it is private"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return ModelError(
            f"{repository} cannot be stored in the Hub's cache ({error}); make room, or set "
            "HF_HOME to a folder that can be written"
        )
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return HubUnreachable(f"{repository} could not be fetched from {at}: {reason}")
