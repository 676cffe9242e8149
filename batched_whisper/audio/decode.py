"""Decodes audio sources to 16 kHz float32 samples, mono or with separate channels.

Uses FFmpeg's libraries through PyAV; starts no program. Reads as a stream, so that a long
recording is never in memory as a whole. From a damaged file the readable part is returned, with
a warning. Knows nothing of windows, speech or models.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream as ContainedStream
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from batched_whisper.audio.constants import N_SAMPLES
from batched_whisper.audio.resampling import AudioChunk, in_blocks, resample
from batched_whisper.audio.sources import AudioSource, RawAudio, check_rate, resolve, source_name
from batched_whisper.audio.wav_header import WavHeader, read_wav_header
from batched_whisper.errors import EmptyAudio, InvalidSamples, NoAudioStream, UnreadableAudio
from batched_whisper.types import SAMPLING_RATE, Channels, Recording, Samples

__all__ = ["AudioSource", "AudioStream", "decode", "open_audio", "source_name"]

BLOCK = N_SAMPLES
"""Samples per block of a stream; the last block may be shorter."""

# A playlist or a concat list disguised as a recording would make FFmpeg open other files and
# URLs. With no protocol allowed it reads only the file object that it is given.
_NOTHING_ELSE = {"protocol_whitelist": "none"}

# Formats whose length FFmpeg reads from the header or index; for others it may be a guess.
_EXACT_FORMATS = {"flac", "mov", "ogg", "aiff", "au", "caf", "w64", "asf", "wv", "tta", "ape"}
_TOLERATED_S = 0.08  # shorter than one FLAC frame; a codec's padding may be as long


def decode(
    source: AudioSource, *, sampling_rate: int | None = None, name: str | None = None
) -> Recording:
    """Decode a whole recording.

    Channels are mixed to their mean, silent ones included: speech on one of two channels becomes
    6 dB quieter, which is less than recordings differ by anyway. Which channels contain speech is
    not known before the end, and a level that changes when a second speaker begins would be worse.

    Args:
        source: see `AudioSource`.
        sampling_rate: of a bare array, in Hz; default 16,000.
        name: the name in messages; default the path.

    Raises:
        UnreadableAudio: no decoder can read it, or it cannot be opened.
        NoAudioStream: a readable file without an audio stream.
        EmptyAudio: no samples.
        InvalidSamples: NaN, infinities, an invalid shape or sampling rate.
        OptionError: a sampling rate for a source that has its own.
    """
    with open_audio(source, sampling_rate=sampling_rate, name=name) as stream:
        blocks = list(stream)
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return Recording(samples, stream.name, tuple(stream.warnings))


def open_audio(
    source: AudioSource, *, sampling_rate: int | None = None, name: str | None = None
) -> AudioStream:
    """Open a recording for reading block by block. Arguments and errors are those of `decode`.

    Errors that the header reveals are raised here, the others while reading.
    """
    name = source_name(source) if name is None else name
    resolved = resolve(source, name, sampling_rate)
    if isinstance(resolved, RawAudio):
        return AudioStream(_Array(resolved), name)
    try:
        return AudioStream(_File(resolved.file, resolved.ours, name), name)
    except BaseException:
        if resolved.ours:
            resolved.file.close()
        raise


class AudioStream:
    """An open recording; iterate once, inside ``with``.

    Yields blocks of 30 s, the last one shorter: float32, mono, 16 kHz, ``[n_samples]``, each an
    array that the caller owns; `by_channel` yields separate channels instead. ``warnings`` grows
    while reading and is complete at the end.
    """

    def __init__(self, reader: _Array | _File, name: str) -> None:
        self.name = name
        self._reader = reader

    @property
    def warnings(self) -> list[str]:
        """Warnings about the recording, so far."""
        return self._reader.warnings

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close files that were opened here; the caller's file object stays open."""
        self._reader.close()

    def __iter__(self) -> Iterator[Samples]:
        mono = (
            AudioChunk(_mono(piece.samples), piece.sampling_rate) for piece in self._reader.pieces()
        )
        for block in self._blocks(mono):
            yield block[0]

    def by_channel(self) -> Iterator[Channels]:
        """Yield the same blocks with separate channels, ``[n_channels, n_samples]``.

        The number of channels is that of the first chunk. If it changes within a file, missing
        channels are silent and additional ones are dropped, with a warning.
        """
        return self._blocks(_with_constant_channels(self._reader.pieces(), self.warnings))

    def _blocks(self, pieces: Iterator[AudioChunk]) -> Iterator[Channels]:
        n_read = 0
        for block in in_blocks(resample(pieces), BLOCK):
            finite = np.isfinite(block).all(axis=0)
            if not finite.all():
                second = (n_read + int(np.argmin(finite))) / SAMPLING_RATE
                raise InvalidSamples(
                    f"{self.name}: samples are NaN or infinite, the first at about "
                    f"{second:.2f} s; export the file again from its source"
                )
            n_read += block.shape[1]
            yield block
        if n_read == 0:
            raise EmptyAudio(f"{self.name}: the recording has 0 samples")


