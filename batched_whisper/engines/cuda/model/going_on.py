"""From one pass to the next without the host: what was chosen is fed, by `rules.Course`.

Whoever said the end of the text, or as much as was asked for, becomes nobody. The definition is
`Course.after`; here it is done for all rows at once, on the numbers that a pass was fed.
"""

from __future__ import annotations

import torch

from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.cuda.model.decode_inputs import Field


def next_feed(
    feed: torch.Tensor, chosen: torch.Tensor, ids: TokenIds, idle: torch.Tensor
) -> torch.Tensor:
    """The numbers of the next pass.

    Args:
        feed: what the last pass was fed, ``[fields, n]``.
        chosen: its tokens, ``[n]``.
        ids: the special tokens.
        idle: the numbers of nobody's token, ``[fields, 1]``.
    """
    position = feed[Field.POSITION] + 1
    is_time = chosen >= ids.timestamp_begin
    opens = is_time & (feed[Field.BEGINS] != 0)
    latest = torch.where(is_time, torch.maximum(feed[Field.LATEST], chosen), feed[Field.LATEST])
    first = torch.where(is_time, latest, latest + 1)
    after = feed.clone()
    after[Field.TOKEN] = chosen
    after[Field.POSITION] = position
    after[Field.MASK] = torch.where(
        opens & _leaves_sound(feed, chosen, ids),
        feed[Field.GOES_ON],
        torch.where(is_time & ~opens, feed[Field.NO_TEXT], feed[Field.TEXT]),
    )
    after[Field.TIME_FIRST] = first.masked_fill(opens, 0)
    after[Field.TIME_STOP] = torch.full_like(first, ids.n_vocab).masked_fill(opens, 0)
    after[Field.BEGINS] = is_time.long()
    after[Field.LATEST] = latest
    goes_on = (chosen != ids.eot) & (position < feed[Field.END])
    return torch.where(goes_on, after, idle)


def _leaves_sound(feed: torch.Tensor, chosen: torch.Tensor, ids: TokenIds) -> torch.Tensor:
    """Whether a segment that begins at a time leaves sound without text; never the first one."""
    inside = (chosen >= feed[Field.UNFINISHED_FIRST]) & (chosen < feed[Field.UNFINISHED_STOP])
    return inside & (feed[Field.LATEST] >= ids.timestamp_begin)
