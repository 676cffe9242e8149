"""Makes a recording of whatever the caller brought: 16 kHz, float32, mono or channel by channel.

Decodes with FFmpeg's libraries through PyAV; no program is started. Reads as a stream, so that
hours of sound never stand in memory as a whole. A damaged file gives the part that can be read,
and a warning. Knows nothing of windows, speech or models.
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
from batched_whisper.audio.sources import AudioSource, RawSound, check_rate, resolve, source_name
from batched_whisper.audio.wav_header import WavHeader, read_wav_header
from batched_whisper.errors import EmptyAudio, InvalidSamples, NoAudioStream, UnreadableAudio
from batched_whisper.types import SAMPLING_RATE, Channels, Recording, Samples

__all__ = ["AudioSource", "AudioStream", "decode", "open_audio", "source_name"]

BLOCK = N_SAMPLES
"""Samples of a block that a stream yields, the last one apart."""

# A playlist or a list of files to join, disguised as a recording, would have FFmpeg open other
# files and addresses. With no protocol allowed it reads what it is handed and nothing else.
_NOTHING_ELSE = {"protocol_whitelist": "none"}

# Where FFmpeg takes the length from the file's header or index; elsewhere it may be a guess.
_EXACT_FORMATS = {"flac", "mov", "ogg", "aiff", "au", "caf", "w64", "asf", "wv", "tta", "ape"}
_TOLERATED_S = 0.08  # shorter than one FLAC frame; a codec's padding may make up as much


def decode(
    source: AudioSource, *, sampling_rate: int | None = None, name: str | None = None
) -> Recording:
    """The whole recording at once.

    Channels are mixed to their mean, a silent one too: a voice on one of two channels comes out
    6 dB lower, less than recordings differ by anyway. Which channels matter cannot be known
    before the end, and a level that jumps when a second voice sets in would be worse.

    Args:
        source: see `AudioSource`.
        sampling_rate: of a bare array, in Hz; 16,000 if not given.
        name: what messages call it; its path if not given.

    Raises:
        UnreadableAudio: no decoder can read it, or it cannot be opened.
        NoAudioStream: a readable file without sound.
        EmptyAudio: no samples.
        InvalidSamples: NaN, infinities, an impossible shape or sampling rate.
        OptionError: a sampling rate for a source that brings its own.
    """
    with open_audio(source, sampling_rate=sampling_rate, name=name) as stream:
        blocks = list(stream)
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return Recording(samples, stream.name, tuple(stream.warnings))


def open_audio(
    source: AudioSource, *, sampling_rate: int | None = None, name: str | None = None
) -> AudioStream:
    """Open a recording to be read block by block. Arguments and errors are those of `decode`.

    What can be known from the header is raised here, the rest while reading.
    """
    name = source_name(source) if name is None else name
    resolved = resolve(source, name, sampling_rate)
    if isinstance(resolved, RawSound):
        return AudioStream(_Array(resolved), name)
    try:
        return AudioStream(_File(resolved.file, resolved.ours, name), name)
    except BaseException:
        if resolved.ours:
            resolved.file.close()
        raise


class AudioStream:
    """A recording that is being read; iterate once, inside ``with``.

    Yields blocks of 30 s, the last one shorter: float32, mono, 16 kHz, ``[n_samples]``, each its
    reader's own; `by_channel` gives the channels apart instead. ``warnings`` fills while reading
    and is complete at the end.
    """

    def __init__(self, reader: _Array | _File, name: str) -> None:
        self.name = name
        self._reader = reader

    @property
    def warnings(self) -> list[str]:
        """What the caller should know about the recording, so far."""
        return self._reader.warnings

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened here; a caller's file object stays open."""
        self._reader.close()

    def __iter__(self) -> Iterator[Samples]:
        mono = (
            AudioChunk(_mono(piece.samples), piece.sampling_rate) for piece in self._reader.pieces()
        )
        for block in self._blocks(mono):
            yield block[0]

    def by_channel(self) -> Iterator[Channels]:
        """The same blocks with their channels apart, ``[n_channels, n_samples]``.

        There are as many channels as the first piece of the recording has. Where a file changes
        that on the way, channels that are missing are silent, and others are left out with a
        warning.
        """
        return self._blocks(_as_many_channels(self._reader.pieces(), self.warnings))

    def _blocks(self, pieces: Iterator[AudioChunk]) -> Iterator[Channels]:
        n_read = 0
        for block in in_blocks(resample(pieces), BLOCK):
            finite = np.isfinite(block).all(axis=0)
            if not finite.all():
                second = (n_read + int(np.argmin(finite))) / SAMPLING_RATE
                raise InvalidSamples(
                    f"{self.name}: samples that are NaN or infinite, the first at about "
                    f"{second:.2f} s; write the file again from its source"
                )
            n_read += block.shape[1]
            yield block
        if n_read == 0:
            raise EmptyAudio(f"{self.name}: there is no sound in it: 0 samples")