class _Array:
    """Reads decoded samples."""

    def __init__(self, sound: RawAudio) -> None:
        self.warnings = list(sound.warnings)
        self._sound = sound

    def pieces(self) -> Iterator[AudioChunk]:
        channels = self._sound.channels
        for start in range(0, channels.shape[1], BLOCK):
            block = _at_full_scale(channels[:, start : start + BLOCK])
            yield AudioChunk(block, self._sound.sampling_rate)

    def close(self) -> None:
        pass


class _File:
    """Reads the first audio stream of an encoded file."""

    def __init__(self, file: IO[bytes], ours: bool, name: str) -> None:
        self.warnings: list[str] = []
        self._file, self._ours, self._name = file, ours, name
        self._read = _Unnamed(file, name)
        if self._read.seek(0, os.SEEK_END) == 0:
            raise EmptyAudio(f"{name}: the file is empty: 0 bytes")
        self._wav = read_wav_header(self._read)
        self._container = self._opened()
        try:
            self._stream = self._sound_stream()
        except BaseException:
            self._container.close()
            raise

    def _opened(self) -> InputContainer:
        try:
            container = av.open(self._read, mode="r", options=_NOTHING_ELSE)
        except (FFmpegError, OSError, ValueError) as error:
            cause = _cause(self._read, self._wav) or f"FFmpeg says: {_message(error)}"
            raise UnreadableAudio(f"{self._name}: no decoder can read it: {cause}") from error
        return container

    def _sound_stream(self) -> ContainedStream:
        streams = self._container.streams
        if not streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
            raise NoAudioStream(f"{self._name}: the file has no audio stream, only {kinds}")
        stream = streams.audio[0]
        if stream.codec_context is None:
            raise UnreadableAudio(f"{self._name}: FFmpeg has no decoder for its audio codec")
        check_rate(stream.codec_context.sample_rate, self._name)
        return stream

    def pieces(self) -> Iterator[AudioChunk]:
        decoded_s, faults = 0.0, _Faults()
        declared_s = self._declared_s()
        for frame in self._frames(faults):
            decoded_s += frame.samples / frame.sample_rate
            yield AudioChunk(_frame_channels(frame), frame.sample_rate)
        if decoded_s == 0 and (faults.count or declared_s):
            cause = faults.first or "the file is truncated before its audio data"
            raise UnreadableAudio(f"{self._name}: nothing can be decoded: {cause}")
        self._warn(decoded_s, declared_s, faults)

    def _frames(self, faults: _Faults) -> Iterator[AudioFrame]:
        """Yield all frames that can be decoded; count and skip the others."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if packet.is_corrupt and self._wav is None:
                    faults.add("a packet is incomplete")
                frames = packet.decode()
            except FFmpegError as error:
                faults.add(_message(error))
                continue
            except (OSError, ValueError) as error:
                raise UnreadableAudio(f"{self._name}: reading it failed: {error}") from error
            for frame in frames:
                if isinstance(frame, AudioFrame) and frame.samples:
                    yield frame

    def _declared_s(self) -> float | None:
        """Return the length that the file itself declares, in seconds, or None."""
        if self._wav is not None:
            return self._wav.declared_s
        stream, container = self._stream, self._container
        formats = set(container.format.name.split(","))
        # FFmpeg knows an MP3's start only from the encoder's own header, which has its length.
        is_exact = formats & _EXACT_FORMATS or ("mp3" in formats and (stream.start_time or 0) > 0)
        if is_exact and stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if "matroska" in formats and len(container.streams) == 1 and container.duration:
            return container.duration / 1_000_000  # FFmpeg counts a container's in microseconds
        return None

    def _warn(self, decoded_s: float, declared_s: float | None, faults: _Faults) -> None:
        if declared_s is not None and decoded_s < declared_s - _TOLERATED_S:
            self.warnings.append(
                f"the file is truncated or damaged: {decoded_s:.2f} s of the {declared_s:.2f} s "
                "that its header declares could be read"
            )
        elif faults.count:
            self.warnings.append(
                f"the file is damaged: parts of it could not be decoded ({faults.first}); "
                f"{decoded_s:.2f} s could be read"
            )

    def close(self) -> None:
        self._container.close()
        if self._ours:
            self._file.close()


class _Faults:
    """Counts decoding errors of a file and keeps the first message."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def add(self, cause: str) -> None:
        self.first = self.first or cause
        self.count += 1


