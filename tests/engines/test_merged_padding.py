"""Merged positions for the silence after a short window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.audio.features import log_mel
from batched_whisper.decoding.audio_context import N_MERGED_POSITIONS
from batched_whisper.engines.merged_padding import append_silence, layout, renormalise_own

FULL = 1500
contexts = st.integers(1, FULL)


@given(contexts)
def test_layout_represents_all_positions_of_the_full_context(context: int) -> None:
    assert np.exp(layout(context, FULL).scores.astype(float)).sum() == pytest.approx(FULL)


@given(contexts)
def test_layout_starts_with_the_windows_own_positions(context: int) -> None:
    found = layout(context, FULL)
    own = np.arange(context)
    assert found.n_own == context
    assert np.array_equal(found.positions[:context], own)
    assert np.array_equal(found.frames[:context], own)
    assert not found.scores[:context].any()


@given(contexts)
def test_layout_spaces_merged_positions_evenly(context: int) -> None:
    found = layout(context, FULL)
    others = found.positions[context:].astype(int)
    assert len(found) == len(found.scores) == len(found.frames) <= FULL
    assert len(others) == min(N_MERGED_POSITIONS, FULL - context)
    assert (found.scores[context:] == np.float32(found.log_size)).all()
    gaps = np.diff([context - 1, *others, FULL])
    assert (gaps > 0).all()
    assert gaps.max() <= 2 * max(1, gaps[1:-1].min(initial=FULL))  # as evenly as halves at the ends


@pytest.mark.parametrize("missing", [0, 1, N_MERGED_POSITIONS])
def test_layout_does_not_merge_few_positions(missing: int) -> None:
    found = layout(FULL - missing, FULL)
    assert np.array_equal(found.positions, np.arange(FULL))
    assert not found.scores.any()


@pytest.mark.parametrize("loudness", [0.0, 1e-4, 1.0])
def test_append_silence_equals_features_of_silence(loudness: float) -> None:
    sound = (loudness * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    longer = log_mel(sound, 80, n_frames=300)
    found = append_silence(log_mel(sound, 80, n_frames=294), FULL)
    assert np.array_equal(found, longer)


def test_layout_of_a_full_window_has_no_merged_positions() -> None:
    features = np.zeros((80, 2 * FULL), np.float32)
    assert append_silence(features, FULL) is features


def test_renormalise_own_equals_a_softmax_over_own_positions() -> None:
    scores = np.random.default_rng(1).standard_normal((2, 3, 40)).astype(np.float32)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    own = np.exp(scores[..., :30])
    np.testing.assert_allclose(
        renormalise_own(weights, 30), own / own.sum(-1, keepdims=True), rtol=1e-5
    )
    assert not renormalise_own(np.zeros((1, 4), np.float32), 2).any()  # and no division by zero
