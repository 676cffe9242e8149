"""The formulas of work: held against what is counted by hand."""

from __future__ import annotations

import pytest

from batched_whisper.models.dimensions import SHAPES, tensor_shapes
from benchmarks.batching import Pass, gain
from benchmarks.limits import Limits, Reached, shares
from benchmarks.work_of_a_model import (
    Spoken,
    decoder_bytes,
    decoder_weight_bytes,
    encoder_flops,
    row_bytes,
)

BASE = SHAPES["base"]


def test_an_encoders_products_are_two_operations_a_weight_and_position() -> None:
    # without attention between positions (context -> 0) only the weights count
    n_linear = sum(
        shape[0] * shape[1]
        for name, shape in tensor_shapes(BASE).items()
        if name.startswith("encoder.blocks") and len(shape) == 2
    )
    n_cross = BASE.n_text_layer * 2 * BASE.n_audio_state**2
    n_conv = 3 * BASE.n_audio_state * (2 * BASE.n_mels + BASE.n_audio_state)
    context = 1500
    between_positions = BASE.n_audio_layer * 4 * context**2 * BASE.n_audio_state
    expected = 2 * context * (n_linear + n_cross + n_conv) + between_positions
    assert encoder_flops(BASE, context) == pytest.approx(expected)


def test_a_step_reads_every_weight_but_those_of_the_encoding_once() -> None:
    n_read = sum(
        shape[0] * shape[1]
        for name, shape in tensor_shapes(BASE).items()
        if name.startswith("decoder.")
        and len(shape) == 2
        and not name.startswith("decoder.positional")
        and ".cross_attn.key" not in name
        and ".cross_attn.value" not in name
    )
    assert decoder_weight_bytes(BASE, 2) == 2 * n_read


def test_a_full_windows_keys_and_values_are_eighteen_megabytes_in_bfloat16() -> None:
    assert row_bytes(BASE, 1500, 0, 2) == pytest.approx(18.4e6, rel=0.01)


def test_more_rows_a_batch_read_the_weights_less_often() -> None:
    spoken = [Spoken(500, 10)] * 4
    alone = decoder_bytes(BASE, spoken, n_batches=40, n_rows=40, precision="bfloat16")
    together = decoder_bytes(BASE, spoken, n_batches=10, n_rows=40, precision="bfloat16")
    assert alone - together == pytest.approx(30 * decoder_weight_bytes(BASE, 2))
    assert decoder_bytes(BASE, spoken, 10, 40, "float32") == pytest.approx(2 * together)


def test_shares_are_of_the_limits_of_the_same_round() -> None:
    def reached(flops: float, read: float) -> Reached:
        return Reached(1, 500.0, 1.0, 1.0, 2.0, 4.0, flops, read, 2 * read)

    rounds = [
        (Limits(100.0, 10.0, 1000.0), reached(50.0, 100.0)),
        (Limits(50.0, 10.0, 500.0), reached(25.0, 50.0)),
        (Limits(10.0, 10.0, 10.0), reached(5.0, 1.0)),
    ]
    found = shares(rounds, "bfloat16")
    assert (found.encoder, found.decoder, found.engine_of_wall) == (0.5, 0.1, 0.75)
    assert found.cross_attention == pytest.approx(0.2)
    assert shares(rounds, "float32").encoder == pytest.approx(2.5)


def test_a_gain_is_the_ratio_of_medians() -> None:
    def way(wall_s: float, n_batches: int, texts: tuple[str, ...] = ("a", "b")) -> Pass:
        return Pass(wall_s, 0.0, n_batches, 64, 0.0, 0.0, texts)

    found = gain([way(1.0, 1), way(9.0, 1), way(2.0, 1)], [way(6.0, 64)] * 3)
    assert found.ratio == pytest.approx(3.0)
    assert (found.together_batch, found.alone_batch) == (64.0, 1.0)
    assert found.n_different_texts == 0
    assert gain([way(1.0, 1, ("a", "x"))], [way(1.0, 1)]).n_different_texts == 1
