"""One query against the keys and values of its slot: the definition, in plain PyTorch.

The Triton kernel of `kernels.py` computes the same on a GPU without copying a key; this is what it
is tested against, and what runs where there is no Triton.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch


class Crowd(NamedTuple):
    """That a query's later positions stand for several each.

    Positions from ``n_own`` ``[n]`` on have ``log_counts`` ``[n]`` float32 added to their scores.
    """

    n_own: torch.Tensor
    log_counts: torch.Tensor


class Attend(Protocol):
    """Softmax attention of single queries over rows of a table."""

    def __call__(
        self,
        queries: torch.Tensor,
        table: torch.Tensor,
        rows: torch.Tensor,
        lengths: torch.Tensor,
        crowd: Crowd | None = None,
    ) -> torch.Tensor:
        """What each query hears, ``[n, heads, head_width]``.

        Args:
            queries: ``[n, heads, head_width]``, not scaled.
            table: keys and values, ``[2, n_rows, heads, longest, head_width]``.
            rows: ``[n]``, which row of the table is a query's.
            lengths: ``[n]``, how many positions of that row it hears, at least 1.
            crowd: where not all of them count once.
        """


def attend(
    queries: torch.Tensor,
    table: torch.Tensor,
    rows: torch.Tensor,
    lengths: torch.Tensor,
    crowd: Crowd | None = None,
) -> torch.Tensor:
    """See `Attend`; copies the rows' keys and values."""
    longest = table.shape[3]
    if table.device.type == "cpu":  # elsewhere asking would make the host wait
        longest = int(lengths.max())
    keys, values = table[:, rows, :, :longest]
    scores = (keys @ queries[..., None])[..., 0].float() * queries.shape[-1] ** -0.5
    positions = torch.arange(longest, device=table.device)
    if crowd is not None:
        many = positions >= crowd.n_own[:, None]  # [n, longest]
        scores = scores + (many * crowd.log_counts[:, None])[:, None]
    hidden = positions >= lengths[:, None]
    weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(-1)
    return (weights.to(values.dtype)[:, :, None] @ values)[:, :, 0]
