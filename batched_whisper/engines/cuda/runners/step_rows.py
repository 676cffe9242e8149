"""The rows of a step as the tokens of passes, and what those said as the rows' results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from batched_whisper.decoding.rules import NOTHING, Allowed, ConstraintState
from batched_whisper.decoding.sampling import Choice
from batched_whisper.engines.cuda.model.decode_inputs import TokenInput, float_bits
from batched_whisper.engines.cuda.runners.decoder_runner import (
    DecoderRunner,
    PassOutputs,
    RankedTokens,
)
from batched_whisper.engines.interface import StepResult, StepRow

MASKS_PER_TOKEN = 4
"""Masks that one token of a pass may need: what may follow it, and those of its row's constraints."""

_NO_REQUEST = Allowed(NOTHING)
_NO_CONSTRAINTS = ConstraintState(
    NOTHING, NOTHING, NOTHING, range(0), opens_segment=False, last_timestamp=0
)


class StepRunner:
    """Runs steps over passes.

    Args:
        passes: the device's.
        eot: the token that ends a text.
    """

    def __init__(self, passes: DecoderRunner, eot: int) -> None:
        self._decoder_runner = passes
        self._eot = eot

    def start(
        self, rows: Sequence[StepRow], place: int = 0
    ) -> Callable[[], list[StepResult | None]]:
        """Begin; what is returned waits, and gives a result for each row in order.

        None where nothing was asked. ``place`` is that of recorded passes.
        """
        found: dict[int, StepResult] = {}
        n_passes = self._n_passes(rows)
        builder, probed = _PassBuilder(), dict[int, float]()
        for row, masks in zip(rows, self._masks(rows), strict=True):
            for i in range(len(row.tokens)):
                if len(builder) == self._decoder_runner.most:
                    self._begin(builder, n_passes, place, found, probed)()
                    builder = _PassBuilder()
                builder.add(row, i, masks)
        finish = self._begin(builder, n_passes, place, found, probed)

        def finished() -> list[StepResult | None]:
            finish()
            return [found.get(row.slot) for row in rows]

        return finished

    def _n_passes(self, rows: Sequence[StepRow]) -> int:
        """How many go on by themselves: one alone where the host must see a vocabulary."""
        n_tokens = sum(len(row.tokens) for row in rows)
        if n_tokens > self._decoder_runner.most or any(row.n_best for row in rows):
            return 1
        return min(self._decoder_runner.max_passes, max((row.n_tokens for row in rows), default=1))

    def _masks(self, rows: Sequence[StepRow]) -> Iterator[tuple[int, ...]]:
        """Of each row the masks' places in the table: for its first token, and its constraints's."""
        masks = []
        for row in rows:
            first, constraints = (
                (row.allowed or _NO_REQUEST).mask,
                row.constraints or _NO_CONSTRAINTS,
            )
            masks += [
                first,
                constraints.text_mask,
                constraints.unfinished_mask,
                constraints.segment_end_mask,
            ]
        return zip(
            *[iter(self._decoder_runner.masks.indices(masks))] * MASKS_PER_TOKEN, strict=True
        )

    def _begin(
        self,
        builder: _PassBuilder,
        n_passes: int,
        place: int,
        found: dict[int, StepResult],
        probed: dict[int, float],
    ) -> Callable[[], None]:
        """Begin passes; what is returned adds what they said, by slots."""
        if not len(builder):
            return lambda: None
        read = self._decoder_runner.begin(
            builder.token_inputs, n_passes, len(builder.ending), place
        )

        def finish() -> None:
            outputs = read()
            best = self._best(builder.ending)
            for place, slot in builder.probing:
                probed[slot] = outputs[0].probes[place]
            for place, row in enumerate(builder.ending):
                if row.allowed is not None or row.probe is not None:
                    choice, *more = self._row_choices(place, outputs[: row.n_tokens])
                    found[row.slot] = StepResult(
                        choice.token,
                        choice.logprob,
                        probed.get(row.slot),
                        best.get(place, ()),
                        tuple(more),
                    )

        return finish

    def _row_choices(self, place: int, outputs: Sequence[PassOutputs]) -> list[Choice]:
        """What one token_input said in one pass after another, up to the end of its text."""
        said = [Choice(outputs[0].tokens[place], outputs[0].logprobs[place])]
        for before, after in pairwise(outputs):
            if before.tokens[place] == self._eot:
                break
            said.append(Choice(after.tokens[place], after.logprobs[place]))
        return said

    def _best(self, ending: Sequence[StepRow]) -> dict[int, tuple[Choice, ...]]:
        """The best tokens of the rows that want them, by their place in the pass."""
        asking = {place: row for place, row in enumerate(ending) if row.n_best and row.allowed}
        if not asking:
            return {}
        most = max(row.n_best for row in asking.values())
        found = self._decoder_runner.best(list(asking), most)
        return {
            place: _choices(ranked, row.n_best)
            for (place, row), ranked in zip(asking.items(), found, strict=True)
        }


class _PassBuilder:
    """The tokens that one pass is fed, and what is asked of which.

    Those that end a row come first: only they go on in the next pass, which is then as small as it
    can be. (Where a token stands in a pass means nothing, see `decoder`.)
    """

    def __init__(self) -> None:
        self.ending: list[StepRow] = []  # the rows whose last tokens come first, in order
        self._last: list[TokenInput] = []
        self._before: list[TokenInput] = []
        self._probing: list[tuple[bool, int, int]] = []  # whether among the last, where, whose

    def __len__(self) -> int:
        return len(self._last) + len(self._before)

    @property
    def token_inputs(self) -> list[TokenInput]:
        """All of them, in the order of the pass."""
        return self._last + self._before

    @property
    def probing(self) -> list[tuple[int, int]]:
        """Where in the pass a probe is asked, and of which slot."""
        n_last = len(self._last)
        return [(i if is_last else n_last + i, slot) for is_last, i, slot in self._probing]

    def add(self, row: StepRow, i: int, masks: tuple[int, ...]) -> None:
        """The row's token number ``i``; its masks by their places in the table."""
        n_tokens = len(row.tokens)
        is_last = i == n_tokens - 1
        into = self._last if is_last else self._before
        if row.probe is not None and i == (n_tokens - 1 if row.probe_at is None else row.probe_at):
            self._probing.append((is_last, len(into), row.slot))
        if is_last:
            self.ending.append(row)
            into.append(_last_token_input(row, masks))
        else:
            into.append(TokenInput(row.tokens[i], row.slot, row.position + i, probe=row.probe or 0))


def _last_token_input(row: StepRow, masks: tuple[int, ...]) -> TokenInput:
    """The last token of a row."""
    allowed, constraints = row.allowed or _NO_REQUEST, row.constraints or _NO_CONSTRAINTS
    span = allowed.timestamps or range(0)
    position = row.position + len(row.tokens) - 1
    first, text, unfinished_mask, segment_end_mask = masks
    return TokenInput(
        row.tokens[-1],
        row.slot,
        position,
        first,
        span.start,
        span.stop,
        row.probe or 0,
        float_bits(row.sampling.temperature),
        row.sampling.stream,
        position + row.n_tokens,
        text,
        unfinished_mask,
        segment_end_mask,
        constraints.unfinished_range.start,
        constraints.unfinished_range.stop,
        constraints.opens_segment,
        constraints.last_timestamp,
    )


def _choices(ranked: RankedTokens, n_best: int) -> tuple[Choice, ...]:
    return tuple(
        Choice(token, logprob)
        for token, logprob in zip(ranked.tokens[:n_best], ranked.logprobs, strict=False)
        if logprob > -math.inf
    )
