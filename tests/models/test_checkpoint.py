import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tiny_models import (
    TINY,
    files_in,
    hugging_face_config,
    write_ctranslate2,
    write_hugging_face,
    write_json,
    write_safetensors,
)

from batched_whisper.errors import ModelFileMissing, UnsupportedCheckpoint
from batched_whisper.models.checkpoint import (
    SHAPES,
    AlignmentHead,
    Dimensions,
    load_checkpoint,
    random_checkpoint,
)
from batched_whisper.models.dimensions import sinusoids, tensor_shapes
from benchmarks.peer_models import huggingface_name


def assert_same(found, expected, tolerance=0.0):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def as_bfloat16(value):
    return (value.astype("<f4").view("<u4") & np.uint32(0xFFFF0000)).view("<f4")


@pytest.fixture
def folder(tmp_path):
    """A good Hugging Face checkpoint."""
    write_hugging_face(tmp_path, TINY, random_checkpoint(TINY, 0).weights)
    return tmp_path


@pytest.fixture
def ctranslate2_folder(tmp_path):
    pytest.importorskip("ctranslate2")
    write_ctranslate2(tmp_path, random_checkpoint(TINY, 0), None)
    return tmp_path


# What the real models are


@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_a_wheel_contains_the_listed_model(request, name):
    fixture = {"base": "base_model", "tiny.en": "tiny_en_model"}[name]
    checkpoint = request.getfixturevalue(fixture).checkpoint
    assert checkpoint.dimensions == SHAPES[name]
    expected = tensor_shapes(SHAPES[name])
    assert {key: value.shape for key, value in checkpoint.weights.items()} == expected
    assert {value.dtype for value in checkpoint.weights.values()} == {np.dtype(np.float16)}
    for key, value in checkpoint.weights.items():
        assert value.flags.aligned, key
        assert np.isfinite(value).all(), key
        if "_ln." in key and key.endswith(".weight"):
            assert 0.1 < np.median(value) < 20, key
    positions = checkpoint.weights["encoder.positional_embedding"].astype(np.float32)
    assert np.abs(positions - sinusoids(*positions.shape)).max() < 1e-3


def test_the_wheels_keep_their_settings(base_model, tiny_en_model):
    assert AlignmentHead(3, 1) in base_model.checkpoint.alignment_heads
    assert base_model.checkpoint.begin_suppress_tokens == (220, 50257)
    assert tiny_en_model.checkpoint.begin_suppress_tokens == (220, 50256)


def test_dimensions_tell_multilingual_checkpoints():
    assert SHAPES["base"].multilingual
    assert not SHAPES["distil-small.en"].multilingual


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 37.8), ("base", 72.6), ("small", 241.7), ("medium", 763.9), ("large-v2", 1543.3)],
)
def test_tensor_shapes_give_the_published_number_of_parameters(name, millions):
    n_parameters = sum(int(np.prod(shape)) for shape in tensor_shapes(SHAPES[name]).values())
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.2)


# Whatever the file, the same dictionary


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "bfloat16"])
def test_safetensors_give_the_weights_that_were_saved(tmp_path, n_shards, dtype):
    bfloat16 = dtype == "bfloat16"
    saved = random_checkpoint(TINY, 1, np.float32 if bfloat16 else dtype).weights
    write_hugging_face(tmp_path, TINY, saved, n_shards=n_shards, bfloat16=bfloat16)
    checkpoint = load_checkpoint(files_in(tmp_path))
    assert checkpoint.dimensions == TINY
    expected = {k: as_bfloat16(v) for k, v in saved.items()} if bfloat16 else saved
    assert_same(checkpoint.weights, expected)
    kind = np.float32 if bfloat16 else np.dtype(dtype)
    assert {value.dtype for value in checkpoint.weights.values()} == {np.dtype(kind)}


def test_files_of_the_safetensors_library_are_read(folder):
    saved = random_checkpoint(TINY, 2).weights
    tensors = {huggingface_name(name): np.array(value) for name, value in saved.items()}
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "np"})
    assert_same(load_checkpoint(files_in(folder)).weights, saved)


@settings(max_examples=12, deadline=None)
@given(
    heads=st.integers(1, 2),
    audio_layers=st.integers(1, 2),
    text_layers=st.integers(1, 3),
    n_mels=st.integers(1, 3),
    seed=st.integers(0, 1000),
    quantization=st.sampled_from([None, "float16", "bfloat16", "int8", "int8_float16", "int16"]),
)
def test_ctranslate2_files_give_the_weights_that_were_saved(
    tmp_path_factory, heads, audio_layers, text_layers, n_mels, seed, quantization
):
    pytest.importorskip("ctranslate2")
    sizes = Dimensions(
        n_mels, 6, 4 * heads, heads, audio_layers, 11, 5, 4 * heads, heads, text_layers
    )
    saved = random_checkpoint(sizes, seed)
    folder = tmp_path_factory.mktemp("ct2")
    write_ctranslate2(folder, saved, quantization)
    found = read_ctranslate2(folder, sizes)
    assert found.dimensions == sizes
    largest = max(float(np.abs(value).max()) for value in saved.weights.values())
    steps = {None: 0.0, "float16": 2**-10, "bfloat16": 2**-7, "int16": 2**-10}
    assert_same(found.weights, saved.weights, largest * steps.get(quantization, 1 / 127))


