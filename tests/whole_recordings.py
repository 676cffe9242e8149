"""Cutters and detectors over a whole recording, whose laws do not ask how it comes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from batched_whisper.audio.packing import PackingOptions, SpeechCutter
from batched_whisper.audio.speech import SpeechDetector
from batched_whisper.audio.windows import PlainCutter
from batched_whisper.types import Samples, Span, Window


def cut(blocks: Iterable[Samples], max_s: float = 30.0, overlap_s: float = 0.0) -> Iterator[Window]:
    cutter = PlainCutter(max_s, overlap_s)
    for block in blocks:
        yield from cutter.add(block)
    yield from cutter.end()


def blocked(samples: Samples, sizes: list[int]) -> Iterator[Samples]:
    """The samples in blocks of these sizes, again and again; every block is overwritten after."""
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


def joined(pieces: Iterable[Span]) -> list[Span]:
    """Spans that touch are the same speech."""
    spans: list[Span] = []
    for piece in pieces:
        if spans and spans[-1].end_sample == piece.start_sample:
            piece = Span(spans.pop().start_sample, piece.end_sample)
        spans.append(piece)
    return spans


def spans(blocks: Iterable[Samples], detector: SpeechDetector) -> list[Span]:
    listener = detector.listen()
    told = [listener.hear(block) for block in blocks]
    return joined(span for heard in (*told, listener.end()) for span in heard.spans)
