"""Converts the rows of a step to the tokens of passes, and their outputs to results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from batched_whisper.decoding.rules import NO_REQUEST, NOTHING, ConstraintState
from batched_whisper.decoding.sampling import Choice
from batched_whisper.engines.cuda.model.decode_inputs import TokenInput, float_bits
from batched_whisper.engines.cuda.runners.decoder_runner import (
    DecoderRunner,
    PassOutputs,
    RankedTokens,
)
from batched_whisper.engines.interface import StepResult, StepRow

MASKS_PER_TOKEN = 4
"""Masks per row: for its first chosen token, and the three of its constraints."""

_NO_CONSTRAINTS = ConstraintState(
    NOTHING, NOTHING, NOTHING, range(0), opens_segment=False, last_timestamp=0
)


class StepRunner:
    """Runs steps as passes.

    Args:
        passes: runs the passes.
        eot: the end-of-text token.
    """

    def __init__(self, passes: DecoderRunner, eot: int) -> None:
        self._decoder_runner = passes
        self._eot = eot

    def start(
        self, rows: Sequence[StepRow], stream_slot: int = 0
    ) -> Callable[[], list[StepResult | None]]:
        """Start a step; the returned function waits and returns one result per row, in order.

        A result is None if nothing was asked. ``stream_slot`` selects the recorded graphs.
        """
        results: dict[int, StepResult] = {}
        n_passes = self._n_passes(rows)
        builder, probed = _PassBuilder(), dict[int, float]()
        for row, masks in zip(rows, self._masks(rows), strict=True):
            for i in range(len(row.tokens)):
                if len(builder) == self._decoder_runner.max_tokens:
                    self._begin(builder, n_passes, stream_slot, results, probed)()
                    builder = _PassBuilder()
                builder.add(row, i, masks)
        finish = self._begin(builder, n_passes, stream_slot, results, probed)

        def read_results() -> list[StepResult | None]:
            finish()
            return [results.get(row.slot) for row in rows]

        return read_results

    def _n_passes(self, rows: Sequence[StepRow]) -> int:
        """Return the number of passes without the host; 1 if it needs the whole vocabulary."""
        n_tokens = sum(len(row.tokens) for row in rows)
        if n_tokens > self._decoder_runner.max_tokens or any(row.n_best for row in rows):
            return 1
        return min(self._decoder_runner.max_passes, max((row.n_tokens for row in rows), default=1))

    def _masks(self, rows: Sequence[StepRow]) -> Iterator[tuple[int, ...]]:
        """Return each row's indices in the mask table: its first token's, its constraints'."""
        masks = []
        for row in rows:
            first, constraints = (
                (row.allowed or NO_REQUEST).mask,
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
        stream_slot: int,
        results: dict[int, StepResult],
        probed: dict[int, float],
    ) -> Callable[[], None]:
        """Start passes; the returned function adds their results by slot."""
        if not len(builder):
            return lambda: None
        read = self._decoder_runner.begin(
            builder.token_inputs, n_passes, len(builder.last_rows), stream_slot
        )

        def finish() -> None:
            outputs = read()
            best = self._best(builder.last_rows)
            for index, slot in builder.probes:
                probed[slot] = outputs[0].probes[index]
            for index, row in enumerate(builder.last_rows):
                if row.allowed is not None or row.probe is not None:
                    choice, *more = self._row_choices(index, outputs[: row.n_tokens])
                    results[row.slot] = StepResult(
                        choice.token,
                        choice.logprob,
                        probed.get(row.slot),
                        best.get(index, ()),
                        tuple(more),
                    )

        return finish

    def _row_choices(self, index: int, outputs: Sequence[PassOutputs]) -> list[Choice]:
        """Return what one row chose in consecutive passes, up to the end of its text."""
        choices = [Choice(outputs[0].tokens[index], outputs[0].logprobs[index])]
        for before, after in pairwise(outputs):
            if before.tokens[index] == self._eot:
                break
            choices.append(Choice(after.tokens[index], after.logprobs[index]))
        return choices

    def _best(self, last_rows: Sequence[StepRow]) -> dict[int, tuple[Choice, ...]]:
        """Return the best tokens of the rows that ask for them, by their index in the pass."""
        ranked_rows = {
            index: row for index, row in enumerate(last_rows) if row.n_best and row.allowed
        }
        if not ranked_rows:
            return {}
        most = max(row.n_best for row in ranked_rows.values())
        results = self._decoder_runner.best(list(ranked_rows), most)
        return {
            index: _choices(ranked, row.n_best)
            for (index, row), ranked in zip(ranked_rows.items(), results, strict=True)
        }


class _PassBuilder:
    """Collects the tokens of one pass and what is asked after which.

    Last tokens of rows come first: only they continue in the next pass, which is then as small as
    possible. (The order of tokens in a pass does not affect its results, see `decoder`.)
    """

    def __init__(self) -> None:
        self.last_rows: list[StepRow] = []  # the rows of the last tokens, in order
        self._last_inputs: list[TokenInput] = []
        self._other_inputs: list[TokenInput] = []
        self._probes: list[tuple[bool, int, int]] = []  # is a last token, index, slot

    def __len__(self) -> int:
        return len(self._last_inputs) + len(self._other_inputs)

    @property
    def token_inputs(self) -> list[TokenInput]:
        """All inputs, in the order of the pass."""
        return self._last_inputs + self._other_inputs

    @property
    def probes(self) -> list[tuple[int, int]]:
        """The index of each probed token in the pass, and its slot."""
        n_last = len(self._last_inputs)
        return [(i if is_last else n_last + i, slot) for is_last, i, slot in self._probes]

    def add(self, row: StepRow, i: int, masks: tuple[int, ...]) -> None:
        """Add the row's token number ``i``; ``masks`` are the row's indices in the mask table."""
        n_tokens = len(row.tokens)
        is_last = i == n_tokens - 1
        into = self._last_inputs if is_last else self._other_inputs
        if row.probe is not None and i == (n_tokens - 1 if row.probe_at is None else row.probe_at):
            self._probes.append((is_last, len(into), row.slot))
        if is_last:
            self.last_rows.append(row)
            into.append(_last_token_input(row, masks))
        else:
            into.append(TokenInput(row.tokens[i], row.slot, row.position + i, probe=row.probe or 0))


def _last_token_input(row: StepRow, masks: tuple[int, ...]) -> TokenInput:
    """Return the inputs of a row's last token."""
    allowed, constraints = row.allowed or NO_REQUEST, row.constraints or _NO_CONSTRAINTS
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