class _Array:
    """Reads samples that are already decoded."""

    def __init__(self, sound: RawSound) -> None:
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
    """Reads the first sound stream of an encoded file."""

    def __init__(self, file: IO[bytes], ours: bool, name: str) -> None:
        self.warnings: list[str] = []
        self._file, self._ours, self._name = file, ours, name
        self._read = _Unnamed(file, name)
        if self._read.seek(0, os.SEEK_END) == 0:
            raise EmptyAudio(f"{name}: the file is empty: 0 bytes")
        self._riff = read_wav_header(self._read)
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
            cause = _cause(self._read, self._riff) or f"FFmpeg says: {_said(error)}"
            raise UnreadableAudio(f"{self._name}: no decoder can read it: {cause}") from error
        return container

    def _sound_stream(self) -> ContainedStream:
        streams = self._container.streams
        if not streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
            raise NoAudioStream(f"{self._name}: there is no sound stream in it, only {kinds}")
        stream = streams.audio[0]
        if stream.codec_context is None:
            raise UnreadableAudio(f"{self._name}: there is no decoder for its kind of sound")
        check_rate(stream.codec_context.sample_rate, self._name)
        return stream

    def pieces(self) -> Iterator[AudioChunk]:
        decoded_s, faults = 0.0, _Faults()
        declared_s = self._declared_s()
        for frame in self._frames(faults):
            decoded_s += frame.samples / frame.sample_rate
            yield AudioChunk(_frame_channels(frame), frame.sample_rate)
        if decoded_s == 0 and (faults.count or declared_s):
            cause = faults.first or "the file is cut off before its sound"
            raise UnreadableAudio(f"{self._name}: none of it can be decoded: {cause}")
        self._warn(decoded_s, declared_s, faults)

    def _frames(self, faults: _Faults) -> Iterator[AudioFrame]:
        """All frames that can be decoded; what cannot be is counted and skipped."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if packet.is_corrupt and self._riff is None:
                    faults.add("a piece of it is incomplete")
                frames = packet.decode()
            except FFmpegError as error:
                faults.add(_said(error))
                continue
            except (OSError, ValueError) as error:
                raise UnreadableAudio(f"{self._name}: reading it failed: {error}") from error
            for frame in frames:
                if isinstance(frame, AudioFrame) and frame.samples:
                    yield frame

    def _declared_s(self) -> float | None:
        """How long the file says it is, where it says so itself."""
        if self._riff is not None:
            return self._riff.declared_s
        stream, container = self._stream, self._container
        formats = set(container.format.name.split(","))
        # FFmpeg knows an MP3's start only from the encoder's own header, which has its length.
        told = formats & _EXACT_FORMATS or ("mp3" in formats and (stream.start_time or 0) > 0)
        if told and stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if "matroska" in formats and len(container.streams) == 1 and container.duration:
            return container.duration / 1_000_000  # FFmpeg counts a container's in microseconds
        return None

    def _warn(self, decoded_s: float, declared_s: float | None, faults: _Faults) -> None:
        if declared_s is not None and decoded_s < declared_s - _TOLERATED_S:
            self.warnings.append(
                f"the file is cut off or damaged: {decoded_s:.2f} s of the {declared_s:.2f} s "
                "that its header promises could be read"
            )
        elif faults.count:
            self.warnings.append(
                f"the file is damaged: some of it could not be decoded ({faults.first}); "
                f"{decoded_s:.2f} s could be read"
            )

    def close(self) -> None:
        self._container.close()
        if self._ours:
            self._file.close()


class _Faults:
    """What went wrong while a file was decoded."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def add(self, cause: str) -> None:
        self.first = self.first or cause
        self.count += 1


class _Unnamed:
    """A file by its contents alone: its name, which may lie or be a number, stays unseen.

    Whatever a caller's file object raises leaves it as `UnreadableAudio`, also through FFmpeg.
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


def _said(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _cause(file: _Unnamed, riff: WavHeader | None) -> str | None:
    """Why a file cannot be read, where its first bytes tell more than FFmpeg does."""
    if riff is not None:
        return riff.fault
    try:
        file.seek(0)
        # The last character may be cut in two, which this decoder does not mind.
        text = codecs.getincrementaldecoder("utf-8")().decode(file.read(1024))
    except ValueError:
        return None
    if all(letter.isprintable() or letter.isspace() for letter in text):
        return "it is text, not sound"
    return None


def _frame_channels(frame: AudioFrame) -> Channels:
    """Its samples; integers of 64 bits, of which PyAV makes no array, by way of FFmpeg's floats."""
    if frame.format.name in ("s64", "s64p"):
        [frame] = AudioResampler(format="dblp").resample(frame)
    values = frame.to_ndarray()
    if frame.format.is_planar:
        return _at_full_scale(values.reshape(-1, frame.samples))
    return _at_full_scale(values.reshape(frame.samples, -1).T)


def _at_full_scale(channels: NDArray[Any]) -> Channels:
    """``[n_channels, n_samples]`` of any float or integer type as floats, 1 being full scale."""
    if channels.dtype.kind == "f":
        return channels.astype(np.float32)
    full_scale = np.float32(2 ** (channels.dtype.itemsize * 8 - 1))
    values: Channels = channels.astype(np.float32) / full_scale
    if channels.dtype.kind == "u":
        values -= 1
    return values


def _mono(channels: Channels) -> Channels:
    """Their mean, as one channel."""
    return channels if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)[None, :]


def _as_many_channels(pieces: Iterator[AudioChunk], warnings: list[str]) -> Iterator[AudioChunk]:
    """The pieces with as many channels as the first one has."""
    n_channels = 0
    for piece in pieces:
        n_here = len(piece.samples)
        n_channels = n_channels or n_here
        if n_here == n_channels:
            yield piece
            continue
        warning = f"the file changes from {n_channels} to {n_here} channels on the way"
        if warning not in warnings:
            warnings.append(warning)
        samples = np.zeros((n_channels, piece.samples.shape[1]), np.float32)
        samples[: min(n_here, n_channels)] = piece.samples[:n_channels]
        yield AudioChunk(samples, piece.sampling_rate)