class _Unnamed:
    """A file object without its name, which may be wrong or a number, so that FFmpeg ignores it.

    Errors of the caller's file object are raised as `UnreadableAudio`, also through FFmpeg.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name

    def read(self, size: int) -> bytes:
        with self._failures():
            return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._failures():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        with self._failures():
            return self._file.tell()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise UnreadableAudio(f"{self._name}: reading it failed: {error}") from error


def _message(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _cause(file: _Unnamed, wav: WavHeader | None) -> str | None:
    """Explain why a file cannot be read, if its first bytes tell more than FFmpeg, else None."""
    if wav is not None:
        return wav.fault
    try:
        file.seek(0)
        # The last character may be incomplete, which this decoder accepts.
        text = codecs.getincrementaldecoder("utf-8")().decode(file.read(1024))
    except ValueError:
        return None
    if all(letter.isprintable() or letter.isspace() for letter in text):
        return "it is text, not audio"
    return None


def _frame_channels(frame: AudioFrame) -> Channels:
    """Return the samples of a frame; PyAV has no arrays of int64, so FFmpeg converts these."""
    if frame.format.name in ("s64", "s64p"):
        [frame] = AudioResampler(format="dblp").resample(frame)
    values = frame.to_ndarray()
    if frame.format.is_planar:
        return _at_full_scale(values.reshape(-1, frame.samples))
    return _at_full_scale(values.reshape(frame.samples, -1).T)


def _at_full_scale(channels: NDArray[Any]) -> Channels:
    """Convert floats or integers, ``[n_channels, n_samples]``, to float32 with full scale 1."""
    if channels.dtype.kind == "f":
        return channels.astype(np.float32)
    full_scale = np.float32(2 ** (channels.dtype.itemsize * 8 - 1))
    values: Channels = channels.astype(np.float32) / full_scale
    if channels.dtype.kind == "u":
        values -= 1
    return values


def _mono(channels: Channels) -> Channels:
    """Mix ``[n_channels, n_samples]`` to their mean, ``[1, n_samples]``."""
    return channels if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)[None, :]


def _with_constant_channels(
    pieces: Iterator[AudioChunk], warnings: list[str]
) -> Iterator[AudioChunk]:
    """Yield the chunks with the number of channels of the first one."""
    n_channels = 0
    for piece in pieces:
        n_here = len(piece.samples)
        n_channels = n_channels or n_here
        if n_here == n_channels:
            yield piece
            continue
        warning = f"the number of channels changes from {n_channels} to {n_here} within the file"
        if warning not in warnings:
            warnings.append(warning)
        samples = np.zeros((n_channels, piece.samples.shape[1]), np.float32)
        samples[: min(n_here, n_channels)] = piece.samples[:n_channels]
        yield AudioChunk(samples, piece.sampling_rate)
