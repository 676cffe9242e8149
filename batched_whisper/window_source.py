"""Which stretches of a recording are transcribed: where someone speaks, or everything.

Knows the ways to cut a recording and the options that choose among them, and nothing of what is
made of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from batched_whisper.audio.packing import PackingOptions, SpeechWindow, windows_by_speech
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.audio.windows import cut
from batched_whisper.config import DecodingOptions
from batched_whisper.types import Samples


def windows_of(
    blocks: Iterable[Samples],
    options: DecodingOptions,
    speech_detector: Callable[[], SpeechDetector],
) -> Iterator[SpeechWindow]:
    """The windows of a recording, as it is read.

    Args:
        blocks: mono sound at 16 kHz, ``[n_samples]`` each, of any lengths.
        options: say which stretches are wanted.
        speech_detector: gives the detector; asked only where the options need it.
    """
    if not options.vad:
        for window in cut(blocks):
            yield SpeechWindow(window)
        return
    # Without overlap: what two windows share would be written twice.
    yield from windows_by_speech(blocks, speech_detector(), PackingOptions(overlap_s=0.0))
