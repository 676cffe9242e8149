"""Selection of engines by settings, and the errors if they are not available."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from tiny_whisper import IDS, tiny_checkpoint

from batched_whisper.config.device import Devices
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines import factory
from batched_whisper.engines.cuda import availability
from batched_whisper.engines.openvino import multi_engine as openvino_streams
from batched_whisper.errors import EngineError, MissingExtra
from batched_whisper.models.checkpoint import Checkpoint


def here(
    monkeypatch: pytest.MonkeyPatch, *, n_gpus: int, pytorch: bool = True, why_unusable: str = ""
) -> None:
    monkeypatch.setattr(availability, "has_pytorch", lambda: pytorch)
    monkeypatch.setattr(availability, "has_gpu", lambda: n_gpus > 0)
    monkeypatch.setattr(factory, "count_gpus", lambda: n_gpus)
    monkeypatch.setattr(factory, "why_unusable", lambda gpu: why_unusable)


@pytest.mark.parametrize(("n_gpus", "gpus"), [(0, ()), (1, (0,)), (3, (0,))])
def test_choose_devices_auto_is_one_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, n_gpus: int, gpus: tuple[int, ...]
) -> None:
    here(monkeypatch, n_gpus=n_gpus)
    assert factory.choose_devices("auto") == Devices(gpus)
    assert factory.choose_devices("cpu") == Devices()


def test_choose_devices_auto_is_the_cpu_if_the_gpu_is_unusable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here(monkeypatch, n_gpus=2, why_unusable="no kernel image")
    assert factory.choose_devices("auto") == Devices(why=("no kernel image",))
    assert factory.choose_devices("cuda") == Devices(
        (0,)
    )  # an explicit "cuda" gets the engine's error


def test_why_unusable_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def ones(size: int, device: str) -> Any:
        if device == "cuda:7":
            raise RuntimeError("CUDA error: no kernel image is available\nfor execution")
        return torch.zeros(size)

    monkeypatch.setattr(torch, "ones", ones)
    availability.why_unusable.cache_clear()
    for _ in range(2):
        assert availability.why_unusable(7) == (
            "a CPU, because PyTorch sees GPU 7 and cannot compute on it: "
            "CUDA error: no kernel image is available for execution"
        )
        assert availability.why_unusable(8) == ""
    availability.why_unusable.cache_clear()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:all"])
def test_device_cuda_without_pytorch_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    here(monkeypatch, pytorch=False, n_gpus=0)
    with pytest.raises(MissingExtra, match=rf"device={device} .*batched-whisper\[cuda\]"):
        factory.choose_devices(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:all"])
def test_device_cuda_without_a_gpu_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    here(monkeypatch, n_gpus=0)
    with pytest.raises(EngineError, match=f"device={device}: .*nvidia-smi"):
        factory.choose_devices(device)


def test_has_gpu_without_pytorch_imports_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # importing it would fail
    assert not availability.has_gpu()


@pytest.mark.parametrize(
    ("device", "wanted", "n_gpus", "most"),
    [
        ("auto", "auto", 2, 320),
        ("auto", "auto", 0, 64),
        ("cpu", "auto", 1, 64),
        ("cuda", "auto", 0, 320),
        ("auto", 7, 1, 7),
        ("cpu", 7, 0, 7),
        ("cuda:1", 7, 2, 7),
        ("cuda:0,2", "auto", 0, 640),
        ("cuda:all", 7, 3, 21),
    ],
)
def test_max_concurrent_windows_of_settings(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: int | str, n_gpus: int, most: int
) -> None:
    here(monkeypatch, n_gpus=n_gpus)
    assert factory.max_concurrent_windows(Settings(device=device, max_batch_size=wanted)) == most


@pytest.mark.parametrize(("num_workers", "threads"), [(None, 64), (None, 512), (2, 2), (32, 32)])
def test_make_engines_auto_gives_each_cpu_engine_slots_for_the_largest_beam(
    monkeypatch: pytest.MonkeyPatch, num_workers: int | None, threads: int
) -> None:
    @dataclass
    class Pretend:
        max_slots: int

    [beam_size] = [each for each in fields(DecodingOptions) if each.name == "beam_size"]
    monkeypatch.setattr(openvino_streams, "Runtime", lambda *given, **named: None)
    monkeypatch.setattr(
        openvino_streams, "OpenVinoEngine", lambda *given, max_slots, runtime: Pretend(max_slots)
    )
    settings = Settings(device="cpu", num_workers=num_workers, threads=threads)
    engines: Any = factory.make_engines(tiny_checkpoint(), IDS, settings, None)
    assert min(engine.max_slots for engine in engines) >= beam_size.metadata["maximum"]
    assert sum(engine.max_slots for engine in engines) >= factory.max_concurrent_windows(settings)
    some = settings.replace(max_batch_size=2 * len(engines))
    engines = factory.make_engines(tiny_checkpoint(), IDS, some, None)
    assert {engine.max_slots for engine in engines} == {2}


# --- one engine on each GPU -----------------------------------------------------------------------


@dataclass
class Rack:
    """Fake GPUs: records which engines are started on them, and which are closed."""

    broken: frozenset[str] = frozenset()
    error: BaseException = field(default_factory=lambda: EngineError("0.3 GB free"))
    close_error: Exception | None = None
    started: list[dict[str, Any]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def engine(self, checkpoint: Checkpoint, ids: TokenIds, **given: Any) -> PretendEngine:
        if given["device"] in self.broken:
            raise self.error
        self.started.append({"checkpoint": checkpoint, "ids": ids, **given})
        return PretendEngine(self, given["device"])


@dataclass(frozen=True)
class PretendEngine:
    rack: Rack
    device: str

    def close(self) -> None:
        self.rack.closed.append(self.device)
        if self.rack.close_error is not None:
            raise self.rack.close_error


def start(monkeypatch: pytest.MonkeyPatch, rack: Rack, **settings: Any) -> list[Any]:
    here(monkeypatch, n_gpus=3)
    monkeypatch.setattr(
        factory, "_import_object", lambda where: {factory.GPU_ENGINE: rack.engine}[where]
    )
    return list(factory.make_engines(tiny_checkpoint(), IDS, Settings(**settings), Path("kept")))


@pytest.mark.parametrize(
    ("device", "on"),
    [
        ("auto", ["cuda:0"]),
        ("cuda", ["cuda:0"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:0,2", ["cuda:0", "cuda:2"]),
        ("cuda:all", ["cuda:0", "cuda:1", "cuda:2"]),
    ],
)
@pytest.mark.parametrize("log_mel", ["auto", "device", "host"])
@pytest.mark.parametrize(("wanted", "slots"), [("auto", 320), (7, 7)])
def test_make_engines_makes_one_engine_per_gpu(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    on: list[str],
    wanted: int | str,
    slots: int,
    log_mel: str,
) -> None:
    rack = Rack()
    own = {
        "precision": "float16",
        "gpu_memory_utilization": 0.5,
        "max_batch_size": wanted,
        "kv_cache_dtype": "model",
        "log_mel": log_mel,
    }
    engines = start(monkeypatch, rack, device=device, **own)
    assert (
        [engine.device for engine in engines] == [given["device"] for given in rack.started] == on
    )
    for given in rack.started:
        assert given.pop("checkpoint") is tiny_checkpoint()
        assert given.pop("ids") is IDS
        del given["device"]
        assert given == {
            "max_slots": slots,
            "precision": "float16",
            "memory_fraction": 0.5,
            "kv_cache_dtype": "model",
            "from_samples": log_mel != "host",
            "threads": None,
            "cache_dir": Path("kept"),
        }
    assert not rack.closed


@pytest.mark.parametrize("close_error", [None, RuntimeError("the context is gone")])
def test_make_engines_closes_the_others_if_one_cannot_start(
    monkeypatch: pytest.MonkeyPatch, close_error: Exception | None
) -> None:
    rack = Rack(broken=frozenset(["cuda:2"]), close_error=close_error)
    with pytest.raises(EngineError, match=r"GPU 2 cannot be started: 0\.3 GB free"):
        start(monkeypatch, rack, device="cuda:all")
    assert sorted(rack.closed) == ["cuda:0", "cuda:1"]


def test_make_engines_closes_started_engines_on_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    rack = Rack(broken=frozenset(["cuda:1"]), error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start(monkeypatch, rack, device="cuda:0,1")
    assert rack.closed == ["cuda:0"]


def test_make_engines_rejects_a_missing_gpu_before_starting_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rack = Rack()
    with pytest.raises(EngineError, match=r"no GPU 3: PyTorch sees 3 here \(0, 1, 2\)"):
        start(monkeypatch, rack, device="cuda:0,3")
    assert not rack.started
