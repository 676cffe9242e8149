"""What a caller may bring as a recording, brought down to two forms.

Sound that is already decoded (`RawSound`) or a file to decode (`SoundFile`). Knows the shapes in
which Python programs hand sound around, Hugging Face `datasets` and PyTorch among them, by what
they offer and without importing them. Knows nothing of containers and codecs.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, SupportsInt, Union, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batched_whisper.errors import EmptyAudio, InvalidSamples, OptionError, UnreadableAudio
from batched_whisper.types import SAMPLING_RATE

SLOWEST_RATE = 1_000
FASTEST_RATE = 768_000
"""Sampling rates that sound is really recorded at; beyond them a header is wrong."""

_MOST_CHANNELS = 64
_LOUDEST_NORMAL = 8.0  # a float sample beyond this was hardly scaled to -1 to 1


class HoldsArray(Protocol):
    """Anything that NumPy can take as an array, such as a tensor in main memory."""

    def __array__(self) -> NDArray[Any]:
        """Its values."""


class DecodesItself(Protocol):
    """A decoder as newer `datasets` return it: torchcodec's AudioDecoder."""

    def get_all_samples(self) -> Any:
        """An object with ``data``, ``[n_channels, n_samples]``, and ``sample_rate``."""


AudioSource = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    IO[bytes],
    "NDArray[Any]",
    HoldsArray,
    Sequence[float],
    Mapping[str, Any],
    DecodesItself,
]
"""A path, an encoded file's bytes or binary file object, an array ``[n_samples]`` or with its
channels first or last, a `datasets` audio value in each of its forms (a dict of ``array`` and
``sampling_rate``, a dict of ``bytes`` and ``path``, a decoder), the dict of ``raw`` and
``sampling_rate`` that `transformers` pipelines take, or a row that has one as its ``audio``."""


@dataclass(frozen=True)
class RawSound:
    """Samples as the caller holds them, ``[n_channels, n_samples]``, of a float or integer type."""

    channels: NDArray[Any]
    sampling_rate: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SoundFile:
    """An open binary file that can seek, wherever it stands now. ``ours`` to close, or not."""

    file: IO[bytes]
    ours: bool


def source_name(source: AudioSource) -> str:
    """What messages call this recording: its path where it has one."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Mapping):
        inner = source.get("audio")
        path = source.get("path")
        return source_name(inner) if inner is not None else str(path or "audio")
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


def resolve(source: AudioSource, name: str, sampling_rate: int | None) -> RawSound | SoundFile:
    """Bring a source down to samples or an open file.

    Args:
        source: what the caller brought.
        name: what messages call it.
        sampling_rate: of a bare array; 16 kHz if not given.

    Raises:
        UnreadableAudio: a file that cannot be opened, or nothing that could be sound.
        EmptyAudio, InvalidSamples: an array without samples, or that is not sound.
        OptionError: a sampling rate for a source that brings its own.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, name, sampling_rate)
    if hasattr(source, "get_all_samples"):
        _refuse_rate(sampling_rate, name)
        return _from_decoder(cast("DecodesItself", source), name)
    if isinstance(source, (str, os.PathLike)):
        _refuse_rate(sampling_rate, name)
        return SoundFile(_opened(source, name), ours=True)
    if isinstance(source, (bytes, bytearray, memoryview)):
        _refuse_rate(sampling_rate, name)
        return SoundFile(io.BytesIO(source), ours=True)
    if hasattr(source, "read"):
        _refuse_rate(sampling_rate, name)
        return _from_file(cast("IO[bytes]", source), name)
    if isinstance(source, (list, tuple)):
        _refuse_several(source, name)
    return _from_array(source, name, SAMPLING_RATE if sampling_rate is None else sampling_rate)


def check_several(sources: object) -> None:
    """Refuse one recording where several are taken, before it is taken apart as if it were them.

    Raises:
        UnreadableAudio: it says what to call instead.
    """
    is_one = (
        isinstance(sources, (str, os.PathLike, bytes, bytearray, memoryview, Mapping))
        or any(hasattr(sources, name) for name in ("read", "get_all_samples"))
        or _is_one_array(sources)
    )
    if is_one:
        name = source_name(cast("AudioSource", sources))
        raise UnreadableAudio(
            f"{name}: this is one recording where several are taken: "
            "use transcribe(...) for it, or map([...])"
        )


def _is_one_array(values: object) -> bool:
    """Whether it is an array of single samples; one of more axes may be a recording a row."""
    if not hasattr(values, "__array__") or getattr(values, "ndim", None) != 1:
        return False
    first = next(iter(cast("Iterable[object]", values)), None)
    if first is None:
        return False
    value = _as_array(first, "audio")
    return value.ndim == 0 and value.dtype.kind in "fiu"


def check_rate(sampling_rate: object, name: str) -> int:
    """The rate as an integer; `InvalidSamples` where no sound has such a rate."""
    try:
        rate = int(cast("SupportsInt", sampling_rate))
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate != sampling_rate or not SLOWEST_RATE <= rate <= FASTEST_RATE:
        raise InvalidSamples(
            f"{name}: a sampling rate of {sampling_rate} Hz; "
            f"sound has a whole number from {SLOWEST_RATE:,} to {FASTEST_RATE:,} Hz"
        )
    return rate


