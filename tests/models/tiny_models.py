"""Whisper checkpoints of a few kilobytes, written in each format that is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.models.checkpoint import Checkpoint, Dimensions
from batched_whisper.models.model_files import ModelFiles, Source
from benchmarks.peer_models import huggingface_name

Weights = Mapping[str, NDArray[Any]]

TINY = Dimensions(
    n_mels=4,
    n_audio_ctx=6,
    n_audio_state=8,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=11,
    n_text_ctx=5,
    n_text_state=8,
    n_text_head=2,
    n_text_layer=3,
)

SUPPRESSED = {"suppress_tokens": [1, 2], "begin_suppress_tokens": [3]}


def hugging_face_config(dimensions: Dimensions, **changes: Any) -> dict[str, Any]:
    return {
        "model_type": "whisper",
        "num_mel_bins": dimensions.n_mels,
        "max_source_positions": dimensions.n_audio_ctx,
        "d_model": dimensions.n_audio_state,
        "encoder_attention_heads": dimensions.n_audio_head,
        "encoder_layers": dimensions.n_audio_layer,
        "vocab_size": dimensions.n_vocab,
        "max_target_positions": dimensions.n_text_ctx,
        "decoder_attention_heads": dimensions.n_text_head,
        "decoder_layers": dimensions.n_text_layer,
        **SUPPRESSED,
        **changes,
    }


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), "utf-8")


def write_safetensors(path: Path, tensors: Weights, bfloat16: bool = False) -> None:
    """The layout by its definition: length, JSON header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, value in tensors.items():
        if bfloat16:
            raw, kind = (value.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes(), "BF16"
        else:
            raw, kind = value.tobytes(), f"F{8 * value.itemsize}"
        end = len(data) + len(raw)
        header[name] = {
            "dtype": kind,
            "shape": list(value.shape),
            "data_offsets": [len(data), end],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_hugging_face(
    folder: Path,
    dimensions: Dimensions,
    weights: Weights,
    *,
    n_shards: int = 1,
    bfloat16: bool = False,
) -> None:
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", hugging_face_config(dimensions))
    tensors = {huggingface_name(name): value for name, value in weights.items()}
    if n_shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, bfloat16)
        return
    names = sorted(tensors)
    places = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        own = names[shard::n_shards]
        write_safetensors(folder / file, {name: tensors[name] for name in own}, bfloat16)
        places.update(dict.fromkeys(own, file))
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})


def write_ctranslate2(folder: Path, checkpoint: Checkpoint, quantization: str | None) -> None:
    """Written by CTranslate2's own specification classes; they need PyTorch for bfloat16."""
    from ctranslate2.specs import WhisperSpec

    sizes = checkpoint.dimensions
    spec = WhisperSpec(
        sizes.n_audio_layer, sizes.n_audio_head, sizes.n_text_layer, sizes.n_text_head
    )
    _fill(spec, checkpoint)
    spec.register_vocabulary([str(i) for i in range(sizes.n_vocab)])
    spec.validate()
    spec.optimize(None if quantization == "bfloat16" else quantization)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [1, 2], [3]
    spec.config.lang_ids = [4]
    spec.config.alignment_heads = [[1, 0], [2, 1]]
    folder.mkdir(exist_ok=True)
    spec.save(str(folder))
    if quantization == "bfloat16":
        _write_bfloat16(folder / "model.bin", spec)


def _write_bfloat16(path: Path, spec: Any) -> None:
    """The layout by its definition, with every float32 tensor cut down to bfloat16."""

    def text(written: str) -> bytes:
        return struct.pack("<H", len(written) + 1) + written.encode() + b"\0"

    tensors, aliases = [], []
    for name, variable in spec.variables(ordered=True):
        if isinstance(variable, str):
            aliases.append(text(name) + text(variable))
            continue
        value = variable.numpy()
        kind = ("float32", "int8", "int16").index(value.dtype.name)
        if value.ndim and kind == 0:
            value, kind = (value.view("<u4") >> 16).astype("<u2"), 5
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        length = struct.pack("<BI", kind, value.nbytes)
        tensors.append(text(name) + shape + length + value.tobytes())
    head = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<I", 3)
    parts = [head, struct.pack("<I", len(tensors)), *tensors]
    path.write_bytes(b"".join([*parts, struct.pack("<I", len(aliases)), *aliases]))


def _fill(spec: Any, checkpoint: Checkpoint) -> None:
    w = {name: np.array(value) for name, value in checkpoint.weights.items()}

    def norm(target: Any, name: str) -> None:
        target.gamma, target.beta = w[f"{name}.weight"], w[f"{name}.bias"]

    def linear(target: Any, *names: str) -> None:
        target.weight = np.concatenate([w[f"{name}.weight"] for name in names])
        no_bias = np.zeros(checkpoint.dimensions.n_text_state, w[f"{names[0]}.weight"].dtype)
        target.bias = np.concatenate([w.get(f"{name}.bias", no_bias) for name in names])

    for conv in ("conv1", "conv2"):
        part = getattr(spec.encoder, conv)
        part.weight, part.bias = w[f"encoder.{conv}.weight"], w[f"encoder.{conv}.bias"]
    for side, last_norm in (("encoder", "ln_post"), ("decoder", "ln")):
        tower = getattr(spec, side)
        tower.position_encodings.encodings = w[f"{side}.positional_embedding"]
        norm(tower.layer_norm, f"{side}.{last_norm}")
        for i, layer in enumerate(tower.layer):
            block = f"{side}.blocks.{i}"
            attention = layer.self_attention
            norm(attention.layer_norm, f"{block}.attn_ln")
            linear(attention.linear[0], *(f"{block}.attn.{p}" for p in ("query", "key", "value")))
            linear(attention.linear[1], f"{block}.attn.out")
            if side == "decoder":
                cross = layer.attention
                norm(cross.layer_norm, f"{block}.cross_attn_ln")
                linear(cross.linear[0], f"{block}.cross_attn.query")
                linear(cross.linear[1], *(f"{block}.cross_attn.{p}" for p in ("key", "value")))
                linear(cross.linear[2], f"{block}.cross_attn.out")
            norm(layer.ffn.layer_norm, f"{block}.mlp_ln")
            linear(layer.ffn.linear_0, f"{block}.mlp.0")
            linear(layer.ffn.linear_1, f"{block}.mlp.2")
    spec.decoder.embeddings.weight = w["decoder.token_embedding.weight"]
    spec.decoder.projection.weight = w["decoder.token_embedding.weight"]


def files_in(folder: Path) -> ModelFiles:
    return ModelFiles("test", None, folder, Source.FOLDER)
