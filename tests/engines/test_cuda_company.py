"""Windows of several lengths encoded together by the GPU engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import (  # noqa: E402
    ANYTHING,
    IDS,
    N_AUDIO_CTX,
    SIZES,
    Heard,
    check,
    random_text,
    reference_logits,
    tiny_checkpoint,
)

from batched_whisper.engines.cuda import company, engine  # noqa: E402
from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.interface import StepRow  # noqa: E402


@given(
    st.lists(st.integers(1, 1564), max_size=80),
    st.sampled_from([1500, 6000, 12000, 20000]),
)
def test_every_window_is_in_one_company_that_the_device_can_hold(
    lengths: list[int], most_positions: int
) -> None:
    found = company.companies(lengths, most_positions)
    assert sorted(i for each in found for i in each) == list(range(len(lengths)))
    for each in found:
        assert len(each) == 1 or len(each) * max(lengths[i] for i in each) <= most_positions


@given(st.lists(st.integers(60, 1500), min_size=64, max_size=64))
def test_padding_costs_little_and_company_is_large(lengths: list[int]) -> None:
    found = company.companies(lengths, 12000)
    padded = [len(each) * max(lengths[i] for i in each) for each in found]
    assert all(n > 12000 - 1500 or n >= company.ENOUGH_POSITIONS for n in padded[:-1])
    assert sum(padded) <= sum(lengths) / company.MUCH_SHORTER + company.ENOUGH_POSITIONS


@pytest.mark.parametrize("contexts", [[7, 120, 61, 33, 119, 7], [30, 30, 30], [120, 120], [9, 8]])
def test_in_any_company_windows_are_heard_as_the_definition_hears_them(
    contexts: list[int],
) -> None:
    with_company = CudaEngine(tiny_checkpoint(), IDS, max_slots=len(contexts), device="cpu")
    heard = [Heard(i, context) for i, context in enumerate(contexts)]
    with_company.encode([each.row(slot) for slot, each in enumerate(heard)])
    text = random_text(3, 6)
    rows = [StepRow(slot, text, 0, ANYTHING) for slot in range(len(contexts))]
    for each, row, result in zip(heard, rows, with_company.step(rows), strict=True):
        check(result, row, reference_logits(each, text)[-1], 1e-3)


def test_what_pads_a_window_is_not_heard_by_its_slots_next_one() -> None:
    alone = CudaEngine(tiny_checkpoint(), IDS, max_slots=2, device="cpu")
    short, long = Heard(0, 8), Heard(1, N_AUDIO_CTX)
    alone.encode([short.row(0), long.row(1)])
    longer = Heard(2, 40)
    alone.encode([longer.row(0)])
    text = random_text(4, 5)
    row = StepRow(0, text, 0, ANYTHING)
    check(alone.step([row])[0], row, reference_logits(longer, text)[-1], 1e-3)


def test_a_padded_company_is_a_multiple_long_and_a_plain_one_needs_no_mask() -> None:
    def made(*contexts: int) -> company.Company:
        layouts = [engine.layout(context, 1500) for context in contexts]
        return company.Company.of(layouts, torch.device("cpu"), torch.float32)

    assert made(1500, 1500).scores is None
    alike = made(320, 320).scores
    assert alike is not None
    assert alike.shape[-1] == 320 + 64
    mixed = made(1500, 320)
    assert mixed.scores is not None
    assert mixed.scores.shape == (2, 1, 1, 1504)
    assert np.isneginf(mixed.scores[1, 0, 0, 384:].numpy()).all()
    assert mixed.lengths.tolist() == [1500, 384]


def test_windows_are_padded_to_the_longest_of_their_company_alone() -> None:
    made = CudaEngine(tiny_checkpoint(), IDS, max_slots=3, device="cpu")
    rows = [Heard(i, context).row(i) for i, context in enumerate((5, 50, 9))]
    assert made._side_by_side(rows).shape == (3, SIZES.n_mels, 106)
