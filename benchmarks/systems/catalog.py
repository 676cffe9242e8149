"""Every configuration that is measured, as data: to measure another one, add it here.

The options of ours are named as in batched_whisper.config.options, of `Settings` or
`DecodingOptions` alike; one that the installed version does not have is left out of the run, with
that as reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from batched_whisper.errors import OptionError

OURS = "ours"


class Run(str, Enum):
    """How often a configuration is measured."""

    ALWAYS = "always"
    ALL_PEERS = "all peers"  # only where everything is asked for


class Work(str, Enum):
    """A kind of workload."""

    SHORT = "short"
    LONG = "long"


BOTH = (Work.SHORT, Work.LONG)


@dataclass(frozen=True)
class Configuration:
    """One way to run one system.

    Attributes:
        name: unique, as it stands in tables.
        system: the module of `benchmarks.systems`.
        settings: what the adapter is told.
        environment: variables of its process.
        processor_flags: what the processor must have, by Linux's names.
        work: what it can do.
        run: whether it belongs to the small comparison.
    """

    name: str
    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    processor_flags: tuple[str, ...] = ()
    work: tuple[Work, ...] = BOTH
    run: Run = Run.ALL_PEERS

    @property
    def is_ours(self) -> bool:
        """Whether it is this package."""
        return self.system == OURS


_AVX512 = {"CT2_FORCE_CPU_ISA": "AVX512"}
"""CTranslate2 does not choose AVX-512 by itself on AMD's processors, where it is faster."""

_OURS = (
    Configuration("ours", OURS, {"calls": "map"}, run=Run.ALWAYS),
    Configuration("ours, 64 callers", OURS, {"calls": 64}, work=(Work.SHORT,), run=Run.ALWAYS),
    Configuration(
        "ours, one at a time",
        OURS,
        {"calls": 1, "options": {"max_batch_size": 1}},
        run=Run.ALWAYS,
    ),
    Configuration(
        "ours, full context",
        OURS,
        {"calls": "map", "options": {"audio_context": "full"}},
        run=Run.ALWAYS,
    ),
    Configuration(
        "ours, full context, one at a time",
        OURS,
        {"calls": 1, "options": {"audio_context": "full", "max_batch_size": 1}},
    ),
    Configuration("ours, float32", OURS, {"calls": "map", "options": {"precision": "float32"}}),
    Configuration(
        "ours, int8", OURS, {"calls": "map", "options": {"precision": "int8"}}, run=Run.ALWAYS
    ),
    Configuration(
        "ours, int8, 64 callers",
        OURS,
        {"calls": 64, "options": {"precision": "int8"}},
        work=(Work.SHORT,),
    ),
    Configuration(
        "ours, int8, two streams",
        OURS,
        {"calls": "map", "options": {"precision": "int8", "num_workers": 2}},
    ),
    Configuration(
        "ours, int8, one at a time",
        OURS,
        {"calls": 1, "options": {"precision": "int8", "max_batch_size": 1}},
    ),
    Configuration(
        "ours, int8, full context",
        OURS,
        {"calls": "map", "options": {"precision": "int8", "audio_context": "full"}},
    ),
)

_RECIPE = tuple(
    Configuration(f"recipe, {way}", "recipe", {"way": way}, work=(Work.SHORT,))
    for way in ("one at a time", "batched", "continuous")
)
"""Modal's recipe on this engine; "transformers bfloat16, batch 64" is the original."""

