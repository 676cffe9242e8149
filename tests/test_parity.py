"""Our transcripts beside those of CTranslate2, on the same weights and the same real speech.

CTranslate2 reads the same model folder by its own code and computes with its own kernels. Both get
the same features, the language of the clip, the full audio context, and choose greedily.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from batched_whisper.audio.decode import open_audio
from batched_whisper.audio.features import log_mel
from batched_whisper.errors import EngineError
from batched_whisper.evaluation import ErrorCounts, Unit, count_errors, unit_of
from batched_whisper.tokens.prompt import sot_sequence
from batched_whisper.whisper import Whisper

if TYPE_CHECKING:
    from conftest import LoadedModel

COLLECTIONS = ("ljspeech", "librivox", "librispeech", "languages", "jfk")
LEAST_EQUAL = 0.98
"""The share of clips whose tokens are the same; the others may differ by rounding."""
MOST_WORSE = 0.003
"""How much higher the error rate in bfloat16 may be."""
N_THREADS = 2

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Clip:
    """One recording with what is said in it."""

    path: Path
    text: str
    language: str

    @property
    def features(self) -> NDArray[np.float32]:
        """``[1, 80, 3000]``, of the sound padded with silence to 30 s."""
        with open_audio(self.path) as stream:
            return log_mel(np.concatenate(list(stream)), 80)[None]


@pytest.fixture(scope="module")
def clips(speech: Path) -> list[Clip]:
    lines = map(json.loads, (speech / "manifest.jsonl").read_text("utf-8").splitlines())
    return [
        Clip(speech / line["audio"], line["text"], line["language"])
        for line in lines
        if line["collection"] in COLLECTIONS
    ]


@contextmanager
def whisper(model: LoadedModel, precision: str) -> Iterator[Whisper]:
    try:
        loaded = Whisper(model.files.folder, precision=precision, threads=N_THREADS).load()
    except EngineError as error:
        pytest.skip(str(error))
    with loaded:
        yield loaded


def our_tokens(
    model: LoadedModel, clips: list[Clip], precision: str, timestamps: bool = False
) -> list[Tokens]:
    """One after another would give the same; together they also show that batches do."""
    with whisper(model, precision) as ours:
        futures = [
            ours.submit(
                clip.path,
                language=clip.language,
                timestamps=timestamps,
                audio_context="full",
                temperature_increment=0.0,
                no_speech_threshold=1.0,
            )
            for clip in clips
        ]
        windows = [future.result().windows for future in futures]
    assert all(len(each) == 1 for each in windows)
    return [window.tokens for [window] in windows]


@pytest.fixture(scope="module")
def in_float32(base_model: LoadedModel, clips: list[Clip]) -> list[Tokens]:
    return our_tokens(base_model, clips, "float32")


def their_tokens(
    model: LoadedModel, clips: list[Clip], timestamps: bool = False
) -> Iterator[Tokens]:
    ctranslate2 = pytest.importorskip("ctranslate2")
    theirs = ctranslate2.models.Whisper(
        str(model.files.folder), compute_type="float32", intra_threads=N_THREADS
    )
    for clip in clips:
        features = ctranslate2.StorageView.from_array(clip.features)
        prompt = list(sot_sequence(model.tokenizer, clip.language, timestamps=timestamps))
        [result] = theirs.generate(features, [prompt], beam_size=1)
        yield tuple(result.sequences_ids[0])


def share_of_equal(
    model: LoadedModel, clips: list[Clip], ours: list[Tokens], theirs: Iterator[Tokens]
) -> float:
    """How many clips have the same tokens; prints the others."""
    n_equal, decode = 0, model.tokenizer.decode
    for clip, our, their in zip(clips, ours, theirs, strict=True):
        n_equal += our == their
        if our != their:
            print(f"{clip.path.name}\n  ours   {decode(our)}\n  theirs {decode(their)}")
    print(f"{n_equal} of {len(clips)} clips are equal token for token")
    return n_equal / len(clips)


def test_the_tokens_are_those_of_ctranslate2(
    base_model: LoadedModel, clips: list[Clip], in_float32: list[Tokens]
) -> None:
    theirs = their_tokens(base_model, clips)
    assert share_of_equal(base_model, clips, in_float32, theirs) >= LEAST_EQUAL


def test_with_timestamps_they_are_the_same_too(base_model: LoadedModel, clips: list[Clip]) -> None:
    some = clips[::5]
    ours = our_tokens(base_model, some, "float32", timestamps=True)
    begin = base_model.tokenizer.timestamp_begin
    assert all(tokens[0] >= begin for tokens in ours)
    theirs = their_tokens(base_model, some, timestamps=True)
    assert share_of_equal(base_model, some, ours, theirs) >= LEAST_EQUAL


def error_rates(
    model: LoadedModel, clips: list[Clip], transcripts: list[Tokens]
) -> dict[Unit, float]:
    """Words and, of languages without spaces, characters: errors for each one that was said."""
    errors = dict.fromkeys(Unit, ErrorCounts())
    for clip, tokens in zip(clips, transcripts, strict=True):
        said = model.tokenizer.decode(tokens)
        errors[unit_of(clip.language)] += count_errors(clip.text, said, clip.language)
    return {unit: of_unit.rate or 0.0 for unit, of_unit in errors.items()}


def test_bfloat16_makes_no_more_errors_than_float32(
    base_model: LoadedModel, clips: list[Clip], in_float32: list[Tokens]
) -> None:
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    in_bfloat16 = our_tokens(base_model, clips, "bfloat16")
    exact = error_rates(base_model, clips, in_float32)
    rounded = error_rates(base_model, clips, in_bfloat16)
    print({unit.value: (f"{exact[unit]:.2%}", f"{rounded[unit]:.2%}") for unit in Unit})
    assert rounded[Unit.WORD] <= exact[Unit.WORD] + MOST_WORSE
