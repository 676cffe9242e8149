"""The dimensions of a Whisper checkpoint, and the names and shapes of its tensors.

The tensor names are those of openai/whisper's state dictionary, which the whole package uses.
Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of a checkpoint, with the names of openai/whisper's ModelDimensions."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    @property
    def multilingual(self) -> bool:
        """Whether it was trained on more than English."""
        return self.n_vocab >= 51_865


def _shape(
    width: int,
    heads: int,
    layers: int,
    n_vocab: int,
    *,
    decoder: int | None = None,
    n_mels: int = 80,
) -> Dimensions:
    """Declare a published model; ``decoder`` is its number of decoder layers, if fewer."""
    text_layers = layers if decoder is None else decoder
    return Dimensions(n_mels, 1500, width, heads, layers, n_vocab, 448, width, heads, text_layers)


_ENGLISH, _MULTILINGUAL, _WITH_CANTONESE = 51_864, 51_865, 51_866

SHAPES = MappingProxyType(
    {
        "tiny": _shape(384, 6, 4, _MULTILINGUAL),
        "tiny.en": _shape(384, 6, 4, _ENGLISH),
        "base": _shape(512, 8, 6, _MULTILINGUAL),
        "base.en": _shape(512, 8, 6, _ENGLISH),
        "small": _shape(768, 12, 12, _MULTILINGUAL),
        "small.en": _shape(768, 12, 12, _ENGLISH),
        "medium": _shape(1024, 16, 24, _MULTILINGUAL),
        "medium.en": _shape(1024, 16, 24, _ENGLISH),
        "large-v1": _shape(1280, 20, 32, _MULTILINGUAL),
        "large-v2": _shape(1280, 20, 32, _MULTILINGUAL),
        "large-v3": _shape(1280, 20, 32, _WITH_CANTONESE, n_mels=128),
        "large-v3-turbo": _shape(1280, 20, 32, _WITH_CANTONESE, decoder=4, n_mels=128),
        "distil-small.en": _shape(768, 12, 12, _ENGLISH, decoder=4),
        "distil-medium.en": _shape(1024, 16, 24, _ENGLISH, decoder=2),
        "distil-large-v2": _shape(1280, 20, 32, _MULTILINGUAL, decoder=2),
        "distil-large-v3": _shape(1280, 20, 32, _WITH_CANTONESE, decoder=2, n_mels=128),
        "distil-large-v3.5": _shape(1280, 20, 32, _WITH_CANTONESE, decoder=2, n_mels=128),
    }
)
"""Short name -> dimensions of the published model."""


def tensor_shapes(dimensions: Dimensions) -> dict[str, Shape]:
    """Return name -> shape of every tensor of a checkpoint; linear weights are [out, in]."""
    audio, text = dimensions.n_audio_state, dimensions.n_text_state
    shapes: dict[str, Shape] = {
        "encoder.conv1.weight": (audio, dimensions.n_mels, 3),
        "encoder.conv1.bias": (audio,),
        "encoder.conv2.weight": (audio, audio, 3),
        "encoder.conv2.bias": (audio,),
        "encoder.positional_embedding": (dimensions.n_audio_ctx, audio),
        "decoder.token_embedding.weight": (dimensions.n_vocab, text),
        "decoder.positional_embedding": (dimensions.n_text_ctx, text),
    }
    for i in range(dimensions.n_audio_layer):
        shapes.update(_block(f"encoder.blocks.{i}", audio, cross=False))
    for i in range(dimensions.n_text_layer):
        shapes.update(_block(f"decoder.blocks.{i}", text, cross=True))
    shapes.update(_layer_norm("encoder.ln_post", audio))
    shapes.update(_layer_norm("decoder.ln", text))
    return shapes


def sinusoids(n_positions: int, width: int) -> NDArray[np.float32]:
    """Return the encoder's position embeddings, ``[n_positions, width]``.

    As in openai/whisper's ``model.py``: the first half of a row is sines and the second cosines,
    with wavelengths from 2 pi to 20 000 pi positions in a geometric progression.
    """
    step = np.log(10_000) / (width // 2 - 1)
    inverse = np.exp(-step * np.arange(width // 2, dtype=np.float32)).astype(np.float32)
    angles = np.arange(n_positions, dtype=np.float32)[:, None] * inverse[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _block(prefix: str, width: int, *, cross: bool) -> Iterator[tuple[str, Shape]]:
    for attention in ("attn", "cross_attn") if cross else ("attn",):
        for part in ("query", "key", "value", "out"):
            yield f"{prefix}.{attention}.{part}.weight", (width, width)
            if part != "key":  # Whisper's keys have no bias
                yield f"{prefix}.{attention}.{part}.bias", (width,)
        yield from _layer_norm(f"{prefix}.{attention}_ln", width)
    yield f"{prefix}.mlp.0.weight", (4 * width, width)
    yield f"{prefix}.mlp.0.bias", (4 * width,)
    yield f"{prefix}.mlp.2.weight", (width, 4 * width)
    yield f"{prefix}.mlp.2.bias", (width,)
    yield from _layer_norm(f"{prefix}.mlp_ln", width)


def _layer_norm(prefix: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", (width,)
    yield f"{prefix}.bias", (width,)
