"""Which stretches of a recording are transcribed, channel by channel.

Everything, or where someone speaks; of the whole recording, or of some clips. Knows the ways to
cut a recording and the options that choose among them, and nothing of what is made of a window.
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
"""What two windows share where someone speaks on: shorter, and words at the border that both
misheard leave nothing to find the place by (docs/lab-log.md, "Windows that overlap")."""


@dataclass(frozen=True)
class ChannelWindow:
    """A window of one channel."""

    window: Window
    channel: int


@dataclass(frozen=True)
class WindowBatch:
    """What some more of the recording brought: windows, and what is certain now."""

    windows: tuple[ChannelWindow, ...]
    watermarks_s: tuple[float, ...]
    """By channel: no later window of it begins before this time."""


class WindowSource:
    """Cuts one recording as it is read; used by one thread at a time.

    All channels are cut from the same blocks, so none runs ahead of the others by more than its
    cutter holds.

    Args:
        options: say which stretches are wanted.
        speech_detector: gives the detector; asked only where the options need it.
    """

    def __init__(
        self, options: DecodingOptions, speech_detector: Callable[[], SpeechDetector]
    ) -> None:
        times_s = options.clip_timestamps
        self._clips = WHOLE_RECORDING if times_s is None else clips_from_times(times_s)
        # A model that is told what was said would not say the shared words once more.
        overlap_s = 0.0 if options.condition_on_previous_text else OVERLAP_S
        self._new_cutter: Callable[[], Cutter] = lambda: PlainCutter(overlap_s=overlap_s)
        if options.vad:
            packing = PackingOptions(overlap_s=overlap_s)
            self._new_cutter = lambda: SpeechCutter(speech_detector(), packing)
        self._n_samples = 0

    @property
    def duration_s(self) -> float:
        """How much was read, in seconds; what comes after the last clip is not."""
        return self._n_samples / SAMPLING_RATE

    @property
    def warnings(self) -> list[str]:
        """What the caller should know once everything is read."""
        return [
            f"the clip from {clip.start_sample / SAMPLING_RATE:g} s on is after the end of the "
            f"recording, at {self.duration_s:.2f} s"
            for clip in self._clips
            if clip.start_sample >= self._n_samples > 0
        ]

    def read(self, blocks: Iterable[Channels]) -> Iterator[WindowBatch]:
        """The windows of a recording, as it is read, and no further than the last clip's end.

        Args:
            blocks: sound at 16 kHz, ``[n_channels, n_samples]`` each, of any lengths.
        """
        cutters: list[ClipCutter] = []
        for block in self._wanted(blocks):
            cutters = cutters or [ClipCutter(self._clips, self._new_cutter) for _ in block]
            yield _found(cutters, [c.add(row) for c, row in zip(cutters, block, strict=True)])
        yield _found(cutters, [cutter.end() for cutter in cutters])

    def _wanted(self, blocks: Iterable[Channels]) -> Iterator[Channels]:
        """The blocks up to the end of the last clip."""
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
