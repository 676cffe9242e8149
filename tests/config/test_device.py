"""How devices are written: each spelling means one thing, and any other is refused by name."""

from __future__ import annotations

import re

import pytest

from batched_whisper.config.device import Devices, read_device
from batched_whisper.config.options import Settings
from batched_whisper.errors import EngineError, OptionError


@pytest.mark.parametrize(
    ("text", "n_gpus", "gpus"),
    [
        ("cpu", 0, ()),
        ("cpu", 4, ()),
        ("auto", 0, ()),
        ("auto", 1, (0,)),
        ("auto", 4, (0,)),  # a machine is not taken whole without being told
        ("cuda", 4, (0,)),
        ("cuda:0", 1, (0,)),
        ("cuda:3", 4, (3,)),
        ("cuda:0,2", 4, (0, 2)),
        ("cuda:2, 0", 4, (2, 0)),
        ("cuda:all", 1, (0,)),
        ("cuda:all", 3, (0, 1, 2)),
    ],
)
def test_device_resolves_to_cpu_or_gpus(text: str, n_gpus: int, gpus: tuple[int, ...]) -> None:
    option = read_device(text)
    assert option.resolve(n_gpus) == Devices(gpus)
    assert option.n_gpus(lambda: n_gpus) == len(gpus)


@pytest.mark.parametrize("text", ["cpu", "auto", "cuda", "cuda:1", "cuda:0,2", "cuda:all"])
def test_device_is_accepted_as_keyword_and_variable(text: str) -> None:
    assert Settings.of(device=text).device == text
    variables = {"BATCHED_WHISPER_DEVICE": text}
    assert Settings.from_environment(variables).device == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "gpu", "CUDA", "cpu:0", "auto:1", "cudas", "cuda:", "cuda:-1", "cuda:1,", "cuda:0-2"),
        *("cuda:1.0", "cuda:a", "cuda:all,0", "cuda:0:1", "cuda:²", "cuda:" + "9" * 5000),
    ],
)
def test_device_with_wrong_syntax_raises_option_error(text: str) -> None:
    with pytest.raises(OptionError, match="use auto, cpu, cuda, cuda:N") as caught:
        Settings.of(device=text)
    assert str(caught.value).startswith("device=")


def test_device_with_the_same_gpu_twice_is_rejected() -> None:
    with pytest.raises(OptionError, match="GPU 1 is listed twice"):
        Settings.of(device="cuda:1,0,1")


def test_device_with_a_missing_gpu_raises_with_the_existing_ones() -> None:
    told = re.escape("device=cuda:0,3: there is no GPU 3: PyTorch sees 2 here (0, 1)")
    with pytest.raises(EngineError, match=told):
        read_device("cuda:0,3").resolve(2)


def test_n_gpus_counts_gpus_only_if_the_result_depends_on_it() -> None:
    def count() -> int:
        raise AssertionError("importing PyTorch takes seconds")

    assert [read_device(each).n_gpus(count) for each in ("cpu", "cuda", "cuda:0,2")] == [0, 1, 2]
