"""Loads a checkpoint into memory: its dimensions, and its weights under one set of names.

The names are those of openai/whisper, whatever the file format, so that engines are independent of
it. Also reads the settings of a checkpoint: suppressed tokens and alignment heads. Knows nothing of
finding or downloading files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from batched_whisper.errors import ModelFileMissing, UnsupportedCheckpoint
from batched_whisper.models import safetensors_file
from batched_whisper.models.ctranslate2_file import MODEL_FILE, read_model_bin
from batched_whisper.models.dimensions import SHAPES, Dimensions, sinusoids, tensor_shapes
from batched_whisper.models.model_files import ModelFiles
from batched_whisper.tokens.tokenizer import Tokenizer

__all__ = [
    "SHAPES",
    "AlignmentHead",
    "Checkpoint",
    "Dimensions",
    "load_checkpoint",
    "random_checkpoint",
]

Weights = Mapping[str, NDArray[Any]]

HEAD_WIDTH = 64
"""The width of attention heads in every published Whisper model."""

_FINGERPRINTED_BYTES = 1 << 20
_HUGGING_FACE_SIZES = (
    "num_mel_bins max_source_positions d_model encoder_attention_heads encoder_layers "
    "vocab_size max_target_positions d_model decoder_attention_heads decoder_layers"
)  # in the order of Dimensions


@dataclass(frozen=True)
class AlignmentHead:
    """A cross-attention head that follows the audio, for word timestamps."""

    layer: int
    head: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of a model and their settings.

    ``weights`` has the names and shapes of `dimensions.tensor_shapes`, in the data type of the file
    (bfloat16 and quantised weights as float32); the arrays are read-only views of the file.

    ``sha256`` identifies the weights, as a key for caches of compiled graphs. For a file with a
    pinned hash it is that hash. For others it is a hash of each weight file's name, size,
    modification time and first MiB, which is cheap and changes whenever the file is written.
    """

    name: str
    revision: str | None
    dimensions: Dimensions
    weights: Weights
    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    alignment_heads: tuple[AlignmentHead, ...]
    sha256: str


def load_checkpoint(files: ModelFiles) -> Checkpoint:
    """Load a model folder: safetensors with Hugging Face names, or CTranslate2's model.bin.

    Raises:
        ModelFileMissing: no weights, or no config.json.
        UnsupportedCheckpoint: not a Whisper checkpoint, or a damaged one; the message names the
            file, or the tensor.
    """
    folder = files.folder
    content = _read_folder(folder)
    weights, dimensions = content.weights, content.dimensions
    if "encoder.positional_embedding" not in weights:
        weights["encoder.positional_embedding"] = sinusoids(
            dimensions.n_audio_ctx, dimensions.n_audio_state
        )
    _check_shapes(weights, dimensions, folder)
    never, never_first = _suppressed(content.config, dimensions, folder)
    return Checkpoint(
        name=files.name,
        revision=files.revision,
        dimensions=dimensions,
        weights=_sealed(weights),
        suppress_tokens=never,
        begin_suppress_tokens=never_first,
        alignment_heads=_alignment_heads(content.config, dimensions, folder),
        sha256=files.sha256 or _fingerprint(content.weight_files),
    )


def random_checkpoint(
    dimensions: Dimensions, seed: int, dtype: DTypeLike = np.float32, *, large: bool = False
) -> Checkpoint:
    """Create a checkpoint of random weights, scaled like trained ones; for tests and benchmarks.

    The same seed gives the same weights; with ``large`` several threads create them, and they
    differ from those without. No tokens are suppressed.
    """
    shapes = tensor_shapes(dimensions)
    one_for_all = np.random.default_rng(seed)

    def made(i: int, name: str) -> NDArray[Any]:
        generator = np.random.default_rng([seed, i]) if large else one_for_all
        return _noise(name, shapes[name], generator).astype(dtype, copy=False)

    with ThreadPoolExecutor(None if large else 1) as threads:
        weights = dict(zip(shapes, threads.map(made, count(), shapes), strict=True))
    identity = repr((astuple(dimensions), seed, np.dtype(dtype).str, large))
    return Checkpoint(
        name=f"random-{seed}",
        revision=None,
        dimensions=dimensions,
        weights=_sealed(weights),
        suppress_tokens=(),
        begin_suppress_tokens=(),
        alignment_heads=_upper_half(dimensions),
        sha256=hashlib.sha256(identity.encode()).hexdigest(),
    )