def read_ctranslate2(folder, sizes):
    """With alignment heads that these sizes have."""
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "alignment_heads": [[0, sizes.n_text_head - 1]]})
    return load_checkpoint(files_in(folder))


def test_both_formats_give_the_same_dictionary(tmp_path):
    pytest.importorskip("ctranslate2")
    saved = random_checkpoint(TINY, 3, np.float16)
    write_hugging_face(tmp_path / "hf", TINY, saved.weights, n_shards=2)
    write_ctranslate2(tmp_path / "ct2", saved, "float16")
    one, other = (load_checkpoint(files_in(tmp_path / name)) for name in ("hf", "ct2"))
    assert_same(one.weights, other.weights)
    assert one.dimensions == other.dimensions
    assert one.suppress_tokens == other.suppress_tokens == (1, 2)
    assert one.begin_suppress_tokens == other.begin_suppress_tokens == (3,)


def test_missing_encoder_positions_are_computed(folder):
    weights = {**random_checkpoint(TINY, 4).weights}
    del weights["encoder.positional_embedding"]
    write_hugging_face(folder, TINY, weights)
    found = load_checkpoint(files_in(folder)).weights["encoder.positional_embedding"]
    np.testing.assert_array_equal(found, sinusoids(TINY.n_audio_ctx, TINY.n_audio_state))


def test_weights_are_read_only(folder):
    weights = load_checkpoint(files_in(folder)).weights
    with pytest.raises(ValueError, match="read-only"):
        weights["encoder.conv1.weight"][0] = 0
    with pytest.raises(TypeError):
        weights["encoder.conv1.weight"] = np.zeros(1)  # type: ignore[index]


# Settings beside the weights


def test_generation_config_overrides_config(folder):
    settings_ = {"suppress_tokens": [5], "begin_suppress_tokens": None, "alignment_heads": [[2, 1]]}
    write_json(folder / "generation_config.json", settings_)
    checkpoint = load_checkpoint(files_in(folder))
    assert checkpoint.suppress_tokens == (5,)
    assert checkpoint.begin_suppress_tokens == (3,)
    assert checkpoint.alignment_heads == (AlignmentHead(2, 1),)


def test_suppress_tokens_default_to_the_rules_of_openai_whisper(base_model, tmp_path):
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).symlink_to(base_model.files.folder / name)
    write_json(tmp_path / "config.json", {})
    checkpoint = load_checkpoint(files_in(tmp_path))
    assert checkpoint.suppress_tokens == base_model.checkpoint.suppress_tokens
    assert checkpoint.begin_suppress_tokens == base_model.checkpoint.begin_suppress_tokens
    upper = [AlignmentHead(layer, head) for layer in (3, 4, 5) for head in range(8)]
    assert list(checkpoint.alignment_heads) == upper


def test_sha256_identifies_weights(tmp_path):
    fingerprints = set()
    for seed in range(3):
        write_hugging_face(tmp_path / str(seed), TINY, random_checkpoint(TINY, seed).weights)
        loaded = [load_checkpoint(files_in(tmp_path / str(seed))) for _ in range(2)]
        assert loaded[0].sha256 == loaded[1].sha256
        fingerprints.add(loaded[0].sha256)
    assert len(fingerprints) == 3


def test_sha256_of_a_pinned_file_is_its_hash(base_model):
    assert base_model.checkpoint.sha256.startswith("d01c3014881c9c6f")


def test_random_checkpoint_is_determined_by_seed_and_dimensions():
    one, same, other = (random_checkpoint(TINY, seed) for seed in (7, 7, 8))
    assert_same(one.weights, same.weights)
    assert one.sha256 == same.sha256 != other.sha256
    assert any((one.weights[name] != other.weights[name]).any() for name in one.weights)
    assert {name: value.shape for name, value in one.weights.items()} == tensor_shapes(TINY)


# What is refused


def refused(folder, *says, error=UnsupportedCheckpoint):
    with pytest.raises(error) as caught:
        load_checkpoint(files_in(folder))
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_large_random_checkpoint_is_determined_by_its_seed():
    one, again, other = (random_checkpoint(TINY, seed, large=True) for seed in (3, 3, 4))
    for name, weight in one.weights.items():
        assert np.array_equal(weight, again.weights[name])
    name = "decoder.token_embedding.weight"
    assert not np.array_equal(one.weights[name], other.weights[name])
    small = random_checkpoint(TINY, 3)
    assert not np.array_equal(one.weights[name], small.weights[name])
    assert len({each.sha256 for each in (one, other, small)}) == 3


