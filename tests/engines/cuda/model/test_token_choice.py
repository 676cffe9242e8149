"""Token choice and multi-step decoding on the device against the definitions on the host."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import BEGIN, IDS  # noqa: E402

from batched_whisper.decoding.rules import (  # noqa: E402
    EVERYTHING,
    Allowed,
    ConstraintState,
    MaskMode,
    TokenMask,
)
from batched_whisper.decoding.sampling import Sampling, choose  # noqa: E402
from batched_whisper.engines.cuda.model import token_choice  # noqa: E402
from batched_whisper.engines.cuda.model.decode_inputs import (  # noqa: E402
    Field,
    TokenInput,
    float_bits,
    next_inputs,
)

TEXT, UNFINISHED_MASK, SEGMENT_END_MASK = (
    TokenMask(MaskMode.ALL_BUT, frozenset([i])) for i in range(3)
)
PADDING = TokenInput(token=0, slot=9, position=0)

tokens = st.integers(0, BEGIN - 1) | st.integers(BEGIN, IDS.n_vocab - 1) | st.just(IDS.eot)
constraint_states = st.builds(
    lambda first, length, opens_segment, last_timestamp: ConstraintState(
        TEXT,
        UNFINISHED_MASK,
        SEGMENT_END_MASK,
        range(first, first + length),
        opens_segment,
        last_timestamp,
    ),
    st.integers(BEGIN, IDS.n_vocab),
    st.integers(0, 30),
    st.booleans(),
    st.integers(BEGIN - 1, IDS.n_vocab - 1),
)


def token_input_of(constraints: ConstraintState, position: int, end: int) -> TokenInput:
    unfinished_range = constraints.unfinished_range
    return TokenInput(
        3,
        slot=position,
        position=position,
        probe=7,
        temperature=float_bits(0.3),
        stream=11,
        end=end,
        text_mask=1,
        unfinished_mask=2,
        segment_end_mask=3,
        unfinished_first=unfinished_range.start,
        unfinished_stop=unfinished_range.stop,
        opens_segment=constraints.opens_segment,
        last_timestamp=constraints.last_timestamp,
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(constraint_states, tokens, st.integers(0, 9), st.integers(0, 9)), min_size=1
    ),
)
def test_next_inputs_follow_the_constraint_state_or_become_padding(
    cases: list[tuple[ConstraintState, int, int, int]],
) -> None:
    token_inputs = [
        token_input_of(constraints, position, end) for constraints, _, position, end in cases
    ]
    inputs = torch.tensor(token_inputs).T
    chosen = torch.tensor([token for _, token, _, _ in cases])
    found = next_inputs(inputs, chosen, IDS, torch.tensor([PADDING]).T)
    masks = {TEXT: 1, UNFINISHED_MASK: 2, SEGMENT_END_MASK: 3}
    for (constraints, token, position, end), token_input, row in zip(
        cases, token_inputs, found.T.tolist(), strict=True
    ):
        if token == IDS.eot or position + 1 >= end:
            assert TokenInput(*row) == PADDING
            continue
        allowed, after = constraints.after(token, IDS)
        span = range(row[Field.TIME_FIRST], row[Field.TIME_STOP])
        assert span == allowed.timestamps
        expected = token_input_of(after, position, end)._replace(
            token=token,
            position=position + 1,
            slot=token_input.slot,
            mask=masks[allowed.mask],
            time_first=span.start,
            time_stop=span.stop,
        )
        assert TokenInput(*row) == expected


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**70),
    temperature=st.sampled_from([0.0, 0.2, 1.0]),
    position=st.integers(0, 447),
    timed=st.booleans(),
)
def test_choose_equals_sampling_choose(
    seed: int, temperature: float, position: int, timed: bool
) -> None:
    random = np.random.default_rng(position)
    logits = 3 * random.standard_normal(IDS.n_vocab, dtype=np.float32)
    span = range(BEGIN + 2, IDS.n_vocab - 1) if timed else range(0)
    sampling = Sampling(temperature, seed)
    expected = choose(logits, Allowed(EVERYTHING, span), BEGIN, sampling, position + 1)
    token_input = TokenInput(
        0,
        0,
        position,
        time_first=span.start,
        time_stop=span.stop,
        temperature=float_bits(temperature),
        stream=sampling.stream,
    )
    hidden = torch.zeros((1, BEGIN), dtype=torch.bool)
    found = token_choice.choose(
        torch.from_numpy(logits)[None], hidden, torch.tensor([token_input]).T
    )
    assert int(found[0, 0]) == expected.token
    assert float(found[1, 0]) == pytest.approx(expected.logprob, abs=1e-4)