def _sealed(weights: dict[str, NDArray[Any]]) -> Weights:
    """Make the arrays read-only, because engines share them."""
    for value in weights.values():
        value.setflags(write=False)
    return MappingProxyType(weights)


@dataclass(frozen=True)
class _Content:
    """The contents of a model folder, in either format."""

    weights: dict[str, NDArray[Any]]
    dimensions: Dimensions
    config: Mapping[str, Any]
    weight_files: tuple[Path, ...]


def _read_folder(folder: Path) -> _Content:
    config = _read_json(folder / "config.json")
    shards = safetensors_file.weight_files(folder)
    if shards:
        dimensions = _hugging_face_dimensions(config, folder / "config.json")
        generation = folder / "generation_config.json"
        if generation.is_file():
            config.update({k: v for k, v in _read_json(generation).items() if v is not None})
        return _Content(safetensors_file.read_weights(shards), dimensions, config, shards)
    model_bin = folder / MODEL_FILE
    if not model_bin.is_file():
        raise _no_weights(folder)
    found = read_model_bin(model_bin)
    dimensions = _measured_dimensions(found.weights, found.n_audio_head, found.n_text_head, folder)
    return _Content(found.weights, dimensions, config, (model_bin,))


def _noise(
    name: str, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float32]:
    if name == "encoder.positional_embedding":
        return sinusoids(*shape)
    noise: NDArray[np.float32] = generator.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        is_gain = "ln" in name and name.endswith("weight")
        return noise * np.float32(0.02) + np.float32(is_gain)
    if "embedding" in name:
        return noise * np.float32(0.02)
    fan_in = int(np.prod(shape[1:]))
    return noise * np.float32(fan_in**-0.5)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelFileMissing(
            f"{path} is missing; copy it from the model's repository, or download the model again"
        ) from None
    except ValueError as error:
        raise UnsupportedCheckpoint(
            f"{path} is not JSON ({error}); download the model again"
        ) from error
    if not isinstance(content, dict):
        raise UnsupportedCheckpoint(f"{path} does not describe a model; download the model again")
    return content


def _no_weights(folder: Path) -> ModelFileMissing | UnsupportedCheckpoint:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        return UnsupportedCheckpoint(
            f"{folder} has PyTorch weights only, which can run code when they are opened; "
            "save the model as safetensors or convert it with CTranslate2"
        )
    return ModelFileMissing(
        f"{folder} has no weights: neither model.safetensors (or its index) nor model.bin"
    )


def _hugging_face_dimensions(config: Mapping[str, Any], path: Path) -> Dimensions:
    kind = config.get("model_type")
    if kind != "whisper":
        raise UnsupportedCheckpoint(
            f"{path} describes a model of type {kind!r}, not Whisper; choose another model"
        )
    try:
        return Dimensions(*(int(config[name]) for name in _HUGGING_FACE_SIZES.split()))
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedCheckpoint(
            f"{path} does not say the model's sizes ({error}); download the model again"
        ) from error