def _refuse_several(sources: Sequence[object], name: str) -> None:
    if isinstance(next(iter(sources), None), (str, os.PathLike, bytes, bytearray, Mapping)):
        raise InvalidSamples(
            f"{name}: a list of recordings is not one: use transcribe.map([...]), "
            "or transcribe(...) for each"
        )


def _refuse_rate(sampling_rate: int | None, name: str) -> None:
    if sampling_rate is not None:
        raise OptionError(
            f"sampling_rate={sampling_rate!r} is for a bare array; {name} brings its own, "
            "so leave it out"
        )


def _from_mapping(
    source: Mapping[str, Any], name: str, sampling_rate: int | None
) -> RawSound | SoundFile:
    for key in ("array", "raw"):
        if source.get(key) is not None:
            own = source.get("sampling_rate")
            if own is not None:
                _refuse_rate(sampling_rate, name)
            return _from_array(source[key], name, _first(own, sampling_rate, SAMPLING_RATE))
    # A data set keeps the path as the file's name beside its bytes, where it need not exist.
    for key in ("audio", "bytes", "path"):
        if source.get(key) is not None:
            return resolve(source[key], name, sampling_rate)
    raise UnreadableAudio(
        f"{name}: a mapping with the keys {sorted(map(str, source))} holds no sound: "
        "give one with 'audio', with 'array' and 'sampling_rate', or with 'bytes' or 'path'"
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _opened(path: str | os.PathLike[str], name: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        if "://" in os.fspath(path):
            cause += "; addresses are not fetched, so download it and give the file"
        raise UnreadableAudio(f"{name}: cannot be opened: {cause}") from error


def _from_file(file: IO[bytes], name: str) -> SoundFile:
    """A caller's file object; one that cannot seek is copied to a temporary file.

    Most containers keep what is needed to read them at the end as well as at the beginning.
    """
    if isinstance(file, io.TextIOBase):
        raise UnreadableAudio(f"{name}: the file is open as text; open it with mode 'rb'")
    try:
        seekable = getattr(file, "seekable", None)
        if seekable() if seekable is not None else hasattr(file, "seek"):
            return SoundFile(file, ours=False)
        # Closed, and so deleted, with the stream it is for.
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy)
    except Exception as error:  # whatever the caller's object raises
        raise UnreadableAudio(f"{name}: reading it failed: {error}") from error
    return SoundFile(cast("IO[bytes]", copy), ours=True)


def _from_decoder(decoder: DecodesItself, name: str) -> RawSound:
    try:
        samples = decoder.get_all_samples()
    except Exception as error:  # whatever the caller's object raises
        raise UnreadableAudio(f"{name}: its own decoder cannot read it: {error}") from error
    return _from_array(samples.data, name, samples.sample_rate)


def _from_array(values: object, name: str, sampling_rate: object) -> RawSound:
    rate = check_rate(sampling_rate, name)
    channels = _channels_first(_as_array(values, name), name)
    kind, bits = channels.dtype.kind, channels.dtype.itemsize * 8
    if kind not in "fiu" or (kind in "iu" and bits > 32):
        raise InvalidSamples(
            f"{name}: samples of type {channels.dtype} have no known scale: "
            "give floats from -1 to 1, or integers of at most 32 bits"
        )
    return RawSound(channels, rate, _loudness_warnings(channels))


def _as_array(values: object, name: str) -> NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, perhaps with a gradient or on a GPU
        values = values.detach().cpu()
    dtype = np.float32 if isinstance(values, (list, tuple)) else None
    try:
        return np.asarray(cast("ArrayLike", values), dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InvalidSamples(
            f"{name}: samples that make no array ({error}); several recordings go to map([...])"
        ) from error


def _channels_first(array: NDArray[Any], name: str) -> NDArray[Any]:
    """``[n_channels, n_samples]``; of two axes, the shorter one is the channels."""
    if array.ndim == 0 and array.dtype.kind not in "fiu":
        raise UnreadableAudio(
            f"{name}: an object of type {type(array.item()).__name__} is no sound: give a path, "
            "bytes, a binary file, an array or an audio value of `datasets`"
        )
    if array.size == 0 and array.ndim:
        raise EmptyAudio(f"{name}: the array has no samples")
    if array.ndim == 1:
        return array[None, :]
    if array.ndim != 2 or min(array.shape) > _MOST_CHANNELS:
        raise InvalidSamples(
            f"{name}: an array of shape {list(array.shape)} is not sound: "
            "give [n_samples], [n_channels, n_samples] or [n_samples, n_channels]"
        )
    return array if array.shape[0] <= array.shape[1] else array.T


def _loudness_warnings(channels: NDArray[Any]) -> tuple[str, ...]:
    if channels.dtype.kind != "f":
        return ()
    peak = max(float(channels.max()), -float(channels.min()))
    if not _LOUDEST_NORMAL < peak < np.inf:
        return ()
    return (
        f"float samples reach {peak:g} where 1 is full scale: "
        "were they integers? Give those as integers, or divide by their full scale",
    )
