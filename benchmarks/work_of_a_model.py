"""What work a Whisper needs, by formula: operations to encode, bytes to decode.

Counts of useful work, from the sizes of a model alone; no device in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batched_whisper.models.dimensions import Dimensions

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 2}
"""Of a number in the caches; int8 is for linear layers alone."""

WEIGHT_BYTES = {**BYTES, "int8": 1}


def encoder_flops(sizes: Dimensions, context: int) -> float:
    """Floating-point operations to encode one window of ``context`` positions (20 ms each).

    A product of [m, k] and [k, n] is 2 m k n operations. With width d, T positions and m mel
    bands: the convolutions 2 (2 T) 3 m d + 2 T 3 d d; each layer 4 projections 2 T d d, scores and
    sums 2 * 2 T T d, and two linear layers 2 * 2 T d 4 d; and the keys and values of every decoder
    layer, 2 * 2 T d d each. Norms and activations are left out, below 1 %.
    """
    d, t = sizes.n_audio_state, context
    convolutions = 2 * (2 * t) * 3 * sizes.n_mels * d + 2 * t * 3 * d * d
    layer = 4 * 2 * t * d * d + 2 * 2 * t * t * d + 2 * 2 * t * d * 4 * d
    cross = sizes.n_text_layer * 2 * 2 * t * d * sizes.n_text_state
    return float(convolutions + sizes.n_audio_layer * layer + cross)


def decoder_weight_bytes(sizes: Dimensions, number_bytes: float) -> float:
    """Bytes of weights that a step reads, however many rows it has.

    With width d: each layer's 4 projections of self-attention and 2 of cross-attention (its keys
    and values were made with the encoding) of d d, two linear layers of 4 d d, and the vocabulary
    times d, once.
    """
    d = sizes.n_text_state
    return number_bytes * (sizes.n_text_layer * (6 + 8) * d * d + sizes.n_vocab * d)


def row_bytes(
    sizes: Dimensions,
    context: int,
    position: float,
    number_bytes: float,
    heard_bytes: float | None = None,
) -> float:
    """Bytes of keys and values that one row of a step reads.

    Of every layer: keys and values of ``context`` positions of audio, d numbers of ``heard_bytes``
    each (as the others, if nothing is said), and of ``position`` tokens before it.
    """
    heard = context * (number_bytes if heard_bytes is None else heard_bytes)
    return sizes.n_text_layer * 2 * (heard + position * number_bytes) * sizes.n_text_state


@dataclass(frozen=True)
class Spoken:
    """One decoded window: the positions it was encoded with, and its tokens with the end's."""

    context: int
    n_tokens: int


def decoder_bytes(
    sizes: Dimensions, windows: Sequence[Spoken], n_batches: float, n_rows: float, precision: str
) -> float:
    """Bytes read by all steps that decoded these windows; at least, see below.

    Weights once a batch, and each row's keys and values. The rows of the prompts are counted as
    the mean of the others. The weights of a prompt's own passes are not in ``n_batches``, so
    this is a lower bound.
    """
    number_bytes, n_counted = BYTES[precision], sum(each.n_tokens for each in windows)
    rows = sum(
        each.n_tokens * row_bytes(sizes, each.context, each.n_tokens / 2, number_bytes)
        for each in windows
    )
    weights = decoder_weight_bytes(sizes, WEIGHT_BYTES[precision])
    return n_batches * weights + rows * (n_rows / n_counted if n_counted else 1.0)
