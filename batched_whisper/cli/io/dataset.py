"""Recordings of a Hugging Face dataset, through the optional package ``datasets``.

Imports the package when a dataset is requested. Takes the encoded bytes from the dataset; they
are decoded like any other recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from batched_whisper.cli.io.inputs import RecordingSource
from batched_whisper.errors import ManifestError, MissingExtra, OptionError, UnreadableAudio

EXAMPLE_DATASET = "hf-internal-testing/librispeech_asr_dummy"
"""73 short recordings of LibriSpeech, for a first try."""


@dataclass(frozen=True)
class DatasetName:
    """Names a dataset's configuration, split and column. None: the only one."""

    name: str
    config: str | None = None
    split: str | None = None
    column: str = "audio"

    def completed(self) -> DatasetName:
        """Fill in configuration and split for `EXAMPLE_DATASET`."""
        if self.name != EXAMPLE_DATASET:
            return self
        return DatasetName(
            EXAMPLE_DATASET, self.config or "clean", self.split or "validation", self.column
        )


def from_dataset(wanted: DatasetName) -> list[RecordingSource]:
    """List the recordings of a dataset, in its order, without reading them.

    Raises:
        MissingExtra: the package ``datasets`` is not installed.
        ManifestError: the dataset cannot be loaded.
        OptionError: no such column, or several splits and none chosen.
    """
    wanted = wanted.completed()
    rows = _undecoded(_load(wanted), wanted)
    split = wanted.split or str(rows.split or "all")
    return [
        RecordingSource(
            name=f"{wanted.name}/{split}/{number:06d}",
            place=PurePath(f"{number:06d}"),
            audio=_reader(rows, number, wanted.column),
        )
        for number in range(len(rows))
    ]


def _load(wanted: DatasetName) -> Any:
    """Load one split as `datasets.Dataset`."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "--dataset needs the package datasets: run pip install 'batched-whisper[datasets]'"
        ) from error
    from batched_whisper.models import hub

    is_here = Path(wanted.name).exists() or hub.is_reachable()
    try:
        with nullcontext() if is_here else _offline():
            loaded = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split)
    except Exception as error:  # datasets raises many unrelated classes
        reason = " ".join(str(error).split()) or type(error).__name__
        if not is_here:
            reason = (
                f"the Hub ({hub.endpoint()}) cannot be reached, and there is no local copy; "
                "connect to the network, or name the dataset's folder"
            )
        raise ManifestError(f"the dataset {wanted.name} cannot be loaded: {reason}") from error
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) > 1:
        raise OptionError(f"--split: choose one of {', '.join(loaded)} of {wanted.name}")
    return next(iter(loaded.values()))


@contextmanager
def _offline() -> Iterator[None]:
    """Use the local cache only: offline, each of many requests would time out."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _undecoded(rows: Any, wanted: DatasetName) -> Any:
    """Select the audio column, without decoding it."""
    import datasets

    if wanted.column not in rows.column_names:
        raise OptionError(
            f"--column {wanted.column}: {wanted.name} has {', '.join(rows.column_names)}"
        )
    rows = rows.select_columns([wanted.column])
    try:
        return rows.cast_column(wanted.column, datasets.Audio(decode=False))
    except Exception as error:
        raise OptionError(f"--column {wanted.column}: this is not an audio column") from error


def _reader(rows: Any, number: int, column: str) -> Callable[[], bytes]:
    def read() -> bytes:
        stored = rows[number][column]
        if stored is None:
            raise UnreadableAudio("this row has no audio")
        if stored.get("bytes") is not None:
            return bytes(stored["bytes"])
        try:
            return Path(stored["path"]).read_bytes()
        except (OSError, TypeError) as error:
            raise UnreadableAudio(f"the audio of this row cannot be read: {error}") from error

    return read
