"""Every option of the package, declared once.

A declaration carries the default, the help text, the environment variable and the range. From it
come the keyword argument, the command-line flag, the check and the row in ``docs/settings.md``.
Three objects travel through the code: `Settings` (fixed for the life of an engine),
`DecodingOptions` (may differ from call to call) and `CueLayout` (how subtitles look). Nothing here
acts on an option.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from batched_whisper.config.device import check_device
from batched_whisper.config.fields import CheckedOptions, Numbers, option
from batched_whisper.errors import OptionError

LANGUAGE_PER_WINDOW = "per_window"
"""The language of a recording that switches between several."""

# The words of options that have some: for editors and type checkers, and to choose from.
Auto = Literal["auto"]
Precision = Literal["auto", "float32", "float16", "bfloat16", "int8", "fp8"]
KvCacheDtype = Literal["auto", "int8", "model"]
LogMelDevice = Literal["auto", "host", "device"]
TaskName = Literal["transcribe", "translate"]
ChannelMode = Literal["mix", "split"]

MAX_BEAM_SIZE = 10
"""The widest beam that may be asked for: every engine that has its own choice has room for it."""


def _check_clips(name: str, times_s: Numbers) -> None:
    """Starts and ends in turn, in the order of time, and no clip without a length."""
    if not times_s or math.inf in times_s:
        raise OptionError(f"{name}={times_s!r}: give starts and ends in seconds")
    for i, (before, after) in enumerate(pairwise(times_s)):
        if i % 2 == 0 and after <= before:
            raise OptionError(
                f"{name}={times_s!r}: the clip from {before:g} s cannot end at {after:g} s; "
                "give start, end, start, end and so on"
            )
        if after < before:
            raise OptionError(
                f"{name}={times_s!r}: a clip begins at {after:g} s before the last one ends at "
                f"{before:g} s; give them in the order of time, without overlaps"
            )


@dataclass(frozen=True)
class Settings(CheckedOptions):
    """What is fixed for the life of an engine."""

    model: str | None = option(
        None,
        "A name on the Hub, a short name (base, large-v3), or a folder. "
        "Not given: large-v3 on a GPU, base on a CPU.",
        fallback="MODEL",
    )
    revision: str | None = option(
        None, "The model's branch, tag or commit on the Hub.", fallback="REVISION"
    )
    device: str = option(
        "auto",
        "Where the model runs: auto, cpu, cuda, cuda:1, cuda:0,2 or cuda:all. cuda is the first "
        "GPU; cuda:1 that one; cuda:0,2 those; cuda:all every one that PyTorch sees, which "
        "CUDA_VISIBLE_DEVICES narrows. auto is cuda if there is a GPU, else cpu: a machine with "
        "several GPUs is taken whole only where that is asked for.",
        check=check_device,
    )
    precision: Precision = option(
        "auto",
        "Arithmetic of the engine. auto: on a GPU float16; on a CPU bfloat16 where the processor "
        "has it, else float32. int8 is for CPUs, float16 and fp8 for GPUs.",
        choices=get_args(Precision),
    )
    max_batch_size: int | Auto = option(
        "auto",
        "The most windows that are decoded together, on each GPU where there are several. "
        "auto: 64 on a CPU, 10 in each stream at least; on a GPU what fits into its memory, 320 "
        "at most.",
        minimum=1,
        maximum=1024,
        choices=get_args(Auto),
    )
    gpu_memory_utilization: float = option(
        0.9, "The share of each GPU's memory that its engine may take.", minimum=0.05, maximum=1
    )
    kv_cache_dtype: KvCacheDtype = option(
        "auto",
        "In what a GPU keeps the keys and values of the audio: int8, which is half of the memory "
        "and of what a step reads; same, as the precision. auto: int8, but with float32 the same.",
        choices=get_args(KvCacheDtype),
    )
    log_mel: LogMelDevice = option(
        "auto",
        "Where the log-mel spectrogram is computed: host, by the processor; device, by the GPU, "
        "which leaves the processor to reading recordings. auto: device where there is a GPU.",
        choices=get_args(LogMelDevice),
    )
    wait_ms: float = option(
        20.0,
        "How long the first window in an idle engine's queue waits for company.",
        minimum=0,
        maximum=60_000,
    )
    max_queue_size: int = option(
        256, "Windows that may wait; more make their callers wait.", minimum=1, maximum=1_000_000
    )
    threads: int | None = option(
        None, "Processor threads of the engine. Not given: all.", minimum=1, maximum=1024
    )
    num_workers: int | None = option(
        None,
        "Engines that share a CPU's threads and the queue; several do more in all, and one is "
        "sooner done with a lone call. Not given: one for every 8 threads.",
        minimum=1,
        maximum=256,
    )
    cache_dir: str | None = option(
        None,
        "Where compiled graphs and joined models are kept. Not given: the user's cache folder.",
    )


@dataclass(frozen=True)
class DecodingOptions(CheckedOptions):
    """What may differ from call to call."""

    language: str | None = option(
        None,
        "The language spoken, as a code or an English name. Not given: detected once for a "
        "recording; per_window: anew in every window, for recordings that switch.",
    )
    task: TaskName = option(
        "transcribe",
        "transcribe writes what was said, translate writes it in English.",
        choices=get_args(TaskName),
    )
    channels: ChannelMode = option(
        "mix",
        "mix transcribes the mean of all channels; split each channel by itself, and every segment "
        "tells whose it is.",
        choices=get_args(ChannelMode),
    )
    clip_timestamps: Numbers | None = option(
        None,
        "Transcribe these stretches alone: start, end, start, end and so on, in seconds; without "
        "the last end, to the end of the recording.",
        minimum=0,
        check=_check_clips,
    )
    vad: bool = option(
        True,
        "Find where someone speaks, and transcribe that alone: nothing is made of silence. "
        "no transcribes everything.",
    )
    condition_on_previous_text: bool = option(
        False,
        "Tell the model what a recording's windows said so far: names and style stay the same, but "
        "so do errors, and a recording's windows are decoded one after another.",
    )
    timestamps: bool = option(
        False, "Let the model time its segments; without, each window is one segment."
    )
    word_timestamps: bool = option(
        False, "Time every word; takes one more pass of the model over each window's text."
    )
    prompt: str | None = option(
        None, "Text that the model takes as having come before: names, spelling, style."
    )
    hotwords: str | None = option(
        None,
        "Words to expect, given to the model before every window and before the prompt, with which "
        "they share half of the text context.",
    )
    suppress_tokens: Numbers = option(
        (-1,),
        "Tokens that are never written, by number; -1 stands for those that the checkpoint "
        "suppresses (marks that nobody speaks). An empty list, or the word none: only the marks of "
        "prompts are suppressed.",
        minimum=-1,
    )
    audio_context: str | int = option(
        "auto",
        "How much audio the model sees of a window: full (always 30 s), fit (the speech and a "
        "margin, several times faster), or a number of 20 ms positions. auto: fit for models "
        "whose margin was measured, else full.",
    )
    temperature: float = option(
        0.0, "0 takes the most probable token; higher ones choose at random.", minimum=0, maximum=2
    )
    beam_size: int = option(
        1,
        "How many texts of a window are followed at once at temperature 0; each takes the place "
        "of a window in the batch.",
        minimum=1,
        maximum=MAX_BEAM_SIZE,
    )
    patience: float = option(
        1.0,
        "Beam search is over when beam_size times so many texts have ended.",
        minimum=0,
        maximum=10,
    )
    length_penalty: float | None = option(
        None,
        "Beam search prefers longer texts the higher this is. Not given: the highest mean "
        "log-probability wins.",
        minimum=0,
        maximum=1,
    )
    temperature_increment: float = option(
        0.2,
        "How much hotter a window is decoded again, up to 1, until it is believed; 0: never.",
        minimum=0,
        maximum=1,
    )
    compression_ratio_threshold: float | None = option(
        2.4,
        "A text that compresses better than this repeats itself. none: it is not looked at.",
        minimum=0,
    )
    logprob_threshold: float | None = option(
        -1.0,
        "A text of lower mean log-probability is not believed. none: it is not looked at, and "
        "no_speech_threshold alone tells silence.",
        maximum=0,
    )
    no_speech_threshold: float | None = option(
        0.6,
        "A window whose no-speech probability is higher, and whose text is below "
        "logprob_threshold, is silence. none: it is not looked at.",
        minimum=0,
        maximum=1,
    )
    seed: int = option(0, "Of random choices at temperatures above 0.", minimum=0)
    max_tokens: int | None = option(
        None,
        "The most tokens of text for one window, which is cut off there. Not given: half the text "
        "context.",
        minimum=1,
        maximum=448,
    )


@dataclass(frozen=True)
class CueLayout(CheckedOptions):
    """How much of a transcript subtitles show at once; all but the default need times of words."""

    max_line_width: int | None = option(
        None,
        "The most characters in a line of subtitles; a longer word has a line to itself.",
        minimum=1,
        maximum=10_000,
    )
    max_lines: int | None = option(
        None,
        "The most lines shown at once. Not given: all of a segment's, or one where only "
        "max_words_per_line is given.",
        minimum=1,
        maximum=1000,
    )
    max_words_per_line: int | None = option(
        None, "The most words in a line of subtitles.", minimum=1, maximum=1000
    )
    highlight_words: bool = option(
        False, "Underline each word while it is said: subtitles with a cue a word."
    )
