"""Cutters and detectors applied to whole recordings, for laws that do not depend on blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from batched_whisper.audio.packing import PackingOptions, SpeechCutter
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.audio.windows import PlainCutter
from batched_whisper.types import Samples, SpeechSpan, Window


def cut(blocks: Iterable[Samples], max_s: float = 30.0, overlap_s: float = 0.0) -> Iterator[Window]:
    cutter = PlainCutter(max_s, overlap_s)
    for block in blocks:
        yield from cutter.add(block)
    yield from cutter.end()


def blocked(samples: Samples, sizes: list[int]) -> Iterator[Samples]:
    """Yield the samples in blocks of these sizes in rotation; each is overwritten afterwards."""
    start, turn = 0, 0
    while start < len(samples):
        block = samples[start : start + sizes[turn % len(sizes)]].copy()
        yield block
        start += len(block)
        block[:] = np.nan
        turn += 1


def assert_same(ones: list[Window], others: list[Window]) -> None:
    assert [(w.index, w.start_sample) for w in ones] == [(w.index, w.start_sample) for w in others]
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)


def windows_by_speech(
    blocks: Iterable[Samples], detector: SpeechDetector, options: PackingOptions | None = None
) -> Iterator[Window]:
    cutter = SpeechCutter(detector, options)
    for block in blocks:
        yield from cutter.add(block)
    yield from cutter.end()


def joined(pieces: Iterable[SpeechSpan]) -> list[SpeechSpan]:
    """Join spans that touch."""
    spans: list[SpeechSpan] = []
    for piece in pieces:
        if spans and spans[-1].end_sample == piece.start_sample:
            piece = SpeechSpan(spans.pop().start_sample, piece.end_sample)
        spans.append(piece)
    return spans


def spans(blocks: Iterable[Samples], detector: SpeechDetector) -> list[SpeechSpan]:
    stream = detector.new_stream()
    updates = [stream.process(block) for block in blocks]
    return joined(span for update in (*updates, stream.end()) for span in update.spans)
