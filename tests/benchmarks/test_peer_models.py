"""The same weights in the peers' formats."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from batched_whisper.models.dimensions import SHAPES, tensor_shapes
from benchmarks.peer_models import huggingface_name, quantise_q8_0, write_ggml


def test_every_tensor_has_a_name_of_its_own_at_hugging_face() -> None:
    names = [huggingface_name(name) for name in tensor_shapes(SHAPES["base"])]
    assert len(set(names)) == len(names)
    assert not [name for name in names if ".blocks." in name or "_ln." in name]
    assert "model.decoder.layers.0.encoder_attn_layer_norm.weight" in names
    assert "model.encoder.layers.5.self_attn.k_proj.weight" in names
    assert "model.encoder.layer_norm.bias" in names
    assert "model.decoder.embed_positions.weight" in names


def test_q8_0_is_within_half_a_step_of_each_blocks_largest() -> None:
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    packed = np.frombuffer(quantise_q8_0(values), [("scale", "<f2"), ("numbers", np.int8, 32)])
    restored = (packed["scale"][:, None].astype(np.float32) * packed["numbers"]).reshape(4, 64)
    largest = np.abs(values.reshape(-1, 32)).max(1).repeat(32).reshape(4, 64)
    assert np.all(np.abs(restored - values) <= largest * (0.5 / 127 + 1e-3))


def test_a_block_of_zeros_stays_zeros() -> None:
    assert quantise_q8_0(np.zeros((1, 32), np.float32)) == bytes(34)


@pytest.mark.parametrize("weights", ["f16", "q8_0"])
def test_a_ggml_file_holds_every_tensor_to_its_end(base_model, weights: str) -> None:
    checkpoint = base_model.checkpoint
    file = io.BytesIO()
    write_ggml(file, checkpoint, base_model.tokenizer, weights)
    file.seek(0)

    def numbers(n: int) -> tuple[int, ...]:
        return struct.unpack(f"<{n}i", file.read(4 * n))

    assert numbers(12)[1] == checkpoint.dimensions.n_vocab
    n_mels, n_frequencies = numbers(2)
    file.seek(4 * n_mels * n_frequencies, io.SEEK_CUR)
    for _ in range(numbers(1)[0]):
        file.seek(numbers(1)[0], io.SEEK_CUR)
    found = {}
    while header := file.read(12):
        n_dimensions, n_letters, kind = struct.unpack("<3i", header)
        shape = tuple(reversed(numbers(n_dimensions)))
        name = file.read(n_letters).decode()
        found[name] = shape
        n_values = int(np.prod(shape))
        file.seek({0: 4 * n_values, 1: 2 * n_values, 8: n_values // 32 * 34}[kind], io.SEEK_CUR)
    assert file.tell() == len(file.getvalue())
    assert found.keys() == checkpoint.weights.keys()
    assert all(np.prod(found[n]) == value.size for n, value in checkpoint.weights.items())