def test_another_architecture_is_refused(folder):
    write_json(folder / "config.json", hugging_face_config(TINY, model_type="wav2vec2"))
    refused(folder, "wav2vec2", "config.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": "whisper"}'])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")


def test_a_missing_configuration_is_named(folder):
    (folder / "config.json").unlink()
    refused(folder, "config.json", error=ModelFileMissing)


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").unlink()
    write_hugging_face(folder, TINY, random_checkpoint(TINY, 0).weights, n_shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors", error=ModelFileMissing)


def test_missing_weights_are_said_to_be_missing(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "model.bin", error=ModelFileMissing)
    (folder / "pytorch_model.bin").touch()
    refused(folder, "safetensors")


@pytest.mark.parametrize("name", ["decoder.blocks.1.mlp.0.bias", "encoder.conv1.weight"])
def test_a_tensor_that_is_missing_or_misshapen_is_named(folder, name):
    weights = {**random_checkpoint(TINY, 0).weights}
    value = weights.pop(name)
    write_hugging_face(folder, TINY, weights)
    refused(folder, name, "missing")
    write_hugging_face(folder, TINY, {**weights, name: value[:-1]})
    refused(folder, name, str(value.shape))


def test_a_tensor_of_another_model_is_named(folder):
    tensors = {huggingface_name(n): v for n, v in random_checkpoint(TINY, 0).weights.items()}
    extra = {"model.encoder.layers.0.adapter.weight": np.zeros(2, np.float32)}
    write_safetensors(folder / "model.safetensors", {**tensors, **extra})
    refused(folder, "adapter")


def test_an_untied_output_projection_is_refused(folder):
    tensors = {huggingface_name(n): v for n, v in random_checkpoint(TINY, 0).weights.items()}
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1
    write_safetensors(folder / "model.safetensors", tensors)
    refused(folder, "proj_out.weight")


@pytest.mark.parametrize("change", [{"encoder_attention_heads": 3}, {"decoder_attention_heads": 0}])
def test_heads_that_do_not_share_the_width_are_refused(folder, change):
    write_json(folder / "config.json", hugging_face_config(TINY, **change))
    refused(folder, "heads")


@pytest.mark.parametrize(
    "change",
    [{"suppress_tokens": [11]}, {"begin_suppress_tokens": [-1]}, {"alignment_heads": [[3, 0]]}],
)
def test_settings_for_missing_tokens_or_heads_are_rejected(folder, change):
    write_json(folder / "config.json", hugging_face_config(TINY, **change))
    refused(folder, "exist")


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_a_truncated_file_is_refused_wherever_it_ends(whole, name, share):
    folder, content = whole[name]
    (folder / name).write_bytes(content[: int(share * len(content))])
    refused(folder, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Name -> a folder, and the content of the file of that name in it."""
    pytest.importorskip("ctranslate2")
    hf, ct2 = tmp_path_factory.mktemp("hf"), tmp_path_factory.mktemp("ct2")
    write_hugging_face(hf, TINY, random_checkpoint(TINY, 0).weights)
    write_ctranslate2(ct2, random_checkpoint(TINY, 0), None)
    places = {"model.safetensors": hf, "model.bin": ct2}
    return {name: (folder, (folder / name).read_bytes()) for name, folder in places.items()}


@pytest.mark.parametrize(
    ("start", "says"),
    [(b"PK\x03\x04aaaaaaaa", "version 6"), (struct.pack("<I", 5) + b"\0" * 20, "version 6")],
)
def test_a_file_that_is_no_ctranslate2_model_is_refused(ctranslate2_folder, start, says):
    (ctranslate2_folder / "model.bin").write_bytes(start)
    refused(ctranslate2_folder, "model.bin", says)


def test_a_ctranslate2_model_of_another_kind_is_refused(ctranslate2_folder):
    path = ctranslate2_folder / "model.bin"
    path.write_bytes(path.read_bytes().replace(b"WhisperSpec", b"Wav2Vec2Spe"))
    refused(ctranslate2_folder, "Wav2Vec2Spe", "not a Whisper")


def test_a_bias_for_the_keys_is_refused_not_dropped(ctranslate2_folder):
    checkpoint = random_checkpoint(TINY, 0)
    biased = {
        **checkpoint.weights,
        "encoder.blocks.0.attn.key.bias": np.ones(TINY.n_audio_state, np.float32),
    }
    write_ctranslate2(ctranslate2_folder, replace(checkpoint, weights=biased), None)
    refused(ctranslate2_folder, "bias for the keys")


def test_an_index_cannot_lead_out_of_its_folder(folder):
    outside = folder.parent / "outside.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    write_json(
        folder / "model.safetensors.index.json", {"weight_map": {"x": "../outside.safetensors"}}
    )
    refused(folder, "outside.safetensors", error=ModelFileMissing)


def test_a_tensor_of_absurdly_many_axes_is_refused(folder):
    name, value = "model.encoder.conv1.weight", np.zeros((1,) * 9, np.float32)
    write_safetensors(folder / "model.safetensors", {name: value})
    refused(folder, "model.safetensors", "9 axes")
