"""Real weights on real speech: what each precision says, and its word errors.

Speech is a folder with ``manifest.jsonl`` (``audio``, ``text``, ``language``) of 16 kHz WAV files:
what reads other formats may not be on the machine. Weights are model folders.
"""

from __future__ import annotations

import json
import re
import unicodedata
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from batched_whisper.audio.features import log_mel
from batched_whisper.batching.decode_request import DecodeRequest
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.engines.cuda.engine import CudaEngine
from batched_whisper.models.checkpoint import Checkpoint, load_checkpoint
from batched_whisper.models.model_files import ModelFiles, Source
from batched_whisper.tokens.prompt import sot_sequence
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Samples


@dataclass(frozen=True)
class Clip:
    """Speech, and what is said in it."""

    name: str
    samples: Samples
    text: str
    language: str


def clips_of(folder: Path) -> list[Clip]:
    """The folder's clips of up to 30 s that can be read here."""
    lines = map(json.loads, (folder / "manifest.jsonl").read_text("utf-8").splitlines())
    return [
        Clip(line["audio"], read_wav(folder / line["audio"]), line["text"], line["language"])
        for line in lines
        if line["audio"].endswith(".wav") and line.get("text") and line["duration_s"] <= 30
    ]


def with_noise(clips: Sequence[Clip], levels_db: Sequence[float]) -> list[Clip]:
    """The clips, and a copy of each with white noise at each of these SNRs (dB); deterministic."""
    found = list(clips)
    for level_db in levels_db:
        for i, clip in enumerate(clips):
            noise = np.random.default_rng(i).standard_normal(len(clip.samples), dtype=np.float32)
            loudness = float(np.sqrt(np.mean(clip.samples**2))) * 10 ** (-level_db / 20)
            samples = (clip.samples + loudness * noise).astype(np.float32)
            found.append(replace(clip, name=f"{clip.name} {level_db} dB", samples=samples))
    return found


def read_wav(path: Path) -> Samples:
    """Mono, 16 bits, 16 kHz."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        raw = file.readframes(file.getnframes())
    return np.frombuffer(raw, "<i2").astype(np.float32) / 32768


def word_errors(
    folder: Path, clips: list[Clip], ways: Mapping[str, Mapping[str, Any]], device: str
) -> dict[str, Any]:
    """Of one model folder in each of some ways: word error rate, and how often tokens differ.

    ``ways`` are names and options of `CudaEngine`; the first is what the others are held against.
    """
    checkpoint = load_checkpoint(ModelFiles(folder.name, None, folder, Source.FOLDER))
    tokenizer = Tokenizer.from_folder(folder)
    known = [c for c in clips if tokenizer.multilingual or c.language == "en"]
    figures: dict[str, Any] = {"n_clips": len(known)}
    exact: list[tuple[int, ...]] = []
    for name, options in ways.items():
        try:
            said = _decode(checkpoint, tokenizer, known, device, options)
        except Exception as error:
            figures[name] = {"failed": str(error)}
            continue
        exact = exact or said
        texts = [tokenizer.decode(tokens) for tokens in said]
        english = [
            (c.text, text) for c, text in zip(known, texts, strict=True) if c.language == "en"
        ]
        figures[name] = {
            "english_word_error_rate": _word_error_rate(english),
            "share_of_equal_tokens": sum(a == b for a, b in zip(said, exact, strict=True))
            / len(said),
            "texts": texts,
        }
    return figures


def _decode(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    clips: list[Clip],
    device: str,
    options: Mapping[str, Any],
) -> list[tuple[int, ...]]:
    ids = TokenIds(
        tokenizer.eot, tokenizer.timestamp_begin, checkpoint.dimensions.n_vocab, tokenizer.no_speech
    )
    engine = CudaEngine(checkpoint, ids, max_slots=64, device=device, **options)
    loop = EngineLoop(engine, max_batch_size=engine.info.max_slots)
    as_samples = engine.info.takes_samples
    futures = [loop.submit(_task(checkpoint, tokenizer, ids, clip, as_samples)) for clip in clips]
    said = [future.result().tokens for future in futures]
    loop.close()
    return said


def _task(
    checkpoint: Checkpoint, tokenizer: Tokenizer, ids: TokenIds, clip: Clip, as_samples: bool
) -> DecodeRequest:
    sizes = checkpoint.dimensions
    sot, *rest = sot_sequence(tokenizer, clip.language if tokenizer.multilingual else None)
    rules = Rules(
        ids,
        suppress=frozenset(checkpoint.suppress_tokens)
        | frozenset(range(ids.eot + 1, ids.timestamp_begin)),
        suppress_begin=frozenset(checkpoint.begin_suppress_tokens),
        timestamps=False,
    )
    return DecodeRequest(
        audio=clip.samples if as_samples else log_mel(clip.samples, sizes.n_mels),
        sot=sot,
        after_language=tuple(rest),
        rules=rules,
        max_tokens=sizes.n_text_ctx // 2,
        first=Attempt(sizes.n_audio_ctx),
    )


def _word_error_rate(pairs: list[tuple[str, str]]) -> float | None:
    """Over all words of all clips, without case and punctuation; plainer than `evaluation`'s."""
    n_words = sum(len(_words(said)) for said, _ in pairs)
    if not n_words:
        return None
    return sum(_distance(_words(said), _words(heard)) for said, heard in pairs) / n_words


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).lower()
    return re.sub(r"[^\w' ]+", " ", plain).split()


def _distance(one: list[str], other: list[str]) -> int:
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, heard in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != heard))
    return row[-1]
