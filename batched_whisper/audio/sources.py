"""Reduces every kind of audio source to decoded samples or an open file.

Decoded samples become a `RawAudio`, encoded files an `AudioFile`. Recognises the audio objects of
Python libraries, such as Hugging Face `datasets` and PyTorch, by their attributes, without
importing the libraries. Knows nothing of containers and codecs.
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

MIN_SAMPLING_RATE = 1_000
MAX_SAMPLING_RATE = 768_000
"""The range of sampling rates in use, in Hz; a header with another rate is wrong."""

_MAX_CHANNELS = 64
_MAX_PLAUSIBLE_PEAK = 8.0  # float samples above this were probably not scaled to -1 to 1


class SupportsArray(Protocol):
    """An object that NumPy can convert to an array, such as a tensor in main memory."""

    def __array__(self) -> NDArray[Any]:
        """Return the values."""


class SelfDecoding(Protocol):
    """A decoder as newer versions of `datasets` return it: torchcodec's AudioDecoder."""

    def get_all_samples(self) -> Any:
        """Return an object with ``data``, ``[n_channels, n_samples]``, and ``sample_rate``."""


AudioSource = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    IO[bytes],
    "NDArray[Any]",
    SupportsArray,
    Sequence[float],
    Mapping[str, Any],
    SelfDecoding,
]
"""A path, an encoded file's bytes or binary file object, an array ``[n_samples]`` or with its
channels first or last, an audio value of `datasets` in any form (a dict of ``array`` and
``sampling_rate``, a dict of ``bytes`` and ``path``, a decoder), the dict of ``raw`` and
``sampling_rate`` of `transformers` pipelines, or a row with one of these as its ``audio``."""


@dataclass(frozen=True)
class RawAudio:
    """The caller's samples, ``[n_channels, n_samples]``, of a float or integer type."""

    channels: NDArray[Any]
    sampling_rate: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AudioFile:
    """An open, seekable binary file at any position; ``ours``: to be closed by this package."""

    file: IO[bytes]
    ours: bool


def source_name(source: AudioSource) -> str:
    """Return the name of a recording in messages: its path if it has one."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Mapping):
        inner = source.get("audio")
        path = source.get("path")
        return source_name(inner) if inner is not None else str(path or "audio")
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


def resolve(source: AudioSource, name: str, sampling_rate: int | None) -> RawAudio | AudioFile:
    """Reduce a source to samples or an open file.

    Args:
        source: the caller's audio source.
        name: the name in messages.
        sampling_rate: of a bare array, in Hz; default 16,000.

    Raises:
        UnreadableAudio: the file cannot be opened, or the object is not an audio source.
        EmptyAudio, InvalidSamples: the array is empty, or its contents are not audio.
        OptionError: a sampling rate for a source that has its own.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, name, sampling_rate)
    if hasattr(source, "get_all_samples"):
        _refuse_rate(sampling_rate, name)
        return _from_decoder(cast("SelfDecoding", source), name)
    if isinstance(source, (str, os.PathLike)):
        _refuse_rate(sampling_rate, name)
        return AudioFile(_opened(source, name), ours=True)
    if isinstance(source, (bytes, bytearray, memoryview)):
        _refuse_rate(sampling_rate, name)
        return AudioFile(io.BytesIO(source), ours=True)
    if hasattr(source, "read"):
        _refuse_rate(sampling_rate, name)
        return _from_file(cast("IO[bytes]", source), name)
    if isinstance(source, (list, tuple)):
        _refuse_several(source, name)
    return _from_array(source, name, SAMPLING_RATE if sampling_rate is None else sampling_rate)


def check_several(sources: object) -> None:
    """Reject a single recording where an iterable of recordings is expected.

    Raises:
        UnreadableAudio: ``sources`` is one recording; the message says what to call instead.
    """
    is_one = (
        isinstance(sources, (str, os.PathLike, bytes, bytearray, memoryview, Mapping))
        or any(hasattr(sources, name) for name in ("read", "get_all_samples"))
        or _is_one_array(sources)
    )
    if is_one:
        name = source_name(cast("AudioSource", sources))
        raise UnreadableAudio(
            f"{name}: expected an iterable of recordings, got one recording: "
            "use transcribe(...) for it, or map([...])"
        )


def _is_one_array(values: object) -> bool:
    """Whether it is a one-dimensional array of samples; with two axes a row may be a recording."""
    if not hasattr(values, "__array__") or getattr(values, "ndim", None) != 1:
        return False
    first = next(iter(cast("Iterable[object]", values)), None)
    if first is None:
        return False
    value = _as_array(first, "audio")
    return value.ndim == 0 and value.dtype.kind in "fiu"


def check_rate(sampling_rate: object, name: str) -> int:
    """Return the sampling rate as an integer; raises `InvalidSamples` if it is out of range."""
    try:
        rate = int(cast("SupportsInt", sampling_rate))
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate != sampling_rate or not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        raise InvalidSamples(
            f"{name}: a sampling rate of {sampling_rate} Hz; use a whole number "
            f"from {MIN_SAMPLING_RATE:,} to {MAX_SAMPLING_RATE:,} Hz"
        )
    return rate


