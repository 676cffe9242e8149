"""Whisper's two towers in plain NumPy float32, straight from the weight dictionary.

Slow and simple on purpose: an independent reading of the paper (Radford et al. 2022) and of
pre-norm transformers, to hold a checkpoint against another program.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

from batched_whisper.models.checkpoint import Checkpoint

Array = NDArray[np.float32]

_erf = np.frompyfunc(erf, 1, 1)

N_GROUPS = 64
"""Groups of the silence after a short window; each is represented by its middle position."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A window's hidden states ``[n, width]``; attention counts each of them ``counts`` times.

    The first ``n_own`` are the window's own, the others those of the silence after it.
    """

    hidden: Array
    counts: Array
    n_own: int


class NumpyWhisper:
    """One window at a time, no caches."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.sizes = checkpoint.dimensions
        self.w = {name: value.astype(np.float32) for name, value in checkpoint.weights.items()}

    def encode(self, features: Array, *, cut_off: bool = False) -> Audio:
        """Features [n_mels, 2 * n_own] of a window; what is missing to 30 s is silence.

        Or there is nothing after it, where it is cut off.
        """
        n_own = features.shape[1] // 2
        groups = [] if cut_off else self._groups(n_own)
        if groups:
            silence = max(features.max() - 2, -1.5)  # 8 powers of ten below the loudest
            features = np.pad(features, ((0, 0), (0, 20)), constant_values=silence)
        x = _gelu(self._convolution(features, "encoder.conv1", stride=1))
        x = _gelu(self._convolution(x, "encoder.conv2", stride=2)).T
        x = np.concatenate([x[:n_own], *[x[n_own + 5 : n_own + 6]] * len(groups)])
        places = [*range(n_own), *(group[(len(group) - 1) // 2] for group in groups)]
        x = x + self.w["encoder.positional_embedding"][places]
        mean_size = sum(map(len, groups)) / max(1, len(groups))
        counts = np.array([1.0] * n_own + [mean_size] * len(groups), np.float32)
        for i in range(self.sizes.n_audio_layer):
            x = self._audio_block(f"encoder.blocks.{i}", Audio(x, counts, n_own))
        return Audio(self._norm(x, "encoder.ln_post"), counts, n_own)

    def logits(self, tokens: list[int], audio: Audio) -> Array:
        """Logits [n_tokens, n_vocab] after each token."""
        embedding = self.w["decoder.token_embedding.weight"]
        x = embedding[tokens] + self.w["decoder.positional_embedding"][: len(tokens)]
        for i in range(self.sizes.n_text_layer):
            x = self._text_block(f"decoder.blocks.{i}", x, audio)
        return self._norm(x, "decoder.ln") @ embedding.T

    def _groups(self, n_own: int) -> list[range]:
        """The positions of the silence, as evenly as whole numbers allow."""
        missing = self.sizes.n_audio_ctx - n_own
        n = min(N_GROUPS, missing)
        return [range(n_own + i * missing // n, n_own + (i + 1) * missing // n) for i in range(n)]

    def _audio_block(self, name: str, audio: Audio) -> Array:
        y, n_heads = self._norm(audio.hidden, f"{name}.attn_ln"), self.sizes.n_audio_head
        heard = Audio(y, audio.counts, audio.n_own)
        x = audio.hidden + self._attention(f"{name}.attn", y, heard, n_heads)
        return self._mlp(name, x)

    def _text_block(self, name: str, x: Array, audio: Audio) -> Array:
        n_heads = self.sizes.n_text_head
        y = self._norm(x, f"{name}.attn_ln")
        x = x + self._attention(f"{name}.attn", y, None, n_heads)
        y = self._norm(x, f"{name}.cross_attn_ln")
        return self._mlp(name, x + self._attention(f"{name}.cross_attn", y, audio, n_heads))

    def _mlp(self, name: str, x: Array) -> Array:
        y = _gelu(self._linear(self._norm(x, f"{name}.mlp_ln"), f"{name}.mlp.0"))
        return x + self._linear(y, f"{name}.mlp.2")

    def _attention(self, name: str, x: Array, audio: Audio | None, n_heads: int) -> Array:
        """To the audio, or where there is none to x itself up to each place."""
        source = x if audio is None else audio.hidden
        weights = np.exp(self._scores(name, x, source, n_heads))
        weights = weights * (np.tri(len(x), dtype=np.float32) if audio is None else audio.counts)
        values = self._heads(f"{name}.value", source, n_heads)
        mixed = (weights / weights.sum(-1, keepdims=True)) @ values
        return self._linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), f"{name}.out")

    def _scores(self, name: str, x: Array, source: Array, n_heads: int) -> Array:
        """[n_heads, len(x), len(source)], the highest of each row 0."""
        query = self._heads(f"{name}.query", x, n_heads)
        key = self._heads(f"{name}.key", source, n_heads)
        scores = query @ key.transpose(0, 2, 1) / np.float32(sqrt(query.shape[-1]))
        highest: Array = scores - scores.max(-1, keepdims=True)
        return highest

    def _heads(self, name: str, x: Array, n_heads: int) -> Array:
        return self._linear(x, name).reshape(len(x), n_heads, -1).transpose(1, 0, 2)

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
