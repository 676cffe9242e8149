"""Cuts a recording into windows, channel by channel.

Takes everything or only speech, of the whole recording or of clips. Knows the ways to cut a
recording and the options that choose among them, and nothing of decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batched_whisper.audio.clips import WHOLE_RECORDING, ClipCutter, Cutter, clips_from_times
from batched_whisper.audio.packing import PackingOptions, SpeechCutter
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.audio.windows import PlainCutter
from batched_whisper.config.options import DecodingOptions
from batched_whisper.types import SAMPLING_RATE, Channels, Window

OVERLAP_S = 2.0
"""The overlap of two windows where there is no pause to cut in. If it is shorter, errors at the
border of both windows leave no equal words to join them by (docs/lab-log.md, "Windows that
overlap")."""


@dataclass(frozen=True)
class ChannelWindow:
    """A window of one channel."""

    window: Window
    channel: int


@dataclass(frozen=True)
class WindowBatch:
    """The windows that a block of the recording completed, and the new watermarks."""

    windows: tuple[ChannelWindow, ...]
    watermarks_s: tuple[float, ...]
    """Per channel: no later window starts before this time."""


class WindowSource:
    """Cuts one recording as it is read; used by one thread at a time.

    All channels are cut from the same blocks, so none is ahead of the others by more than its
    cutter holds.

    Args:
        options: choose clips and speech detection.
        speech_detector: returns the detector; called only if the options need it.
    """

    def __init__(
        self, options: DecodingOptions, speech_detector: Callable[[], SpeechDetector]
    ) -> None:
        times_s = options.clip_timestamps
        self._clips = WHOLE_RECORDING if times_s is None else clips_from_times(times_s)
        # With the previous text as prompt, a model does not repeat the words of the overlap.
        overlap_s = 0.0 if options.condition_on_previous_text else OVERLAP_S
        self._new_cutter: Callable[[], Cutter] = lambda: PlainCutter(overlap_s=overlap_s)
        if options.vad:
            packing = PackingOptions(overlap_s=overlap_s)
            self._new_cutter = lambda: SpeechCutter(speech_detector(), packing)
        self._n_samples = 0

    @property
    def duration_s(self) -> float:
        """The duration of the audio that was read; audio after the last clip is not."""
        return self._n_samples / SAMPLING_RATE

    @property
    def warnings(self) -> list[str]:
        """The warnings for the caller, after everything is read."""
        return [
            f"the clip from {clip.start_sample / SAMPLING_RATE:g} s on is after the end of the "
            f"recording, at {self.duration_s:.2f} s"
            for clip in self._clips
            if clip.start_sample >= self._n_samples > 0
        ]

    def read(self, blocks: Iterable[Channels]) -> Iterator[WindowBatch]:
        """Yield the windows of a recording while it is read, up to the end of the last clip.

        Args:
            blocks: audio at 16 kHz, ``[n_channels, n_samples]`` each, of any lengths.
        """
        cutters: list[ClipCutter] = []
        for block in self._wanted(blocks):
            cutters = cutters or [ClipCutter(self._clips, self._new_cutter) for _ in block]
            yield _found(cutters, [c.add(row) for c, row in zip(cutters, block, strict=True)])
        yield _found(cutters, [cutter.end() for cutter in cutters])

    def _wanted(self, blocks: Iterable[Channels]) -> Iterator[Channels]:
        """Yield the blocks up to the end of the last clip."""
        end = self._clips[-1].end_sample
        for block in blocks:
            wanted = block if end is None else block[:, : end - self._n_samples]
            self._n_samples += wanted.shape[1]
            yield wanted
            if self._n_samples == end:
                return


def _found(cutters: list[ClipCutter], cut: list[Iterator[Window]]) -> WindowBatch:
    windows = [ChannelWindow(each, channel) for channel, found in enumerate(cut) for each in found]
    windows.sort(key=lambda found: found.window.start_sample)
    return WindowBatch(
        tuple(windows), tuple(cutter.watermark_sample / SAMPLING_RATE for cutter in cutters)
    )
