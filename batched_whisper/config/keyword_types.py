"""The options as keyword arguments, for editors and type checkers: names and types alone.

Meanings, defaults and ranges are declared in `options`; a test compares these lists with the
declarations. Nothing here is used at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from batched_whisper.config.options import (
    Auto,
    ChannelMode,
    KvCacheDtype,
    LogMelDevice,
    Precision,
    TaskName,
)


class SettingArguments(TypedDict, total=False):
    """Keyword arguments of `Whisper` without the model: the fields of `config.options.Settings`."""

    revision: str | None
    device: str
    precision: Precision
    max_batch_size: int | Auto
    gpu_memory_utilization: float
    kv_cache_dtype: KvCacheDtype
    log_mel: LogMelDevice
    wait_ms: float
    max_queue_size: int
    threads: int | None
    num_workers: int | None
    cache_dir: str | None


class DecodingArguments(TypedDict, total=False):
    """Keyword arguments of a call: the fields of `config.options.DecodingOptions`."""

    language: str | None
    task: TaskName
    channels: ChannelMode
    clip_timestamps: Sequence[float] | None
    vad: bool
    condition_on_previous_text: bool
    timestamps: bool
    word_timestamps: bool
    prompt: str | None
    hotwords: str | None
    suppress_tokens: Sequence[float]
    audio_context: str | int
    temperature: float
    beam_size: int
    patience: float
    length_penalty: float | None
    temperature_increment: float
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    seed: int
    max_tokens: int | None
