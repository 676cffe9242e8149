"""Splitting a GPU: the calls of the driver, and what happens if it cannot."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from itertools import combinations
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from batched_whisper.engines.cuda.sm_partition import split_gpu  # noqa: E402
from batched_whisper.engines.cuda.streams import EXCLUSIVE, SHARED, STEP_PRIORITY, Streams  # noqa: E402

GPU = torch.device("cuda", 1)
N_MULTIPROCESSORS = 132


class PretendDriver(ModuleType):
    """A fake of NVIDIA's bindings as far as they are used; ``broken`` names the call that fails."""

    class CUresult:
        CUDA_SUCCESS = SimpleNamespace(name="CUDA_SUCCESS")
        CUDA_ERROR_NOT_SUPPORTED = SimpleNamespace(name="CUDA_ERROR_NOT_SUPPORTED")

    class CUdevResourceType:
        CU_DEV_RESOURCE_TYPE_SM = "multiprocessors"

    def __init__(self, broken: str = "") -> None:
        super().__init__("driver")
        self._broken = broken
        self.cuDeviceGet = self._answer("cuDeviceGet", lambda number: number)
        self.cuDeviceGetDevResource = self._answer(
            "cuDeviceGetDevResource", lambda gpu, kind: some(N_MULTIPROCESSORS)
        )
        self.cuDevSmResourceSplitByCount = self._answer("cuDevSmResourceSplitByCount", split)
        self.cuDevResourceGenerateDesc = self._answer(
            "cuDevResourceGenerateDesc", lambda resources, n: resources
        )
        self.cuGreenCtxCreate = self._answer(
            "cuGreenCtxCreate", lambda description, gpu, flags: (description[0], gpu)
        )
        self.cuGreenCtxStreamCreate = self._answer(
            "cuGreenCtxStreamCreate",
            lambda context, flags, priority: 1000 * context[0].sm.smCount + priority,
        )

    def _answer(self, name: str, answer: Any) -> Any:
        def call(*given: Any) -> tuple[Any, ...]:
            if name == self._broken:
                return self.CUresult.CUDA_ERROR_NOT_SUPPORTED, None
            found = answer(*given)
            return self.CUresult.CUDA_SUCCESS, *(found if name.endswith("Count") else [found])

        return call


def some(n: int) -> Any:
    return SimpleNamespace(sm=SimpleNamespace(smCount=n))


def split(n_groups: int, everything: Any, flags: int, least: int) -> Any:
    """Round up to a multiple of eight, as the driver does."""
    first = -(-least // 8) * 8
    return [some(first)], n_groups, some(everything.sm.smCount - first)


class PretendStream:
    def __init__(self, device: Any, priority: int = 0) -> None:
        self.device, self.what = device, priority

    def wait_stream(self, other: PretendStream) -> None:
        if {self.what, other.what} <= REFUSED:
            raise RuntimeError("CUDA error: invalid resource handle")
        WAITED.append((self.what, other.what))


WAITED: list[tuple[int, int]] = []
REFUSED = set[int]()
"""Two that may not wait for each other."""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch with a fake GPU; the returned function installs a fake driver."""

    @contextmanager
    def current(what: Any) -> Any:
        yield

    def external(number: int, device: Any) -> PretendStream:
        return PretendStream(device, number)

    for name, pretence in {
        "Stream": PretendStream,
        "ExternalStream": external,
        "current_stream": lambda *given: None,
        "stream": current,
        "device": current,
        "synchronize": lambda device: WAITED.clear() if device is GPU else None,
        "Event": lambda: SimpleNamespace(record=lambda: None),
    }.items():
        monkeypatch.setattr(torch.cuda, name, pretence)
    WAITED.clear()

    def install(driver: ModuleType | None) -> None:
        bindings = ModuleType("cuda.bindings")
        bindings.driver = driver  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings if driver else None)

    return install


def test_split_gpu_makes_two_disjoint_streams(pretended: Any) -> None:
    pretended(PretendDriver())
    (first, n_first), (second, n_second) = split_gpu(GPU, 36, (STEP_PRIORITY, 0))
    assert (n_first, n_second) == (40, 92)
    assert (first.what, second.what) == (40_000 + STEP_PRIORITY, 92_000)
    assert first.device == second.device == GPU


def test_streams_exclude_each_others_multiprocessors(pretended: Any) -> None:
    pretended(PretendDriver())
    streams = Streams(GPU, 40)
    assert [place.n_other_sms for place in streams.steps] == [0, 92]
    assert [place.n_other_sms for place in streams.encoding] == [0, 40]
    assert streams.why == "40 multiprocessors are reserved for steps while windows are encoded"
    with streams.step_stream(EXCLUSIVE):
        pass
    assert WAITED == []
    with streams.step_stream(SHARED):
        pass
    with streams.step_stream(EXCLUSIVE):
        pass
    with streams.encoder_stream(SHARED):
        pass
    part, whole = 40_000 + STEP_PRIORITY, STEP_PRIORITY
    assert [(part, whole), (whole, part), (92_000, 0)] == WAITED  # each after what was before it


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (None, "import of cuda.bindings halted"),
        (PretendDriver("cuDevSmResourceSplitByCount"), "CUDA_ERROR_NOT_SUPPORTED of NVIDIA's"),
        (PretendDriver("cuGreenCtxCreate"), "CUDA_ERROR_NOT_SUPPORTED of NVIDIA's driver"),
    ],
    ids=["no bindings", "not so many", "no contexts"],
)
def test_streams_share_the_gpu_if_it_cannot_be_split(
    pretended: Any, driver: ModuleType | None, why: str
) -> None:
    pretended(driver)
    streams = Streams(GPU, 40)
    assert len(streams.steps) == len(streams.encoding) == 1
    assert streams.why.startswith("steps and encoding share all multiprocessors: ")
    assert why in streams.why


def test_streams_share_the_gpu_if_they_cannot_wait_for_each_other(
    pretended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended(PretendDriver())
    every = {STEP_PRIORITY, 0, 40_000 + STEP_PRIORITY, 92_000}
    for pair in combinations(every, 2):
        monkeypatch.setitem(globals(), "REFUSED", set(pair))
        streams = Streams(GPU, 40)
        assert len(streams.steps) == len(streams.encoding) == 1
        assert "invalid resource handle" in streams.why


@pytest.mark.parametrize("error", [TypeError("3 arguments"), ValueError("0 is no such value")])
def test_streams_share_the_gpu_if_the_bindings_differ(pretended: Any, error: Exception) -> None:
    def broken(*given: object) -> None:
        raise error

    driver = PretendDriver()
    driver.cuGreenCtxCreate = broken  # type: ignore[assignment]
    pretended(driver)
    assert Streams(GPU, 40).why == f"steps and encoding share all multiprocessors: {error}"