def _measured_dimensions(
    weights: Weights, n_audio_head: int | None, n_text_head: int | None, folder: Path
) -> Dimensions:
    """Derive the dimensions from the shapes of the tensors."""

    def shape(name: str, n_axes: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        found = weights[name].shape if name in weights else default
        if found is None or len(found) != n_axes:
            raise UnsupportedCheckpoint(
                f"{folder}: the tensor {name} is missing or has the wrong number of axes"
            )
        return found

    audio, n_mels, _ = shape("encoder.conv1.weight", 3)
    n_vocab, text = shape("decoder.token_embedding.weight", 2)
    return Dimensions(
        n_mels=n_mels,
        n_audio_ctx=shape("encoder.positional_embedding", 2, (1500, audio))[0],
        n_audio_state=audio,
        n_audio_head=n_audio_head or audio // HEAD_WIDTH,
        n_audio_layer=_n_blocks(weights, "encoder"),
        n_vocab=n_vocab,
        n_text_ctx=shape("decoder.positional_embedding", 2)[0],
        n_text_state=text,
        n_text_head=n_text_head or text // HEAD_WIDTH,
        n_text_layer=_n_blocks(weights, "decoder"),
    )


def _n_blocks(weights: Weights, side: str) -> int:
    prefix = f"{side}.blocks."
    return len({name.split(".")[2] for name in weights if name.startswith(prefix)})


def _check_shapes(weights: Weights, dimensions: Dimensions, folder: Path) -> None:
    expected = tensor_shapes(dimensions)
    for name, shape in expected.items():
        if name not in weights:
            raise UnsupportedCheckpoint(f"{folder}: the tensor {name} is missing")
        if weights[name].shape != shape:
            raise UnsupportedCheckpoint(
                f"{folder}: the tensor {name} has shape {weights[name].shape}, expected {shape}"
            )
    for name in weights:
        if name not in expected:
            raise UnsupportedCheckpoint(f"{folder}: unexpected tensor {name}")
    for width, n_heads in (
        (dimensions.n_audio_state, dimensions.n_audio_head),
        (dimensions.n_text_state, dimensions.n_text_head),
    ):
        if n_heads < 1 or width % n_heads:
            raise UnsupportedCheckpoint(
                f"{folder}: a width of {width} is not divisible by {n_heads} heads"
            )


def _suppressed(
    config: Mapping[str, Any], dimensions: Dimensions, folder: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens suppressed always and first: as configured, else by openai's rule."""
    never = config.get("suppress_ids", config.get("suppress_tokens"))
    never_first = config.get("suppress_ids_begin", config.get("begin_suppress_tokens"))
    if never is None or never_first is None:
        tokenizer = Tokenizer.from_folder(folder)
        never = tokenizer.suppress_tokens if never is None else never
        never_first = tokenizer.begin_suppress_tokens if never_first is None else never_first
    return _tokens(never, dimensions, folder), _tokens(never_first, dimensions, folder)


def _tokens(listed: Sequence[int], dimensions: Dimensions, folder: Path) -> tuple[int, ...]:
    for token in listed:
        if not isinstance(token, int) or not 0 <= token < dimensions.n_vocab:
            raise UnsupportedCheckpoint(
                f"{folder}: the configuration suppresses a token {token!r} that does not exist"
            )
    return tuple(listed)


def _alignment_heads(
    config: Mapping[str, Any], dimensions: Dimensions, folder: Path
) -> tuple[AlignmentHead, ...]:
    listed = config.get("alignment_heads")
    if not listed:
        return _upper_half(dimensions)
    try:
        heads = tuple(AlignmentHead(int(layer), int(head)) for layer, head in listed)
    except (TypeError, ValueError) as error:
        raise UnsupportedCheckpoint(
            f"{folder}: alignment_heads is not a list of pairs ({error})"
        ) from error
    for each in heads:
        if not (
            0 <= each.layer < dimensions.n_text_layer and 0 <= each.head < dimensions.n_text_head
        ):
            raise UnsupportedCheckpoint(
                f"{folder}: alignment_heads names head {each.head} of layer {each.layer}, "
                "which does not exist"
            )
    return heads


def _upper_half(dimensions: Dimensions) -> tuple[AlignmentHead, ...]:
    """Return all heads of the upper half of the decoder, openai/whisper's default."""
    layers = range(dimensions.n_text_layer // 2, dimensions.n_text_layer)
    return tuple(
        AlignmentHead(layer, head) for layer in layers for head in range(dimensions.n_text_head)
    )


def _fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_FINGERPRINTED_BYTES))
    return digest.hexdigest()
