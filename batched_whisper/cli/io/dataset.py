"""Recordings of a Hugging Face data set, through the optional package ``datasets``.

Knows that package; imports it when a data set is asked for. Sound is taken as the bytes that the
data set holds and decoded as every other recording is.
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
"""73 short recordings of LibriSpeech: what one tries first."""


@dataclass(frozen=True)
class DatasetName:
    """Which rows of which data set. None: the only one there is."""

    name: str
    config: str | None = None
    split: str | None = None
    column: str = "audio"

    def completed(self) -> DatasetName:
        """With the configuration and split of the data set that we know."""
        if self.name != EXAMPLE_DATASET:
            return self
        return DatasetName(
            EXAMPLE_DATASET, self.config or "clean", self.split or "validation", self.column
        )


def from_dataset(wanted: DatasetName) -> list[RecordingSource]:
    """The recordings of a data set, in its order, not read yet.

    Raises:
        MissingExtra: the package ``datasets`` is not installed.
        ManifestError: the data set cannot be loaded.
        OptionError: it has no such column, or several splits and none was chosen.
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
    """One split, as `datasets.Dataset`."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "--dataset needs the package datasets: "
            "install it with pip install 'batched-whisper[datasets]'"
        ) from error
    from batched_whisper.models import hub

    is_here = Path(wanted.name).exists() or hub.is_reachable()
    try:
        with nullcontext() if is_here else _what_is_kept_alone():
            loaded = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split)
    except Exception as error:  # every kind of trouble has its own class there
        reason = " ".join(str(error).split()) or type(error).__name__
        if not is_here:
            reason = (
                f"the Hub ({hub.endpoint()}) cannot be reached, and this machine keeps no copy; "
                "connect to the network, or give the data set's folder"
            )
        raise ManifestError(f"the data set {wanted.name} cannot be loaded: {reason}") from error
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) > 1:
        raise OptionError(f"--split: choose one of {', '.join(loaded)} of {wanted.name}")
    return next(iter(loaded.values()))


@contextmanager
def _what_is_kept_alone() -> Iterator[None]:
    """Data sets of the cache at once: without it every one of many requests is tried for long."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _undecoded(rows: Any, wanted: DatasetName) -> Any:
    """Its column of sound alone, as it was stored."""
    import datasets

    if wanted.column not in rows.column_names:
        raise OptionError(
            f"--column {wanted.column}: {wanted.name} has {', '.join(rows.column_names)}"
        )
    rows = rows.select_columns([wanted.column])
    try:
        return rows.cast_column(wanted.column, datasets.Audio(decode=False))
    except Exception as error:
        raise OptionError(f"--column {wanted.column}: there is no sound in it") from error


def _reader(rows: Any, number: int, column: str) -> Callable[[], bytes]:
    def read() -> bytes:
        stored = rows[number][column]
        if stored is None:
            raise UnreadableAudio("there is no sound in this row")
        if stored.get("bytes") is not None:
            return bytes(stored["bytes"])
        try:
            return Path(stored["path"]).read_bytes()
        except (OSError, TypeError) as error:
            raise UnreadableAudio(f"the sound of this row cannot be read: {error}") from error

    return read
