"""One pass over the decoder: numbers in, a few numbers a row out.

On a GPU the pass is recorded once for each of a few sizes, as a CUDA graph, and played again: a
thousand small kernels are then one launch. Fewer tokens than a recorded size are filled up with
tokens that are nobody's. Elsewhere it just runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from batched_whisper.engines.cuda.choosing import N_ANSWERS, Choose, MaskTable, best_tokens
from batched_whisper.engines.cuda.decoder import Decoder
from batched_whisper.engines.cuda.feed import Entry, Feed, Field
from batched_whisper.engines.cuda.tables import Tables

WARM_UPS = 2
"""Runs before recording: libraries take their workspaces, kernels are compiled."""


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
    logits: torch.Tensor  # [n, n_vocab] float32 on the device, until the next pass


@dataclass(frozen=True)
class Ranked:
    """Tokens, the best first, and their log-probabilities: -inf for what is not allowed."""

    tokens: list[int]
    logprobs: list[float]


class Passes:
    """Runs passes of up to ``most`` tokens.

    Args:
        decoder: runs over the tables.
        choose: says what is chosen of the logits.
        tables: the slots'.
        masks: the token masks'.
        most: the most tokens of a pass.
        record: whether to record CUDA graphs.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        tables: Tables,
        masks: MaskTable,
        *,
        most: int,
        record: bool,
    ) -> None:
        device = tables.cross.device
        self.most = most
        self._decoder, self._choose = decoder, choose
        self.tables, self.masks = tables, masks
        self._feed = Feed(most, device, Entry(token=0, slot=tables.nobody, position=0))
        self._answers = torch.zeros((N_ANSWERS, most), device=device)
        self._pinned = device.type == "cuda"
        self._told = torch.zeros((N_ANSWERS, most), pin_memory=self._pinned)
        # One for all recorded sizes: each would keep its own.
        self._logits = torch.zeros((most, decoder.n_vocab), device=device)
        self._sizes = recorded_sizes(most)
        self._recorded: dict[int, Any] = {}  # size -> CUDA graph
        self.why = "steps are not recorded"
        if record:
            self._try_to_record()

    def run(self, entries: Sequence[Entry]) -> Answers:
        """One pass, waited for."""
        n, size = len(entries), self.size(len(entries))
        self._feed.send(entries, size)
        logits = self.play(size)
        self._told.copy_(self._answers, non_blocking=True)  # all: a part would be copied twice
        if self._pinned:
            torch.cuda.current_stream().synchronize()
        tokens, logprobs, probes = self._told[:, :n].tolist()
        return Answers([int(token) for token in tokens], logprobs, probes, logits)

    def best(self, answers: Answers, places: Sequence[int], n_best: int) -> list[Ranked]:
        """The best tokens of some entries of the pass that was run last."""
        rows = torch.tensor(places, device=answers.logits.device)
        feed = self._feed.read(len(answers.logits))[:, rows]
        found = best_tokens(answers.logits[rows], self.masks.hidden, feed, n_best)
        tokens, logprobs = found.tolist()
        return [
            Ranked([int(token) for token in best], likely)
            for best, likely in zip(tokens, logprobs, strict=True)
        ]

    def play(self, size: int) -> torch.Tensor:
        """The device's part of a pass of that size, on what was fed last; gives its logits."""
        recorded = self._recorded.get(size)
        if recorded is None:
            self._compute(size)
        else:
            recorded.replay()
        return self._logits[:size]

    def size(self, n: int) -> int:
        """The smallest recorded size that holds so many; just so many where none is."""
        if not self._recorded:
            return n
        return next(size for size in self._sizes if size >= n)

    def _compute(self, size: int) -> None:
        feed = self._feed.read(size)
        tokens, slots, positions = feed[Field.TOKEN], feed[Field.SLOT], feed[Field.POSITION]
        logits = self._logits[:size]
        self._decoder.logits(self.tables, tokens, slots, positions, logits)
        self._answers[:, :size].copy_(self._choose(logits, self.masks.hidden, feed))

    def _try_to_record(self) -> None:
        """Without recordings a step is slower, and as right. Raises torch.OutOfMemoryError."""
        try:
            self._record()
            self.why = f"steps are recorded as CUDA graphs for {len(self._sizes)} sizes"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._recorded.clear()
            reason = " ".join(str(error).split())[:200]
            self.why = f"steps are slower, because they cannot be recorded: {reason}"

    def _record(self) -> None:
        """The largest first: the smaller ones then find their memory in its pool.

        On a stream of this device. PyTorch's own for recording is one for the whole process, on
        the device that recorded first: what another device does would not be in the recording.
        """
        pool, stream = None, torch.cuda.Stream(self.tables.cross.device)
        for size in reversed(self._sizes):
            graph = record(partial(self._compute, size), pool, stream)
            self._recorded[size], pool = graph, graph.pool()


def record(compute: Callable[[], None], pool: Any, stream: Any) -> Any:
    """A CUDA graph of what is computed, with its memory in a pool that recordings share.

    They may, because nothing that they leave behind lies there, and no two of them run at once.
    They share the stream too, which is of the current device. In a process one graph may be
    recorded at a time; what other threads do meanwhile, another model's engine say, is their own
    affair (by the default it would break the recording off).
    """
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        compute()
    return graph
