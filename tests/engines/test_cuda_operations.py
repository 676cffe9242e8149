"""Kernels are used where they work, and are tried out first."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda import operations  # noqa: E402
from batched_whisper.engines.cuda.operations import (  # noqa: E402
    PLAIN,
    best_operations,
    those_that_work,
    try_out,
)

CPU = torch.device("cpu")


def test_the_processor_has_no_kernels() -> None:
    assert best_operations(CPU, torch.float32, 64) is PLAIN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_definitions_pass_their_own_trial(dtype: torch.dtype) -> None:
    try_out(PLAIN, CPU, dtype, 64)


def too_much(queries, table, rows, lengths, crowd=None):  # type: ignore[no-untyped-def]
    longest = table.numbers.shape[3]
    return PLAIN.attend(queries, table, rows, (lengths + 9).clamp(max=longest), crowd)


def once(queries, table, rows, lengths, crowd=None):  # type: ignore[no-untyped-def]
    return PLAIN.attend(queries, table, rows, lengths)


def all_windows(heads, company):  # type: ignore[no-untyped-def]
    """Hears beyond the window."""
    longer = company.lengths + (company.lengths > 0).int()
    return PLAIN.listen(heads, replace(company, lengths=longer))


def everywhere_alike(pair, company, table):  # type: ignore[no-untyped-def]
    """Keeps all in the first slot."""
    PLAIN.keep(pair, replace(company, slots=company.slots * 0), table)


def at_the_next(heads, table, rows, positions):  # type: ignore[no-untyped-def]
    PLAIN.say(heads, table, rows, positions + 1)


def without_owed(x, weight, bias, owed):  # type: ignore[no-untyped-def]
    return PLAIN.normalise(x, weight, bias, None)


def off_by(amount: float):  # type: ignore[no-untyped-def]
    return lambda logits, hidden, feed: PLAIN.choose(logits, hidden, feed) + amount


WRONG = {
    "hears too much": {"attend": too_much},
    "counts everything once": {"attend": once},
    "hears the next window": {"listen": all_windows},
    "keeps windows elsewhere": {"keep": everywhere_alike},
    "says it too late": {"say": at_the_next},
    "forgets what is owed": {"normalise": without_owed},
    "chooses wrongly": {"choose": off_by(1)},
    "gives no number": {"choose": off_by(float("nan"))},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_is_wrong_does_not(name: str) -> None:
    with pytest.raises(ValueError, match="off by"):
        try_out(replace(PLAIN, **WRONG[name]), CPU, torch.float32, 64)


def test_every_operation_is_tried() -> None:
    """Each trial alone fails where its operation does nothing right."""
    fields = {field for changes in WRONG.values() for field in changes}
    assert fields == {"attend", "listen", "keep", "say", "normalise", "choose"}
    assert fields | {"why"} == set(operations.Operations.__dataclass_fields__)


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_does_not_work_is_left_out_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others, which are told from the definitions by nothing but their identity, stay."""
    others = {field: lambda *a, f=f: f(*a) for field, f in vars(PLAIN).items() if field != "why"}
    [(broken, wrong)] = WRONG[name].items()
    kernels = replace(PLAIN, **{**others, broken: wrong}, why="kernels")
    found = those_that_work(kernels, CPU, torch.float32, 64)
    for field, other in others.items():
        assert getattr(found, field) is (getattr(PLAIN, field) if field == broken else other)
    assert found.why.startswith(f"slower in plain PyTorch: {broken} (their numbers are off by")
    assert caplog.messages == [f"slower than this GPU could be, in plain PyTorch: {found.why[25:]}"]


def test_where_no_kernel_works_the_reason_is_told_once() -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    kernels = replace(PLAIN, **{field: broken for field in vars(PLAIN) if field != "why"})
    found = those_that_work(kernels, CPU, torch.float32, 64)
    assert replace(found, why=PLAIN.why) == PLAIN
    assert found.why == (
        "slower in plain PyTorch: attend, listen, keep, say, normalise, choose "
        "(Failed to find C compiler. Please specify one)"
    )


def test_kernels_that_work_all_stay() -> None:
    kernels = replace(PLAIN, why="kernels")
    assert those_that_work(kernels, CPU, torch.float32, 64) is kernels