_CTRANSLATE2 = (
    Configuration("faster-whisper int8", "faster_whisper", {"workers": 1}),
    Configuration(
        "faster-whisper int8, AVX-512",
        "faster_whisper",
        {"workers": 1},
        environment=_AVX512,
        processor_flags=("avx512f",),
        run=Run.ALWAYS,
    ),
    Configuration(
        "faster-whisper int8, one worker per processor, AVX-512",
        "faster_whisper",
        {"workers": "threads"},
        environment=_AVX512,
        processor_flags=("avx512f",),
        work=(Work.SHORT,),
        run=Run.ALWAYS,
    ),
    Configuration(
        "faster-whisper int8, one worker per processor",
        "faster_whisper",
        {"workers": "threads"},
        work=(Work.SHORT,),
    ),
    Configuration(
        "faster-whisper int8, batched pipeline, AVX-512",
        "faster_whisper",
        {"workers": 1, "batch_size": 8},
        environment=_AVX512,
        processor_flags=("avx512f",),
        work=(Work.LONG,),
        run=Run.ALWAYS,
    ),
    Configuration(
        "ctranslate2 int8, batches of 8, AVX-512",
        "ctranslate2",
        {"batch_size": 8},
        environment=_AVX512,
        processor_flags=("avx512f",),
        work=(Work.SHORT,),
        run=Run.ALWAYS,
    ),
    Configuration(
        "ctranslate2 int8, batches of 16, AVX-512",
        "ctranslate2",
        {"batch_size": 16},
        environment=_AVX512,
        processor_flags=("avx512f",),
        work=(Work.SHORT,),
    ),
)

_OTHERS = (
    Configuration("transformers bfloat16, batch 1", "transformers", {"batch_size": 1}),
    Configuration("transformers bfloat16, batch 16", "transformers", {"batch_size": 16}),
    Configuration("transformers bfloat16, batch 64", "transformers", {"batch_size": 64}),
    Configuration("openvino-genai fp16", "openvino_genai", {"weights": "fp16"}),
    Configuration("openvino-genai int8", "openvino_genai", {"weights": "int8"}),
    Configuration("whisper.cpp f16", "whisper_cpp", {"weights": "f16"}),
    Configuration("whisper.cpp q8_0", "whisper_cpp", {"weights": "q8_0"}),
    Configuration(
        "whisper.cpp q8_0, audio_ctx",
        "whisper_cpp",
        {"weights": "q8_0", "audio_ctx": True},
        work=(Work.SHORT,),
    ),
)

# A processor without AVX-512 gets the small comparison with what CTranslate2 chooses by itself.
_WITHOUT_AVX512 = {
    "faster-whisper int8": "faster-whisper int8, AVX-512",
    "faster-whisper int8, one worker per processor": (
        "faster-whisper int8, one worker per processor, AVX-512"
    ),
}

CONFIGURATIONS = (*_OURS, *_RECIPE, *_CTRANSLATE2, *_OTHERS)


def choose(
    *, all_peers: bool, only: Sequence[str], processor_flags: Iterable[str]
) -> list[Configuration]:
    """What to measure, in order.

    Args:
        all_peers: everything instead of the small comparison.
        only: of everything, those with one of these words in their name or of that system.
        processor_flags: what this processor has.

    Raises:
        OptionError: a word of ``only`` that means nothing.
    """
    flags = frozenset(processor_flags)
    for word in only:
        if not any(_is_meant(each, word) for each in CONFIGURATIONS):
            names = "; ".join(each.name for each in CONFIGURATIONS)
            raise OptionError(f"--only {word}: there is no such configuration: {names}")
    if only:
        return [c for c in CONFIGURATIONS if any(_is_meant(c, word) for word in only)]
    if all_peers:
        return list(CONFIGURATIONS)
    has_avx512 = "avx512f" in flags
    return [
        c
        for c in CONFIGURATIONS
        if (c.run is Run.ALWAYS and (has_avx512 or not c.processor_flags))
        or (not has_avx512 and c.name in _WITHOUT_AVX512)
    ]


def _is_meant(configuration: Configuration, word: str) -> bool:
    """By its whole name or its system (with a ``=`` before it by its name alone), or how its name
    begins (with a ``*`` at the end).
    """
    if word.startswith("="):
        return configuration.name == word[1:]
    if word.endswith("*"):
        return configuration.name.startswith(word[:-1])
    return word in (configuration.name, configuration.system)
