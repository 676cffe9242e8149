"""Laws of spans of speech: the rule, told piece by piece, is the rule applied to the whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_recordings import joined

from batched_whisper.audio.speech import SpeechOptions, SpeechTracker, SpeechUpdate
from batched_whisper.errors import OptionError
from batched_whisper.types import SpeechSpan

RATE = 16_000
FRAME = 512

PROBABILITIES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5, 0.9]), st.integers(1, 12)).map(
        lambda run: [run[0]] * run[1]
    ),
    max_size=25,
).map(lambda runs: [probability for run in runs for probability in run])
OPTIONS = st.builds(
    SpeechOptions,
    threshold=st.sampled_from([0.35, 0.5]),
    min_speech_s=st.sampled_from([0.0, 0.1, 0.25]),
    min_silence_s=st.sampled_from([0.05, 0.1, 0.3, 0.6]),
    pad_s=st.sampled_from([0.0, 0.03, 0.25, 0.5]),
)


def told(
    probabilities: list[float], options: SpeechOptions, n_samples: int, size: int
) -> Iterator[SpeechUpdate]:
    tracker = SpeechTracker(FRAME, options)
    start = 0
    while start + size < len(probabilities):
        yield tracker.track(probabilities[start : start + size])
        start += size
    yield tracker.end(probabilities[start:], n_samples)


def of_the_whole(
    probabilities: list[float], options: SpeechOptions, n_samples: int
) -> list[SpeechSpan]:
    """The rule as one would write it with the whole recording at hand."""
    speech: list[list[int]] = []
    start = silence = None
    for at, probability in enumerate([*probabilities, None]):
        now = min(at * FRAME, n_samples)
        if probability is None:
            if start is not None:
                speech.append([start, now if silence is None else silence])
        elif probability >= options.threshold:
            start, silence = (now if start is None else start), None
        elif start is not None and probability < options.release_threshold:
            silence = now if silence is None else silence
            if (at + 1) * FRAME - silence >= int(options.min_silence_s * RATE):
                speech.append([start, silence])
                start = silence = None
    speech = [s for s in speech if s[1] - s[0] >= int(options.min_speech_s * RATE)]
    pad = int(options.pad_s * RATE)
    room = [(b[0] - a[1] - FRAME) // 2 for a, b in pairwise(speech)]
    return [
        SpeechSpan(max(0, s[0] - min(pad, before)), min(n_samples, s[1] + min(pad, after)))
        for s, before, after in zip(speech, [pad, *room], [*room, pad], strict=False)
    ]


@settings(max_examples=300, deadline=None)
@given(PROBABILITIES, OPTIONS, st.integers(1, 40), st.integers(0, FRAME - 1))
def test_speech_tracker_emits_the_spans_of_the_whole_recording(
    probabilities: list[float], options: SpeechOptions, size: int, missing: int
) -> None:
    n_samples = max(0, len(probabilities) * FRAME - missing)
    heard = list(told(probabilities, options, n_samples, size))
    pieces = [span for some in heard for span in some.spans]
    assert all(piece.start_sample < piece.end_sample for piece in pieces)
    assert joined(pieces) == of_the_whole(probabilities, options, n_samples)


@given(PROBABILITIES, OPTIONS, st.integers(1, 40))
def test_speech_tracker_emits_nothing_before_its_watermark(
    probabilities: list[float], options: SpeechOptions, size: int
) -> None:
    settled = 0
    for heard in told(probabilities, options, len(probabilities) * FRAME, size):
        assert all(span.start_sample >= settled for span in heard.spans)
        assert all(span.end_sample <= heard.watermark_sample for span in heard.spans)
        assert heard.watermark_sample >= settled
        settled = heard.watermark_sample


@given(PROBABILITIES, OPTIONS)
def test_a_frame_of_pause_stays_between_spans(
    probabilities: list[float], options: SpeechOptions
) -> None:
    n_samples = len(probabilities) * FRAME
    heard = told(probabilities, options, n_samples, 1000)
    spans = joined(span for some in heard for span in some.spans)
    assert all(b.start_sample - a.end_sample >= FRAME for a, b in pairwise(spans))
    assert all(0 <= span.start_sample < span.end_sample <= n_samples for span in spans)


def test_speech_tracker_emits_ongoing_speech_incrementally() -> None:
    tracker = SpeechTracker(FRAME, SpeechOptions())
    first, second = tracker.track([0.9] * 100), tracker.track([0.9] * 100)
    assert first.spans == (SpeechSpan(0, 100 * FRAME),)
    assert second.spans == (SpeechSpan(100 * FRAME, 200 * FRAME),)


def test_the_watermark_advances_during_a_long_silence() -> None:
    tracker = SpeechTracker(FRAME, SpeechOptions(pad_s=0.25))
    assert tracker.track([0.0] * 1000).watermark_sample == 1000 * FRAME - RATE // 4


def test_a_probability_between_the_thresholds_neither_begins_nor_ends_speech() -> None:
    options = SpeechOptions(threshold=0.5, pad_s=0)
    quiet, between, loud = [0.0] * 30, [0.4] * 30, [0.9] * 30
    n_samples = 120 * FRAME
    spans = of_the_whole([*between, *loud, *between, *quiet], options, n_samples)
    assert spans == [SpeechSpan(30 * FRAME, 90 * FRAME)]
    heard = told([*between, *loud, *between, *quiet], options, n_samples, 1000)
    assert [span for some in heard for span in some.spans] == spans


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.0),
        ("threshold", float("nan")),
        ("hysteresis", -0.1),
        ("min_speech_s", -1),
        ("min_silence_s", 0),
        ("pad_s", 6),
    ],
)
def test_an_impossible_option_is_refused(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        SpeechOptions(**{name: value})
