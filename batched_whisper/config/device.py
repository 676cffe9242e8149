"""Parses the option ``device`` and resolves it to a CPU or a list of GPUs.

Knows the syntax alone. `engines.factory` counts the GPUs of the machine and passes the number to
`DeviceOption.resolve`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from batched_whisper.errors import EngineError, OptionError

DEVICE_SYNTAX = "auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all"
"""The values of ``device``, for messages."""


class DeviceKind(Enum):
    """The kinds of values of the option ``device``."""

    AUTO = "auto"  # the first GPU if there is one, else the CPU
    CPU = "cpu"
    ALL_GPUS = "cuda:all"
    GPU_LIST = "cuda"  # the first GPU, or those listed after a colon


@dataclass(frozen=True)
class Devices:
    """The devices that engines run on: one engine per GPU, or the CPU if ``gpus`` is empty.

    ``gpus`` are PyTorch's indices, counted after CUDA_VISIBLE_DEVICES is applied. ``why`` explains
    an unexpected choice, for `WhisperInfo`.
    """

    gpus: tuple[int, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether engines run on GPUs."""
        return bool(self.gpus)

    def __str__(self) -> str:
        if not self.gpus:
            return "a CPU"
        return "a GPU" if len(self.gpus) == 1 else f"{len(self.gpus)} GPUs"


@dataclass(frozen=True)
class DeviceOption:
    """The parsed option ``device``.

    ``numbers`` are the indices of the GPUs named; for `DeviceKind.AUTO` that of the first GPU.
    """

    text: str
    kind: DeviceKind
    numbers: tuple[int, ...] = ()

    def resolve(self, n_gpus: int) -> Devices:
        """Choose the devices on a machine where PyTorch sees ``n_gpus`` GPUs.

        Raises:
            EngineError: a GPU that is named does not exist.
        """
        if self.kind is DeviceKind.CPU or (self.kind is DeviceKind.AUTO and not n_gpus):
            return Devices()
        there = tuple(range(n_gpus))
        if self.kind is DeviceKind.ALL_GPUS:
            return Devices(there)
        for number in self.numbers:
            if number not in there:
                raise EngineError(
                    f"device={self.text}: there is no GPU {number}: PyTorch sees {n_gpus} here "
                    f"({listed(there)}); CUDA_VISIBLE_DEVICES, if set, hides the others"
                )
        return Devices(self.numbers)

    def n_gpus(self, count: Callable[[], int]) -> int:
        """Count the GPUs that are requested, whether or not they exist.

        ``count`` returns how many GPUs PyTorch sees; called only if the result depends on it.
        """
        if self.kind is DeviceKind.ALL_GPUS:
            return max(1, count())
        if self.kind is DeviceKind.AUTO:
            return min(1, count())
        return len(self.numbers)


_WORDS = (
    DeviceOption("auto", DeviceKind.AUTO, (0,)),
    DeviceOption("cpu", DeviceKind.CPU),
    DeviceOption("cuda", DeviceKind.GPU_LIST, (0,)),
    DeviceOption("cuda:all", DeviceKind.ALL_GPUS),
)


def read_device(text: str) -> DeviceOption:
    """Parse the option ``device``. Raises OptionError if the syntax is wrong."""
    for option in _WORDS:
        if text == option.text:
            return option
    kind, _, numbers = text.partition(":")
    if kind != DeviceKind.GPU_LIST.value:
        raise OptionError(f"device={text!r}: use {DEVICE_SYNTAX}")
    return DeviceOption(text, DeviceKind.GPU_LIST, _numbers(text, numbers.split(",")))


def _numbers(text: str, parts: Sequence[str]) -> tuple[int, ...]:
    parts = [part.strip() for part in parts]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise OptionError(
            f"device={text!r}: expected GPU numbers from 0 on, separated by commas, or all after "
            f"cuda:; use {DEVICE_SYNTAX}"
        )
    numbers = tuple(int(part) for part in parts)
    twice = [number for i, number in enumerate(numbers) if number in numbers[:i]]
    if twice:
        raise OptionError(f"device={text!r}: GPU {twice[0]} is listed twice; name it once")
    return numbers


def check_device(name: str, value: str) -> None:
    """Validate the option ``device``; raises OptionError. Used as the check of its declaration."""
    read_device(value)


def listed(numbers: Sequence[int]) -> str:
    """Join numbers with commas."""
    return ", ".join(map(str, numbers))
