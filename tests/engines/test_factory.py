"""Which engine a setting means, and what is said where it is not there."""

from __future__ import annotations

import pytest

from batched_whisper.config import Settings
from batched_whisper.engines import factory
from batched_whisper.engines.cuda import presence
from batched_whisper.errors import EngineError, MissingExtra


def here(monkeypatch: pytest.MonkeyPatch, *, pytorch: bool, gpu: bool) -> None:
    monkeypatch.setattr(presence, "has_pytorch", lambda: pytorch)
    for module in (presence, factory):
        monkeypatch.setattr(module, "has_gpu", lambda: gpu)


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, chosen: str
) -> None:
    here(monkeypatch, pytorch=True, gpu=gpu)
    assert factory.choose_device("auto") == chosen
    assert factory.choose_device("cpu") == "cpu"


def test_without_pytorch_cuda_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, pytorch=False, gpu=False)
    with pytest.raises(MissingExtra, match=r"batched-whisper\[cuda\]"):
        factory.choose_device("cuda")


def test_without_a_gpu_cuda_says_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, pytorch=True, gpu=False)
    with pytest.raises(EngineError, match="nvidia-smi"):
        factory.choose_device("cuda")


def test_pytorch_is_not_imported_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # importing it would fail
    assert not presence.has_gpu()


@pytest.mark.parametrize(
    ("device", "wanted", "gpu", "most"),
    [
        ("auto", "auto", True, 256),
        ("auto", "auto", False, 64),
        ("cpu", "auto", True, 64),
        ("cuda", "auto", False, 256),
        ("auto", 7, True, 7),
        ("cpu", 7, False, 7),
    ],
)
def test_how_many_windows_go_together(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: int | str, gpu: bool, most: int
) -> None:
    here(monkeypatch, pytorch=True, gpu=gpu)
    assert factory.most_windows(Settings(device=device, max_batch_size=wanted)) == most
