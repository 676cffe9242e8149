"""The text decoder: single tokens of any slots in, logits out, keys and values kept in tables.

A pass is a flat list of tokens, each with its slot and its place in the text. Every layer writes
all new keys and values before it reads any, and a token hears those up to its own place: so a
text of many tokens is as many entries of the list, and one token of many slots is the same.

Shapes depend on the number of entries alone: a pass can be recorded and played again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.kv_cache import Tables
from batched_whisper.engines.cuda.model.attention import Attend, Crowd, Keep, Say
from batched_whisper.engines.cuda.model.layers import (
    Layer,
    LayerNorm,
    Perceptron,
    Weights,
    merge,
    owing,
    split,
)
from batched_whisper.engines.cuda.packed_batch import Company
from batched_whisper.engines.merged_padding import Layout
from batched_whisper.models.checkpoint import AlignmentHead
from batched_whisper.models.dimensions import Dimensions

_COLUMNS = 64
"""Rows of logits are whole numbers of so many: libraries have faster products for those."""


@dataclass(frozen=True)
class _Block:
    own_norm: LayerNorm
    own_heads: Layer  # queries, keys and values side by side
    own_out: Layer
    cross_norm: LayerNorm
    cross_queries: Layer
    cross_pair: Layer  # the keys and values of encoded audio
    cross_out: Layer
    perceptron: Perceptron


@dataclass(frozen=True)
class WholeText:
    """A text read in one go: ``logits`` ``[n, n_vocab]``, ``seen`` ``[heads, n, positions]``."""

    logits: torch.Tensor
    seen: torch.Tensor


class Decoder:
    """Runs the decoder over tables.

    Args:
        weights: the checkpoint's.
        sizes: of the model.
        attend: how queries meet the tables.
        keep: how what is heard gets there.
        say: how what is said gets there.
    """

    def __init__(
        self, weights: Weights, sizes: Dimensions, attend: Attend, keep: Keep, say: Say
    ) -> None:
        self.n_vocab = sizes.n_vocab
        self._n_heads = sizes.n_text_head
        self._attend, self._keep, self._say = attend, keep, say
        tokens = weights.tensor("decoder.token_embedding.weight")
        self.n_columns = -(-sizes.n_vocab // _COLUMNS) * _COLUMNS
        """Those of `logits`: the vocabulary, and zeros that make rows of a round length."""
        self._tokens = F.pad(tokens, (0, 0, 0, self.n_columns - sizes.n_vocab))
        self._positions = weights.tensor("decoder.positional_embedding")
        self._blocks: list[_Block] = []
        owed: torch.Tensor | None = None
        for i in range(sizes.n_text_layer):
            block = _block(weights, i, owed)
            self._blocks.append(block)
            for layer in (block.own_out, block.cross_out, block.perceptron.second):
                owed = owing(owed, layer)
        self._norm = weights.layer_norm("decoder.ln", owed)
        self._widens = _widens(weights.device, weights.dtype)

    def hear(self, tables: Tables, hidden: torch.Tensor, company: Company) -> None:
        """Keep what the encoder made of windows, ``hidden`` ``[n_positions, width]``."""
        for i, block in enumerate(self._blocks):
            pair = block.cross_pair(hidden).unflatten(-1, (2, self._n_heads, -1))
            self._keep(pair, company, tables.heard(i))
        tables.lay_out(company)

    def logits(
        self,
        tables: Tables,
        tokens: torch.Tensor,
        slots: torch.Tensor,
        positions: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Logits after each token, into ``out`` ``[n, n_columns]`` float32.

        ``tokens``, ``slots`` and ``positions`` are ``[n]``. Entries of one slot stand at
        different positions, and what lies before them has been fed, or is fed here too.
        """
        x = self._tokens[tokens] + self._positions[positions]
        lengths, contexts = positions + 1, tables.contexts[slots]
        crowd = Crowd(tables.n_own[slots], tables.log_counts[slots])
        for i, block in enumerate(self._blocks):
            own, cross = tables.said(i), tables.heard(i)
            heads = block.own_heads(block.own_norm(x)).unflatten(-1, (3, self._n_heads, -1))
            self._say(heads, own, slots, positions)
            heard = self._attend(heads[:, 0], own, slots, lengths)
            block.own_out.add_to(x, heard.flatten(1))
            queries = block.cross_queries(block.cross_norm(x)).unflatten(-1, (self._n_heads, -1))
            heard = self._attend(queries, cross, slots, contexts, crowd)
            block.cross_out.add_to(x, heard.flatten(1))
            block.perceptron.add_to(x)
        self._project(x, out)

    def whole_text(
        self,
        tables: Tables,
        slot: int,
        laid_out: Layout,
        tokens: torch.Tensor,
        watched: tuple[AlignmentHead, ...],
    ) -> WholeText:
        """Read a text on a slot's audio and look where heads look; the slot's text is untouched.

        Args:
            tables: which are only read.
            slot: whose audio.
            laid_out: what its positions are.
            tokens: ``[n]``.
            watched: the heads of ``seen``, in this order.
        """
        x = self._tokens[tokens] + self._positions[: len(tokens)]
        seen: dict[int, torch.Tensor] = {}
        wanted = {place.layer for place in watched}
        scores = torch.from_numpy(laid_out.scores)[None, None, None].to(x.device, x.dtype)
        for i, block in enumerate(self._blocks):
            parts = block.own_heads(block.own_norm(x))[None].chunk(3, -1)
            queries, keys, values = (split(part, self._n_heads) for part in parts)
            heard = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            block.own_out.add_to(x, merge(heard)[0])
            queries = split(block.cross_queries(block.cross_norm(x))[None], self._n_heads)
            keys, values = tables.sound(i, slot, len(laid_out))
            if i in wanted:
                seen[i] = _weights(queries, keys, scores)[0]
                heard = seen[i].to(values.dtype) @ values
            else:
                heard = F.scaled_dot_product_attention(queries, keys, values, scores)
            block.cross_out.add_to(x, merge(heard)[0])
            block.perceptron.add_to(x)
        heads = [seen[place.layer][place.head] for place in watched]
        logits = torch.empty((len(tokens), self.n_columns), device=x.device)
        self._project(x, logits)
        return WholeText(logits[:, : self.n_vocab], torch.stack(heads))

    def _project(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """Logits in float32, also from 16 bits: rounded to those, near tokens would be equal."""
        normed = self._norm(x)
        if self._widens:
            torch.mm(normed, self._tokens.T, out_dtype=torch.float32, out=out)
        else:
            out.copy_(F.linear(normed, self._tokens))


def _widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of this type can be had in float32 without a pass of their own."""
    if dtype is torch.float32 or device.type != "cuda":
        return False
    some = torch.zeros((16, 16), dtype=dtype, device=device)
    try:
        torch.mm(some, some, out_dtype=torch.float32, out=some.float())
    except (TypeError, RuntimeError):  # PyTorch before 2.8, or a GPU that has none
        return False
    return True


def _weights(queries: torch.Tensor, keys: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Attention after the softmax, ``[batch, heads, n, positions]`` float32."""
    products = (queries @ keys.transpose(-1, -2)).float() * queries.shape[-1] ** -0.5
    return (products + scores).softmax(-1)


def _block(weights: Weights, i: int, owed: torch.Tensor | None) -> _Block:
    name = f"decoder.blocks.{i}"
    own, cross = f"{name}.attn", f"{name}.cross_attn"
    own_out, cross_out = weights.linear(f"{own}.out"), weights.linear(f"{cross}.out")
    after_own = owing(owed, own_out)
    return _Block(
        weights.layer_norm(f"{own}_ln", owed),
        weights.linear(f"{own}.query", f"{own}.key", f"{own}.value"),
        own_out,
        weights.layer_norm(f"{cross}_ln", after_own),
        weights.linear(f"{cross}.query"),
        weights.linear(f"{cross}.key", f"{cross}.value"),
        cross_out,
        weights.perceptron(name, owing(after_own, cross_out)),
    )
