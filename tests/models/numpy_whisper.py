"""Whisper's two towers in plain NumPy float32, straight from the weight dictionary.

Slow and simple on purpose: an independent reading of the paper (Radford et al. 2022) and of
pre-norm transformers, to hold a checkpoint against another program.
"""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

from batched_whisper.models.checkpoint import Checkpoint

Array = NDArray[np.float32]

_erf = np.frompyfunc(erf, 1, 1)


class NumpyWhisper:
    """One window at a time, no caches."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.sizes = checkpoint.dimensions
        self.w = {name: value.astype(np.float32) for name, value in checkpoint.weights.items()}

    def encode(self, features: Array) -> Array:
        """Features [n_mels, 2 * n] -> hidden states [n, width]."""
        x = _gelu(self._convolution(features, "encoder.conv1", stride=1))
        x = _gelu(self._convolution(x, "encoder.conv2", stride=2)).T
        x = x + self.w["encoder.positional_embedding"][: len(x)]
        for i in range(self.sizes.n_audio_layer):
            x = self._block(f"encoder.blocks.{i}", x, None, self.sizes.n_audio_head)
        return self._norm(x, "encoder.ln_post")

    def logits(self, tokens: list[int], audio: Array) -> Array:
        """Logits [n_tokens, n_vocab] after each token."""
        embedding = self.w["decoder.token_embedding.weight"]
        x = embedding[tokens] + self.w["decoder.positional_embedding"][: len(tokens)]
        for i in range(self.sizes.n_text_layer):
            x = self._block(f"decoder.blocks.{i}", x, audio, self.sizes.n_text_head)
        return self._norm(x, "decoder.ln") @ embedding.T

    def _block(self, name: str, x: Array, audio: Array | None, n_heads: int) -> Array:
        y = self._norm(x, f"{name}.attn_ln")
        x = x + self._attention(f"{name}.attn", y, y, n_heads, causal=audio is not None)
        if audio is not None:
            y = self._norm(x, f"{name}.cross_attn_ln")
            x = x + self._attention(f"{name}.cross_attn", y, audio, n_heads, causal=False)
        y = _gelu(self._linear(self._norm(x, f"{name}.mlp_ln"), f"{name}.mlp.0"))
        return x + self._linear(y, f"{name}.mlp.2")

    def _attention(self, name: str, x: Array, source: Array, n_heads: int, causal: bool) -> Array:
        def heads(value: Array) -> Array:
            return value.reshape(len(value), n_heads, -1).transpose(1, 0, 2)

        query, key, value = (
            heads(self._linear(of, f"{name}.{part}"))
            for of, part in ((x, "query"), (source, "key"), (source, "value"))
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(sqrt(query.shape[-1]))
        if causal:
            scores = scores + np.triu(np.full(scores.shape[1:], -np.inf, np.float32), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ value
        return self._linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), f"{name}.out")

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", np.float32(0))

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-5))
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def _convolution(self, x: Array, name: str, stride: int) -> Array:
        """A kernel of 3 with one zero on both sides, [n_in, n] -> [n_out, n / stride]."""
        padded = np.pad(x, ((0, 0), (1, 1)))
        taps = self.w[f"{name}.weight"]
        n = x.shape[1]
        found = sum(taps[:, :, k] @ padded[:, k : k + n : stride] for k in range(3))
        return found + self.w[f"{name}.bias"][:, None]


def _gelu(x: Array) -> Array:
    return (0.5 * x * (1 + _erf(x / sqrt(2)).astype(np.float32))).astype(np.float32)
