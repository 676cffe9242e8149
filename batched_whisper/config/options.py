"""Every option of the package, declared once.

A declaration carries the default, the help text, the environment variable and the range. From it
come the keyword argument, the command-line flag, the check and the row in ``docs/settings.md``.
Three objects pass through the code: `Settings` (fixed while an engine runs), `DecodingOptions`
(may differ per call) and `CueLayout` (the layout of subtitles). Nothing here acts on an option.
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
"""The value of ``language`` that detects the language of each window separately."""

# The choices of options that have a fixed set: for editors, type checkers and validation.
Auto = Literal["auto"]
Precision = Literal["auto", "float32", "float16", "bfloat16", "int8", "fp8"]
KvCacheDtype = Literal["auto", "int8", "model"]
LogMelDevice = Literal["auto", "host", "device"]
TaskName = Literal["transcribe", "translate"]
ChannelMode = Literal["mix", "split"]

MAX_BEAM_SIZE = 10
"""The largest ``beam_size``; with the default batch size every engine has slots for it."""


def _check_clips(name: str, times_s: Numbers) -> None:
    """Check that the clips are in chronological order, do not overlap and are not empty."""
    if not times_s or math.inf in times_s:
        raise OptionError(f"{name}={times_s!r}: give start and end times in seconds")
    for i, (before, after) in enumerate(pairwise(times_s)):
        if i % 2 == 0 and after <= before:
            raise OptionError(
                f"{name}={times_s!r}: the clip from {before:g} s cannot end at {after:g} s; "
                "give start, end, start, end, ..."
            )
        if after < before:
            raise OptionError(
                f"{name}={times_s!r}: a clip starts at {after:g} s, before the previous one ends "
                f"at {before:g} s; give clips in chronological order, without overlaps"
            )


@dataclass(frozen=True)
class Settings(CheckedOptions):
    """Options that are fixed while an engine runs."""

    model: str | None = option(
        None,
        "The model: a short name (base, large-v3), a repository on the Hugging Face Hub, or a "
        "folder. Default: large-v3 on a GPU, base on a CPU.",
        fallback="MODEL",
    )
    revision: str | None = option(
        None, "The branch, tag or commit of the model on the Hub.", fallback="REVISION"
    )
    device: str = option(
        "auto",
        "The device that runs the model: auto, cpu, cuda, cuda:1, cuda:0,2 or cuda:all. cuda is "
        "the first GPU, cuda:1 is GPU 1, cuda:0,2 are GPUs 0 and 2, and cuda:all is every GPU that "
        "PyTorch sees (limited by CUDA_VISIBLE_DEVICES). auto is cuda if there is a GPU, else cpu; "
        "it never uses more than one GPU.",
        check=check_device,
    )
    precision: Precision = option(
        "auto",
        "The number format of the model. auto: float16 on a GPU; on a CPU bfloat16 if the "
        "processor supports it, else float32. int8 runs on CPUs only, float16 and fp8 on GPUs "
        "only.",
        choices=get_args(Precision),
    )
    max_batch_size: int | Auto = option(
        "auto",
        "Maximum number of windows that are decoded together, per GPU. auto: 64 on a CPU, and at "
        "least 10 per worker; on a GPU as many as fit into its memory, at most 320.",
        minimum=1,
        maximum=1024,
        choices=get_args(Auto),
    )
    gpu_memory_utilization: float = option(
        0.9, "The fraction of each GPU's memory that its engine may use.", minimum=0.05, maximum=1
    )
    kv_cache_dtype: KvCacheDtype = option(
        "auto",
        "The number format of the cross-attention keys and values on a GPU. int8 halves their "
        "memory and the bytes that each step reads; model uses the model's precision. auto: int8, "
        "or model if the precision is float32.",
        choices=get_args(KvCacheDtype),
    )
    log_mel: LogMelDevice = option(
        "auto",
        "Where the log-mel spectrogram is computed: host (the CPU) or device (the GPU, which "
        "leaves the CPU free to decode audio files). auto: device if there is a GPU.",
        choices=get_args(LogMelDevice),
    )
    wait_ms: float = option(
        20.0,
        "Longest time, in milliseconds, that an idle engine waits for more windows before it "
        "starts a batch.",
        minimum=0,
        maximum=60_000,
    )
    max_queue_size: int = option(
        256,
        "Maximum number of windows in the queue; while it is full, callers wait.",
        minimum=1,
        maximum=1_000_000,
    )
    threads: int | None = option(
        None, "CPU threads of the engine. Default: all.", minimum=1, maximum=1024
    )
    num_workers: int | None = option(
        None,
        "Number of engines that share the CPU threads and the queue. More raise throughput; one "
        "gives the lowest latency. Default: one per 8 threads.",
        minimum=1,
        maximum=256,
    )
    cache_dir: str | None = option(
        None,
        "Folder for compiled graphs and assembled models. Default: the user's cache folder.",
    )


@dataclass(frozen=True)
class DecodingOptions(CheckedOptions):
    """Options that may differ per call."""

    language: str | None = option(
        None,
        "The spoken language, as a code or an English name. Default: detected once per recording; "
        "per_window: detected for every window, for recordings that switch languages.",
    )
    task: TaskName = option(
        "transcribe",
        "transcribe writes the text in the spoken language, translate in English.",
        choices=get_args(TaskName),
    )
    channels: ChannelMode = option(
        "mix",
        "mix transcribes the mean of all channels; split transcribes each channel separately and "
        "sets the channel of every segment.",
        choices=get_args(ChannelMode),
    )
    clip_timestamps: Numbers | None = option(
        None,
        "Transcribe only these parts of the recording: start, end, start, end, ..., in seconds. "
        "Without the last end, the last part extends to the end of the recording.",
        minimum=0,
        check=_check_clips,
    )
    vad: bool = option(
        True,
        "Voice activity detection: transcribe only the parts with speech, so that silence yields "
        "no text. If off, everything is transcribed.",
    )
    condition_on_previous_text: bool = option(
        False,
        "Give the model the text of the previous windows as a prompt. Names and style stay "
        "consistent, but errors are repeated too, and the windows of a recording are decoded one "
        "after another.",
    )
    timestamps: bool = option(
        False, "Predict timestamps of segments. If off, each window is one segment."
    )
    word_timestamps: bool = option(
        False, "Compute the start and end of every word; takes one more decoder pass per window."
    )
    prompt: str | None = option(
        None, "Text that precedes the recording: sets names, spelling and style."
    )
    hotwords: str | None = option(
        None,
        "Words to expect, placed before the prompt of every window. Hotwords and prompt share half "
        "of the text context.",
    )
    suppress_tokens: Numbers = option(
        (-1,),
        "IDs of tokens that are never generated; -1 stands for the checkpoint's own list "
        "(non-speech symbols). With an empty list, or the word none, only the special tokens of "
        "prompts are suppressed.",
        minimum=-1,
    )
    audio_context: str | int = option(
        "auto",
        "Encoder context per window: full (always 30 s), fit (the length of the window plus a "
        "margin, several times faster), or a number of positions of 20 ms. auto: fit for models "
        "whose margin has been measured, else full.",
    )
    temperature: float = option(
        0.0,
        "Sampling temperature: 0 chooses the most probable token, higher values sample.",
        minimum=0,
        maximum=2,
    )
    beam_size: int = option(
        1,
        "Number of beams at temperature 0. Each beam takes one slot of the batch.",
        minimum=1,
        maximum=MAX_BEAM_SIZE,
    )
    patience: float = option(
        1.0,
        "Beam search stops when patience * beam_size texts have ended.",
        minimum=0,
        maximum=10,
    )
    length_penalty: float | None = option(
        None,
        "Exponent of the length penalty in beam search; higher values prefer longer texts. "
        "Default: rank by mean log-probability.",
        minimum=0,
        maximum=1,
    )
    temperature_increment: float = option(
        0.2,
        "Temperature increase for each fallback: a window whose text is rejected is decoded again "
        "at a higher temperature, up to 1. 0 disables these attempts.",
        minimum=0,
        maximum=1,
    )
    compression_ratio_threshold: float | None = option(
        2.4,
        "Reject a text with a higher compression ratio, as repetitive. none disables the check.",
        minimum=0,
    )
    logprob_threshold: float | None = option(
        -1.0,
        "Reject a text with a lower mean log-probability. none disables the check, and silence is "
        "then detected by no_speech_threshold alone.",
        maximum=0,
    )
    no_speech_threshold: float | None = option(
        0.6,
        "A window with a higher no-speech probability, and a text below logprob_threshold, is "
        "treated as silence. none disables the check.",
        minimum=0,
        maximum=1,
    )
    seed: int = option(0, "Seed of sampling at temperatures above 0.", minimum=0)
    max_tokens: int | None = option(
        None,
        "Maximum number of text tokens per window; the text is cut off there. Default: half of the "
        "text context.",
        minimum=1,
        maximum=448,
    )


@dataclass(frozen=True)
class CueLayout(CheckedOptions):
    """The layout of subtitles; every layout but the default needs word timestamps."""

    max_line_width: int | None = option(
        None,
        "Maximum number of characters per subtitle line; a longer word has its own line.",
        minimum=1,
        maximum=10_000,
    )
    max_lines: int | None = option(
        None,
        "Maximum number of lines shown at once. Default: all lines of a segment, or one if only "
        "max_words_per_line is given.",
        minimum=1,
        maximum=1000,
    )
    max_words_per_line: int | None = option(
        None, "Maximum number of words per subtitle line.", minimum=1, maximum=1000
    )
    highlight_words: bool = option(
        False, "Underline each word while it is spoken: one cue per word."
    )