def _refuse_several(sources: Sequence[object], name: str) -> None:
    if isinstance(next(iter(sources), None), (str, os.PathLike, bytes, bytearray, Mapping)):
        raise InvalidSamples(
            f"{name}: expected one recording, got a list of recordings: use transcribe.map([...]), "
            "or transcribe(...) for each"
        )


def _refuse_rate(sampling_rate: int | None, name: str) -> None:
    if sampling_rate is not None:
        raise OptionError(
            f"sampling_rate={sampling_rate!r} is only for a bare array; {name} has its own, "
            "so omit the argument"
        )


def _from_mapping(
    source: Mapping[str, Any], name: str, sampling_rate: int | None
) -> RawAudio | AudioFile:
    for key in ("array", "raw"):
        if source.get(key) is not None:
            own = source.get("sampling_rate")
            if own is not None:
                _refuse_rate(sampling_rate, name)
            return _from_array(source[key], name, _first(own, sampling_rate, SAMPLING_RATE))
    # A dataset keeps the path beside the bytes, where the file need not exist.
    for key in ("audio", "bytes", "path"):
        if source.get(key) is not None:
            return resolve(source[key], name, sampling_rate)
    raise UnreadableAudio(
        f"{name}: a mapping with the keys {sorted(map(str, source))} contains no audio: "
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
            cause += "; URLs are not supported, so download it and give the file"
        raise UnreadableAudio(f"{name}: cannot be opened: {cause}") from error


def _from_file(file: IO[bytes], name: str) -> AudioFile:
    """Wrap the caller's file object; one that cannot seek is copied to a temporary file.

    Most containers have metadata both at the end and at the beginning.
    """
    if isinstance(file, io.TextIOBase):
        raise UnreadableAudio(f"{name}: the file is open as text; open it with mode 'rb'")
    try:
        seekable = getattr(file, "seekable", None)
        if seekable() if seekable is not None else hasattr(file, "seek"):
            return AudioFile(file, ours=False)
        # Closed, and so deleted, together with the stream.
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy)
    except Exception as error:  # whatever the caller's object raises
        raise UnreadableAudio(f"{name}: reading it failed: {error}") from error
    return AudioFile(cast("IO[bytes]", copy), ours=True)


def _from_decoder(decoder: SelfDecoding, name: str) -> RawAudio:
    try:
        samples = decoder.get_all_samples()
    except Exception as error:  # whatever the caller's object raises
        raise UnreadableAudio(f"{name}: its decoder cannot read it: {error}") from error
    return _from_array(samples.data, name, samples.sample_rate)


def _from_array(values: object, name: str, sampling_rate: object) -> RawAudio:
    rate = check_rate(sampling_rate, name)
    channels = _channels_first(_as_array(values, name), name)
    kind, bits = channels.dtype.kind, channels.dtype.itemsize * 8
    if kind not in "fiu" or (kind in "iu" and bits > 32):
        raise InvalidSamples(
            f"{name}: samples of type {channels.dtype} have an unknown scale: "
            "give floats from -1 to 1, or integers of at most 32 bits"
        )
    return RawAudio(channels, rate, _loudness_warnings(channels))


def _as_array(values: object, name: str) -> NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, perhaps with a gradient or on a GPU
        values = values.detach().cpu()
    dtype = np.float32 if isinstance(values, (list, tuple)) else None
    try:
        return np.asarray(cast("ArrayLike", values), dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InvalidSamples(
            f"{name}: the samples are not an array ({error}); use map([...]) for several recordings"
        ) from error


def _channels_first(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return ``[n_channels, n_samples]``; the shorter of two axes is the channels."""
    if array.ndim == 0 and array.dtype.kind not in "fiu":
        raise UnreadableAudio(
            f"{name}: an object of type {type(array.item()).__name__} is not audio: give a path, "
            "bytes, a binary file, an array or an audio value of `datasets`"
        )
    if array.size == 0 and array.ndim:
        raise EmptyAudio(f"{name}: the array has no samples")
    if array.ndim == 1:
        return array[None, :]
    if array.ndim != 2 or min(array.shape) > _MAX_CHANNELS:
        raise InvalidSamples(
            f"{name}: an array of shape {list(array.shape)} is not audio: "
            "give [n_samples], [n_channels, n_samples] or [n_samples, n_channels]"
        )
    return array if array.shape[0] <= array.shape[1] else array.T


def _loudness_warnings(channels: NDArray[Any]) -> tuple[str, ...]:
    if channels.dtype.kind != "f":
        return ()
    peak = max(float(channels.max()), -float(channels.min()))
    if not _MAX_PLAUSIBLE_PEAK < peak < np.inf:
        return ()
    return (
        f"float samples reach {peak:g}, but full scale is 1: if they were converted from "
        "integers, give the integers, or divide by their full scale",
    )
