"""Reads weights from CTranslate2's model.bin.

Knows the layout of the file, version 6 (``_serialize`` in CTranslate2's specs/model_spec.py), its
fused projections, quantisation and tensor names. All numbers are little-endian; strings are a
16-bit length, the bytes and a zero. The shapes are checked by `batched_whisper.models.checkpoint`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.errors import UnsupportedCheckpoint
from batched_whisper.models.mapped_file import BFLOAT16, MappedFile

MODEL_FILE = "model.bin"

_VERSION = 6
_SPECIFICATION = "WhisperSpec"
_KINDS = ("<f4", "<i1", "<i2", "<i4", "<f2", BFLOAT16)  # by their code in the file

_OUTSIDE_BLOCKS = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/embeddings": "decoder.token_embedding",
    "decoder/layer_norm": "decoder.ln",
}
_IN_BLOCK = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
_KIND = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_BLOCK = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)/(weight|bias|gamma|beta)")

_POSITIONS = "/position_encodings/encodings"
_OUTPUT = "decoder/projection/weight"
_EMBEDDING = "decoder/embeddings/weight"


@dataclass(frozen=True)
class ModelBin:
    """The contents of a model.bin: tensors by openai/whisper's names, and the numbers of heads."""

    weights: dict[str, NDArray[Any]]
    n_audio_head: int | None
    n_text_head: int | None


def read_model_bin(path: Path) -> ModelBin:
    """Read a Whisper model.bin; quantised weights become float32.

    Raises:
        UnsupportedCheckpoint: a damaged file, another version, or another model than Whisper.
    """
    variables = _read_variables(path)
    output = variables.pop(_OUTPUT, None)
    embedding = variables.get(_EMBEDDING)
    if output is not None and embedding is not None and not np.array_equal(output, embedding):
        raise UnsupportedCheckpoint(
            f"{path}: the output projection is not the token embedding; "
            "such checkpoints are not supported"
        )
    weights: dict[str, NDArray[Any]] = {}
    for name, value in variables.items():
        if value.ndim:  # the others are settings of CTranslate2
            weights.update(_renamed(name, value, path))
    return ModelBin(weights, _heads(variables, "encoder"), _heads(variables, "decoder"))


class _Cursor:
    """Reads values one after another from a file."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self._at = 0

    def number(self, kind: str) -> int:
        """Read an integer; ``kind`` is its format character in `struct`."""
        return int(struct.unpack("<" + kind, self._take(struct.calcsize("<" + kind)))[0])

    def string(self) -> str:
        return self._take(self.number("H")).rstrip(b"\0").decode("utf-8", errors="replace")

    def tensor(self) -> NDArray[Any]:
        shape = tuple(self.number("I") for _ in range(self.number("B")))
        kind, n_bytes, start = self.number("B"), self.number("I"), 0
        if kind >= len(_KINDS):
            raise UnsupportedCheckpoint(f"{self.file.path}: unknown tensor type {kind}")
        start, self._at = self._at, self._at + n_bytes
        value = self.file.array(_KINDS[kind], shape, start)
        if value.size * (2 if _KINDS[kind] == BFLOAT16 else value.itemsize) != n_bytes:
            raise UnsupportedCheckpoint(
                f"{self.file.path} is damaged: {n_bytes} bytes for a tensor of shape {shape}; "
                "download the model again"
            )
        return value

    def _take(self, n_bytes: int) -> bytes:
        start, self._at = self._at, self._at + n_bytes
        return self.file.read(start, n_bytes)


def _read_variables(path: Path) -> dict[str, NDArray[Any]]:
    cursor = _Cursor(MappedFile(path))
    version = cursor.number("I")
    if version != _VERSION:
        raise UnsupportedCheckpoint(
            f"{path} is not a CTranslate2 model of version {_VERSION} (it begins with {version}); "
            "convert the model again with a current CTranslate2"
        )
    specification, _ = cursor.string(), cursor.number("I")
    if specification != _SPECIFICATION:
        raise UnsupportedCheckpoint(
            f"{path} holds a {specification}, not a Whisper model; choose another model"
        )
    variables = {cursor.string(): cursor.tensor() for _ in range(cursor.number("I"))}
    variables = _dequantised(variables, path)
    # After dequantising: an alias of a quantised tensor has no scale of its own.
    for _ in range(cursor.number("I")):
        alias, target = cursor.string(), cursor.string()
        if target not in variables:
            raise UnsupportedCheckpoint(
                f"{path}: {alias} is an alias of {target}, which is missing"
            )
        variables[alias] = variables[target]
    return variables


def _dequantised(variables: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[Any]]:
    """Divide integers by their scale: one per row in int8, one per tensor in int16."""
    done: dict[str, NDArray[Any]] = {}
    for name, value in variables.items():
        if name.endswith("_scale"):
            continue
        done[name] = value
        if value.ndim and value.dtype.kind == "i":
            scale = variables.get(name + "_scale")
            if scale is None or scale.shape not in ((), (1,), value.shape[:1]):
                raise UnsupportedCheckpoint(f"{path}: {name} is quantised without a scale for it")
            rows = scale.astype(np.float32).reshape((-1,) + (1,) * (value.ndim - 1))
            done[name] = value.astype(np.float32) / rows
    return done


def _renamed(name: str, value: NDArray[Any], path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    block = _BLOCK.fullmatch(name)
    layer, _, kind = name.rpartition("/")
    if block and block[3] in _IN_BLOCK:
        prefix, targets = f"{block[1]}.blocks.{block[2]}", _IN_BLOCK[block[3]]
        yield from _split(f"{prefix}.{{}}.{_KIND[kind]}", targets, name, value, path)
    elif layer in _OUTSIDE_BLOCKS and kind in _KIND:
        yield f"{_OUTSIDE_BLOCKS[layer]}.{_KIND[kind]}", value
    elif name.endswith(_POSITIONS):
        yield name.removesuffix(_POSITIONS) + ".positional_embedding", value
    else:
        raise UnsupportedCheckpoint(f"{path}: a Whisper checkpoint has no tensor {name}")


def _split(
    pattern: str, targets: tuple[str, ...], name: str, value: NDArray[Any], path: Path
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Split the rows of a fused projection into its parts."""
    if len(value) % len(targets):
        raise UnsupportedCheckpoint(f"{path}: {name} cannot be split into {len(targets)} parts")
    for target, rows in zip(targets, np.split(value, len(targets)), strict=True):
        if target.endswith(".key") and rows.ndim == 1:
            if np.any(rows):  # keys have no bias in Whisper; in a fused projection it is zero
                raise UnsupportedCheckpoint(f"{path}: {name} has a bias for the keys")
            continue
        yield pattern.format(target), rows


def _heads(variables: Mapping[str, NDArray[Any]], side: str) -> int | None:
    heads = variables.get(f"{side}/num_heads")
    return None if heads is None else int(heads)
