"""Kernels are used where they work, and are tried out first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import IDS, tiny_checkpoint  # noqa: E402

from batched_whisper.engines.cuda import engine  # noqa: E402
from batched_whisper.engines.cuda.cuda_graphs import Place  # noqa: E402
from batched_whisper.engines.cuda.kernels import dispatch  # noqa: E402
from batched_whisper.engines.cuda.kernels.dispatch import (  # noqa: E402
    PLAIN,
    Heads,
    best_operations,
    those_that_work,
    try_out,
)
from batched_whisper.engines.cuda.kv_cache import Kept  # noqa: E402
from batched_whisper.engines.cuda.model import attention  # noqa: E402
from batched_whisper.engines.cuda.model.attention import Crowd  # noqa: E402
from batched_whisper.engines.cuda.runners.encoder_runner import Encodings  # noqa: E402
from batched_whisper.engines.cuda.streams import Streams  # noqa: E402
from batched_whisper.errors import EngineError  # noqa: E402

CPU = torch.device("cpu")
HEADS = Heads(3, 64)


def test_the_processor_has_no_kernels() -> None:
    assert best_operations(CPU, torch.float32, HEADS) is PLAIN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_definitions_pass_their_own_trial(dtype: torch.dtype) -> None:
    try_out(PLAIN, CPU, dtype, HEADS)


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
        try_out(replace(PLAIN, **WRONG[name]), CPU, torch.float32, HEADS)


def test_every_operation_is_tried() -> None:
    """Each trial alone fails where its operation does nothing right."""
    fields = {field for changes in WRONG.values() for field in changes}
    assert fields == {"attend", "listen", "keep", "say", "normalise", "choose"}
    assert fields | {"why"} == set(dispatch.Operations.__dataclass_fields__)


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_does_not_work_is_left_out_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others, which are told from the definitions by nothing but their identity, stay."""
    others = {field: lambda *a, f=f: f(*a) for field, f in vars(PLAIN).items() if field != "why"}
    [(broken, wrong)] = WRONG[name].items()
    kernels = replace(PLAIN, **{**others, broken: wrong}, why="kernels")
    found = those_that_work(kernels, CPU, torch.float32, HEADS)
    for field, other in others.items():
        assert getattr(found, field) is (getattr(PLAIN, field) if field == broken else other)
    assert found.why.startswith(f"slower in plain PyTorch: {broken} (their numbers are off by")
    assert caplog.messages == [f"slower than this GPU could be, in plain PyTorch: {found.why[25:]}"]


def test_where_no_kernel_works_the_reason_is_told_once() -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    kernels = replace(PLAIN, **{field: broken for field in vars(PLAIN) if field != "why"})
    found = those_that_work(kernels, CPU, torch.float32, HEADS)
    assert replace(found, why=PLAIN.why) == PLAIN
    assert found.why == (
        "slower in plain PyTorch: attend, listen, keep, say, normalise, choose "
        "(Failed to find C compiler. Please specify one)"
    )


def test_kernels_that_work_all_stay() -> None:
    kernels = replace(PLAIN, why="kernels")
    assert those_that_work(kernels, CPU, torch.float32, HEADS) is kernels


def test_what_needs_newer_matrix_units_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it works, but slower than PyTorch's own."""
    tried = []
    kernels = replace(PLAIN, listen=lambda *given: tried.append(given), why="kernels")
    monkeypatch.setattr(dispatch, "by_kernels", lambda: kernels)
    monkeypatch.setattr(dispatch, "find_spec", lambda name: name)
    monkeypatch.setattr(dispatch, "try_out", lambda *given: None)
    for capability, listen in (((7, 5), PLAIN.listen), ((8, 0), kernels.listen)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        found = best_operations(torch.device("cuda", 0), torch.float16, HEADS)
        assert found.listen is listen
        assert ("listen (Triton knows" in found.why) == (capability < (8, 0))
    assert not tried


@pytest.mark.parametrize("of_crowds", [False, True])
def test_many_rows_hear_what_each_hears_alone(
    of_crowds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "ROWS_COPIED", 4)
    n, random = 11, torch.Generator().manual_seed(0)
    queries = torch.randn((n, 2, 8), generator=random)
    table = Kept(torch.randn((2, 5, 2, 30, 8), generator=random))
    rows, lengths = torch.arange(n) % 5, torch.arange(1, n + 1)
    crowd = Crowd(lengths // 2, torch.rand(n, generator=random)) if of_crowds else None
    found = attention.attend(queries, table, rows, lengths, crowd)
    for i in range(n):
        own = None if crowd is None else Crowd(*(each[i : i + 1] for each in crowd))
        one = slice(i, i + 1)
        alone = attention.attend(queries[one], table, rows[one], lengths[one], own)
        assert torch.allclose(found[one], alone, atol=1e-6)


def test_where_the_host_looks_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def recorded(*given: Any, **options: Any) -> Encodings:
        places.append(options.pop("places"))
        return Encodings(*given, **options)

    class Placed(Streams):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.encoding = [Place("a stream")]

    monkeypatch.setattr(engine, "Encodings", recorded)
    monkeypatch.setattr(engine, "Streams", Placed)
    for listen in (PLAIN.listen, lambda *given: PLAIN.listen(*given)):
        chosen = replace(PLAIN, listen=listen)
        monkeypatch.setattr(engine, "best_operations", lambda *given, c=chosen: c)
        engine.CudaEngine(tiny_checkpoint(), IDS, max_slots=1, device="cpu")
    assert places == [(), [Place("a stream")]]


def test_what_fails_before_anything_is_loaded_is_an_engine_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(*given: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    monkeypatch.setattr(engine, "Streams", busy)
    with pytest.raises(EngineError, match="PyTorch failed on cpu while starting: CUDA error: all"):
        engine.CudaEngine(tiny_checkpoint(), IDS, max_slots=1, device="cpu")
