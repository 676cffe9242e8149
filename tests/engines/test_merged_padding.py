"""What stands for the silence after a short window."""

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
def test_together_they_count_as_many_as_the_full_context_has(context: int) -> None:
    assert np.exp(layout(context, FULL).scores.astype(float)).sum() == pytest.approx(FULL)


@given(contexts)
def test_the_windows_own_come_first_and_count_once(context: int) -> None:
    found = layout(context, FULL)
    own = np.arange(context)
    assert found.n_own == context
    assert np.array_equal(found.positions[:context], own)
    assert np.array_equal(found.frames[:context], own)
    assert not found.scores[:context].any()


@given(contexts)
def test_the_others_are_spread_over_the_rest(context: int) -> None:
    found = layout(context, FULL)
    others = found.positions[context:].astype(int)
    assert len(found) == len(found.scores) == len(found.frames) <= FULL
    assert len(others) == min(N_MERGED_POSITIONS, FULL - context)
    assert (found.scores[context:] == np.float32(found.log_size)).all()
    gaps = np.diff([context - 1, *others, FULL])
    assert (gaps > 0).all()
    assert gaps.max() <= 2 * max(1, gaps[1:-1].min(initial=FULL))  # as evenly as halves at the ends


@pytest.mark.parametrize("missing", [0, 1, N_MERGED_POSITIONS])
def test_few_stand_for_themselves(missing: int) -> None:
    found = layout(FULL - missing, FULL)
    assert np.array_equal(found.positions, np.arange(FULL))
    assert not found.scores.any()


@pytest.mark.parametrize("loudness", [0.0, 1e-4, 1.0])
def test_the_silence_behind_a_window_is_what_its_features_have_for_it(loudness: float) -> None:
    sound = (loudness * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    longer = log_mel(sound, 80, n_frames=300)
    found = append_silence(log_mel(sound, 80, n_frames=294), FULL)
    assert np.array_equal(found, longer)


def test_a_full_window_has_none() -> None:
    features = np.zeros((80, 2 * FULL), np.float32)
    assert append_silence(features, FULL) is features


def test_weights_of_the_windows_own_are_a_softmax_over_those() -> None:
    scores = np.random.default_rng(1).standard_normal((2, 3, 40)).astype(np.float32)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    own = np.exp(scores[..., :30])
    np.testing.assert_allclose(
        renormalise_own(weights, 30), own / own.sum(-1, keepdims=True), rtol=1e-5
    )
    assert not renormalise_own(np.zeros((1, 4), np.float32), 2).any()  # and no division by zero
