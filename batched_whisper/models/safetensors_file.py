"""Reads weights from safetensors files with Hugging Face names.

Knows the safetensors layout (8 bytes of length, a JSON header, the data), the index of a sharded
checkpoint, and the tensor names of transformers. The shapes are checked by
`batched_whisper.models.checkpoint`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.errors import ModelFileMissing, UnsupportedCheckpoint
from batched_whisper.models.mapped_file import BFLOAT16, MappedFile

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16}

_OUTSIDE_BLOCKS = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.embed_tokens": "decoder.token_embedding",
    "decoder.layer_norm": "decoder.ln",
}
_IN_BLOCK = {
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    **{
        f"{theirs}.{letter}_proj": f"{ours}.{part}"
        for theirs, ours in (("self_attn", "attn"), ("encoder_attn", "cross_attn"))
        for letter, part in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out"))
    },
}
_BLOCK = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """List the safetensors files of a folder.

    Raises:
        ModelFileMissing: the index names a missing file.
        UnsupportedCheckpoint: the index cannot be read.
    """
    if (folder / SINGLE_FILE).is_file():
        return (folder / SINGLE_FILE,)
    index = folder / INDEX_FILE
    if not index.is_file():
        return ()
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        files = tuple(folder / Path(name).name for name in names)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnsupportedCheckpoint(
            f"{index} is not the index of a sharded checkpoint ({error}); download the model again"
        ) from error
    for file in files:
        if not file.is_file():
            raise ModelFileMissing(f"{file} is missing; {index.name} lists it, download it again")
    return files


def read_weights(files: tuple[Path, ...]) -> dict[str, NDArray[Any]]:
    """Read all tensors of the files, by openai/whisper's names.

    Raises:
        UnsupportedCheckpoint: a damaged file, or tensors that do not belong to Whisper.
    """
    weights: dict[str, NDArray[Any]] = {}
    output: NDArray[Any] | None = None
    for file in files:
        for name, value in _read_file(file).items():
            if name == "proj_out.weight":
                output = value
            else:
                weights[_our_name(name, file)] = value
    _check_tied(output, weights, files[0])
    return weights


def _read_file(path: Path) -> dict[str, NDArray[Any]]:
    file = MappedFile(path)
    n_header = int.from_bytes(file.read(0, 8), "little")
    try:
        header: Mapping[str, Any] = json.loads(file.read(8, n_header))
        header.pop("__metadata__", None)  # type: ignore[attr-defined]
        entries = [
            (name, entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        ]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnsupportedCheckpoint(
            f"{path} is not a safetensors file ({error}); download the model again"
        ) from error
    return {
        name: _tensor(file, name, dtype, shape, 8 + n_header + start, end - start)
        for name, dtype, shape, start, end in entries
    }


def _tensor(
    file: MappedFile, name: str, dtype: str, shape: tuple[int, ...], start: int, n_bytes: int
) -> NDArray[Any]:
    if dtype not in _KINDS:
        raise UnsupportedCheckpoint(
            f"{file.path}: {name} is of type {dtype}; only float32, float16 and bfloat16 are read"
        )
    kind = _KINDS[dtype]
    item_size = 2 if kind == BFLOAT16 else np.dtype(kind).itemsize
    if math.prod(shape) * item_size != n_bytes:
        raise UnsupportedCheckpoint(f"{file.path}: {name} has {n_bytes} bytes for shape {shape}")
    return file.array(kind, shape, start)


def _our_name(name: str, file: Path) -> str:
    theirs = name.removeprefix("model.")
    block = _BLOCK.fullmatch(theirs)
    if block and block[3] in _IN_BLOCK:
        return f"{block[1]}.blocks.{block[2]}.{_IN_BLOCK[block[3]]}.{block[4]}"
    if theirs in ("encoder.embed_positions.weight", "decoder.embed_positions.weight"):
        return theirs.replace("embed_positions.weight", "positional_embedding")
    layer, _, kind = theirs.rpartition(".")
    if layer in _OUTSIDE_BLOCKS:
        return f"{_OUTSIDE_BLOCKS[layer]}.{kind}"
    raise UnsupportedCheckpoint(f"{file}: a Whisper checkpoint has no tensor {name}")


def _check_tied(
    output: NDArray[Any] | None, weights: Mapping[str, NDArray[Any]], file: Path
) -> None:
    """Check that the output projection, if stored, equals the token embedding (tied weights)."""
    embedding = weights.get("decoder.token_embedding.weight")
    if output is None or embedding is None or np.array_equal(output, embedding):
        return
    raise UnsupportedCheckpoint(
        f"{file}: proj_out.weight is not the token embedding; such checkpoints are not supported"
    )
