"""Which calls are brought: the same for everybody, every clip equally often."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workloads import (
    SHORT_COLLECTIONS,
    SPEECH_VARIABLE,
    Clip,
    SpeechMissing,
    Workload,
    draw_order,
    make_workload,
    speech_folder,
    standard_workload,
)

CLIPS = [Clip(f"{i}.wav", "text", "a", float(i + 1)) for i in range(5)]


@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 5))
def test_no_clip_comes_twice_more_often_than_another(n_clips: int, n_calls: int, seed: int) -> None:
    order = draw_order(n_clips, n_calls, seed)
    assert len(order) == n_calls
    counts = Counter(order)
    times = [counts[clip] for clip in range(n_clips)]
    assert max(times) - min(times) <= 1


@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 60))
def test_fewer_calls_are_the_first_of_more(n_clips: int, a: int, b: int) -> None:
    fewer, more = sorted((a, b))
    assert draw_order(n_clips, more, seed=3)[:fewer] == draw_order(n_clips, fewer, seed=3)


def test_the_seed_alone_decides_the_order() -> None:
    assert draw_order(30, 60, seed=1) == draw_order(30, 60, seed=1)
    assert draw_order(30, 60, seed=1) != draw_order(30, 60, seed=2)


def test_seconds_are_those_of_all_calls() -> None:
    workload = make_workload(CLIPS, CLIPS[:2], n_calls=10)
    assert workload.short_s == 2 * sum(clip.duration_s for clip in CLIPS)
    assert workload.long_s == 3.0


def test_a_workload_reaches_another_process_unchanged() -> None:
    workload = make_workload(CLIPS, CLIPS[:2], n_calls=7, seed=4)
    assert Workload.from_json(workload.to_json()) == workload


def test_a_missing_collection_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpeechMissing, match=SPEECH_VARIABLE) as caught:
        speech_folder({SPEECH_VARIABLE: str(tmp_path)})
    assert str(tmp_path) in str(caught.value)


def test_the_standard_workload_is_short_clips_and_long_recordings(speech: Path) -> None:
    workload = standard_workload(speech)
    assert len(workload.order) >= 200
    assert {clip.collection for clip in workload.clips} == set(SHORT_COLLECTIONS)
    assert all(clip.text and Path(clip.audio).is_file() for clip in workload.clips)
    assert max(clip.duration_s for clip in workload.clips) < 30
    assert len(workload.long) == 2
    assert min(clip.duration_s for clip in workload.long) > 60
