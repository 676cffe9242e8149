"""Passes over the decoder: numbers in, a few numbers a row out.

One pass may follow another without the host, which reads what they said when the last is done. On
a GPU a pass is recorded once for each of a few sizes, as a CUDA graph. Fewer tokens than a recorded
size are filled up with tokens that are nobody's. Elsewhere it just runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.cuda.cuda_graphs import Place, Recordings, try_to_record, waited_for
from batched_whisper.engines.cuda.kv_cache import Tables
from batched_whisper.engines.cuda.model.decode_inputs import Entry, Feed, Field, next_feed
from batched_whisper.engines.cuda.model.decoder import Decoder
from batched_whisper.engines.cuda.model.token_choice import (
    N_ANSWERS,
    Choose,
    MaskTable,
    best_tokens,
)


def recorded_sizes(most: int) -> list[int]:
    """Powers of two and, from 16 on, what lies halfway between them; up to ``most``."""
    powers = [2**i for i in range(most.bit_length() + 1)]
    sizes = sorted(powers + [size * 3 // 2 for size in powers if size >= 16])
    return [size for size in sizes if size < most] + [most]


@dataclass(frozen=True)
class Answers:
    """What a pass said: of each entry token, log-probability and the probe's probability."""

    tokens: list[int]
    logprobs: list[float]
    probes: list[float]


@dataclass(frozen=True)
class Ranked:
    """Tokens, the best first, and their log-probabilities: -inf for what is not allowed."""

    tokens: list[int]
    logprobs: list[float]


class _OnDevice:
    """What the device does, on memory that stays where it is.

    It knows nothing of how it is recorded: of two that know each other neither is gone, nor its
    memory, when nobody needs them any more.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        tables: Tables,
        masks: MaskTable,
        ids: TokenIds,
        feed: Feed,
        most: int,
    ) -> None:
        device = tables.cross.device
        self._decoder, self._choose = decoder, choose
        self._tables, self._masks, self._ids, self._feed = tables, masks, ids, feed
        self._most = most
        self.answers = torch.zeros((N_ANSWERS, most), device=device)
        # One for all recorded sizes: each would keep its own.
        self._logits = torch.zeros((most, decoder.n_columns), device=device)

    def run(self, size: int) -> None:
        """A pass of so many tokens, which were fed."""
        feed = self._feed.read(size)
        tokens, slots, positions = feed[Field.TOKEN], feed[Field.SLOT], feed[Field.POSITION]
        logits = self._logits[:size]
        self._decoder.logits(self._tables, tokens, slots, positions, logits)
        chosen = self._choose(logits[:, : self._decoder.n_vocab], self._masks.hidden, feed)
        self.answers[:, :size].copy_(chosen)

    def go_on(self, size: int) -> None:
        """Feed the next pass with what was chosen."""
        feed, chosen = self._feed.read(size), self.answers[0, :size].long()
        feed.copy_(next_feed(feed, chosen, self._ids, self._feed.idle))

    def best(self, places: torch.Tensor, n_best: int) -> torch.Tensor:
        """The best tokens of some places of the last pass, see `token_choice.best_tokens`."""
        feed = self._feed.read(self._most)[:, places]
        logits = self._logits[places, : self._decoder.n_vocab]
        return best_tokens(logits, self._masks.hidden, feed, n_best)


class Passes:
    """Runs passes of up to ``most`` tokens.

    Args:
        decoder: runs over the tables.
        choose: says what is chosen of the logits.
        tables: the slots'.
        masks: the token masks'.
        ids: the special tokens.
        most: the most tokens of a pass.
        in_a_row: the most passes without the host.
        places: where to record CUDA graphs.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        tables: Tables,
        masks: MaskTable,
        ids: TokenIds,
        *,
        most: int,
        in_a_row: int,
        places: Sequence[Place] = (),
    ) -> None:
        device = tables.cross.device
        self.most, self.in_a_row = most, in_a_row
        self.tables, self.masks = tables, masks
        self._feed = Feed(most, device, Entry(token=0, slot=tables.nobody, position=0))
        self._on_device = _OnDevice(decoder, choose, tables, masks, ids, self._feed, most)
        on_gpu = device.type == "cuda"
        self._told = torch.zeros((in_a_row, N_ANSWERS, most), pin_memory=on_gpu)
        self._done = waited_for() if on_gpu else None
        self.recordings = Recordings(self._on_device.run, recorded_sizes(most))
        """The device's part of a pass, on what was fed last, by its number of tokens."""
        self._between = Recordings(self._on_device.go_on, [most])
        self.why = "stepping is not recorded"
        if places:
            self.record(places)

    def run(self, entries: Sequence[Entry], n_passes: int = 1) -> list[Answers]:
        """`begin` and `read`."""
        return self.begin(entries, n_passes, len(entries))()

    def begin(
        self, entries: Sequence[Entry], n_passes: int, n_asking: int, place: int = 0
    ) -> Callable[[], list[Answers]]:
        """Passes one after another; what is returned waits for them, and tells what each said.

        The first is fed the entries, and each other one what was chosen in the one before for the
        first ``n_asking`` of them. What is told of an entry that has come to its end means nothing.
        No passes may begin before these are read. ``place`` is that of a recording.
        """
        size = self.recordings.size(len(entries))
        self._feed.send(entries, size)
        for i in range(n_passes):
            if i:
                self._between.play(self.most, place)
                size = self.recordings.size(n_asking)
            self.recordings.play(size, place)
            # All of it: a part would be copied twice.
            self._told[i].copy_(self._on_device.answers, non_blocking=True)
        if self._done is not None:
            self._done.record()
        return partial(self._read, n_passes, len(entries))

    def _read(self, n_passes: int, n: int) -> list[Answers]:
        if self._done is not None:
            self._done.synchronize()
        return [
            Answers([int(token) for token in tokens], logprobs, probes)
            for tokens, logprobs, probes in self._told[:n_passes, :, :n].tolist()
        ]

    def best(self, places: Sequence[int], n_best: int) -> list[Ranked]:
        """The best tokens of some entries of a pass that was just run, alone."""
        found = self._on_device.best(torch.tensor(places, device=self.tables.own.device), n_best)
        tokens, logprobs = found.tolist()
        return [
            Ranked([int(token) for token in best], likely)
            for best, likely in zip(tokens, logprobs, strict=True)
        ]

    def record(self, places: Sequence[Place]) -> None:
        """As CUDA graphs, if that can be. Raises torch.OutOfMemoryError."""
        self.why = try_to_record("stepping", (self.recordings, self._between), places)
