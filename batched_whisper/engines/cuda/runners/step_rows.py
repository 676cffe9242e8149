"""The rows of a step as the tokens of passes, and what those said as the rows' results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from batched_whisper.decoding.rules import NOTHING, Allowed, Course
from batched_whisper.decoding.sampling import Choice
from batched_whisper.engines.cuda.model.decode_inputs import Entry, float_bits
from batched_whisper.engines.cuda.runners.decoder_runner import Answers, Passes, Ranked
from batched_whisper.engines.interface import StepResult, StepRow

MASKS_A_TOKEN = 4
"""Masks that one token of a pass may need: what may follow it, and those of its row's course."""

_UNASKED = Allowed(NOTHING)
_NO_COURSE = Course(NOTHING, NOTHING, NOTHING, range(0), begins=False, latest=0)


class Steps:
    """Runs steps over passes.

    Args:
        passes: the device's.
        eot: the token that ends a text.
    """

    def __init__(self, passes: Passes, eot: int) -> None:
        self._passes = passes
        self._eot = eot

    def start(
        self, rows: Sequence[StepRow], place: int = 0
    ) -> Callable[[], list[StepResult | None]]:
        """Begin; what is returned waits, and gives a result for each row in order.

        None where nothing was asked. ``place`` is that of recorded passes.
        """
        found: dict[int, StepResult] = {}
        n_passes = self._n_passes(rows)
        together, probed = _Together(), dict[int, float]()
        for row, masks in zip(rows, self._masks(rows), strict=True):
            for i in range(len(row.tokens)):
                if len(together) == self._passes.most:
                    self._begin(together, n_passes, place, found, probed)()
                    together = _Together()
                together.add(row, i, masks)
        finish = self._begin(together, n_passes, place, found, probed)

        def finished() -> list[StepResult | None]:
            finish()
            return [found.get(row.slot) for row in rows]

        return finished

    def _n_passes(self, rows: Sequence[StepRow]) -> int:
        """How many go on by themselves: one alone where the host must see a vocabulary."""
        n_tokens = sum(len(row.tokens) for row in rows)
        if n_tokens > self._passes.most or any(row.n_best for row in rows):
            return 1
        return min(self._passes.in_a_row, max((row.n_tokens for row in rows), default=1))

    def _masks(self, rows: Sequence[StepRow]) -> Iterator[tuple[int, ...]]:
        """Of each row the masks' places in the table: for its first token, and its course's."""
        masks = []
        for row in rows:
            first, course = (row.allowed or _UNASKED).mask, row.course or _NO_COURSE
            masks += [first, course.text, course.goes_on, course.no_text]
        return zip(*[iter(self._passes.masks.indices(masks))] * MASKS_A_TOKEN, strict=True)

    def _begin(
        self,
        together: _Together,
        n_passes: int,
        place: int,
        found: dict[int, StepResult],
        probed: dict[int, float],
    ) -> Callable[[], None]:
        """Begin passes; what is returned adds what they said, by slots."""
        if not len(together):
            return lambda: None
        read = self._passes.begin(together.entries, n_passes, len(together.ending), place)

        def finish() -> None:
            answers = read()
            best = self._best(together.ending)
            for place, slot in together.probing:
                probed[slot] = answers[0].probes[place]
            for place, row in enumerate(together.ending):
                if row.allowed is not None or row.probe is not None:
                    choice, *more = self._said(place, answers[: row.n_tokens])
                    found[row.slot] = StepResult(
                        choice.token,
                        choice.logprob,
                        probed.get(row.slot),
                        best.get(place, ()),
                        tuple(more),
                    )

        return finish

    def _said(self, place: int, answers: Sequence[Answers]) -> list[Choice]:
        """What one entry said in one pass after another, up to the end of its text."""
        said = [Choice(answers[0].tokens[place], answers[0].logprobs[place])]
        for before, after in pairwise(answers):
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
        found = self._passes.best(list(asking), most)
        return {
            place: _choices(ranked, row.n_best)
            for (place, row), ranked in zip(asking.items(), found, strict=True)
        }


class _Together:
    """The tokens that one pass is fed, and what is asked of which.

    Those that end a row come first: only they go on in the next pass, which is then as small as it
    can be. (Where a token stands in a pass means nothing, see `decoder`.)
    """

    def __init__(self) -> None:
        self.ending: list[StepRow] = []  # the rows whose last tokens come first, in order
        self._last: list[Entry] = []
        self._before: list[Entry] = []
        self._probing: list[tuple[bool, int, int]] = []  # whether among the last, where, whose

    def __len__(self) -> int:
        return len(self._last) + len(self._before)

    @property
    def entries(self) -> list[Entry]:
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
            into.append(_asking(row, masks))
        else:
            into.append(Entry(row.tokens[i], row.slot, row.position + i, probe=row.probe or 0))


def _asking(row: StepRow, masks: tuple[int, ...]) -> Entry:
    """The last token of a row."""
    allowed, course = row.allowed or _UNASKED, row.course or _NO_COURSE
    span = allowed.timestamps or range(0)
    position = row.position + len(row.tokens) - 1
    first, text, goes_on, no_text = masks
    return Entry(
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
        goes_on,
        no_text,
        course.unfinished.start,
        course.unfinished.stop,
        course.begins,
        course.latest,
    )


def _choices(ranked: Ranked, n_best: int) -> tuple[Choice, ...]:
    return tuple(
        Choice(token, logprob)
        for token, logprob in zip(ranked.tokens[:n_best], ranked.logprobs, strict=False)
        if logprob > -math.inf
    )
