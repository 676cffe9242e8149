"""Real models on real speech: that what the parts do on a pretend engine adds up to words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from batched_whisper.audio.decode import open_audio
from batched_whisper.evaluation import count_errors, normalise
from batched_whisper.transcriber import Whisper
from batched_whisper.types import Samples, Transcript

if TYPE_CHECKING:
    from conftest import LoadedModel


@dataclass(frozen=True)
class Collection:
    """The speech folder, by the names in its manifest."""

    folder: Path

    def text(self, name: str) -> str:
        for line in (self.folder / "manifest.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["audio"] == name:
                return str(entry["text"])
        raise KeyError(name)

    def samples(self, name: str) -> Samples:
        with open_audio(self.folder / name) as stream:
            return np.concatenate(list(stream))


@pytest.fixture(scope="module")
def spoken(speech: Path) -> Collection:
    return Collection(speech)


@pytest.fixture(scope="module")
def base(base_model: LoadedModel) -> Iterator[Whisper]:
    with Whisper(base_model.files.folder, threads=2) as whisper:
        yield whisper


@pytest.fixture(scope="module")
def tiny_en(tiny_en_model: LoadedModel) -> Iterator[Whisper]:
    with Whisper(tiny_en_model.files.folder, threads=2, precision="float32") as whisper:
        yield whisper


SHORT = [f"ljspeech/LJ001-{number:04d}.flac" for number in (2, 7, 8, 14)]
GERMAN, SPANISH = "languages/test_de.flac", "languages/test_es.flac"


def test_together_and_alone_every_recording_has_the_same_words(
    tiny_en: Whisper, spoken: Collection
) -> None:
    """To the last bit of every figure but the rounding of sums."""
    paths = [spoken.folder / name for name in SHORT if (spoken.folder / name).is_file()]
    alone = [tiny_en.transcribe(path) for path in paths]

    async def awaited() -> list[Transcript]:
        return list(await asyncio.gather(*(tiny_en.transcribe.aio(path) for path in paths)))

    for together in (tiny_en.transcribe_batch(paths), asyncio.run(awaited())):
        assert [each.text for each in together] == [each.text for each in alone]
        for one, other in zip(together, alone, strict=True):
            assert [window.tokens for window in one.windows] == [
                window.tokens for window in other.windows
            ]
            for a, b in zip(one.windows, other.windows, strict=True):
                assert a.avg_logprob == pytest.approx(b.avg_logprob, abs=1e-3)
                assert a.no_speech_prob == pytest.approx(b.no_speech_prob, abs=1e-3)
    assert all(each.text for each in alone)


@pytest.mark.parametrize("vad", [False, True])
def test_a_long_recording_keeps_all_its_words(base: Whisper, spoken: Collection, vad: bool) -> None:
    names = sorted(
        path.relative_to(spoken.folder).as_posix()
        for path in (spoken.folder / "ljspeech").glob("*.flac")
    )[:10]
    pause = np.zeros(8000, np.float32)
    sound = np.concatenate([part for name in names for part in (spoken.samples(name), pause)])
    found = base.transcribe(sound, vad=vad)
    assert found.duration_s > 45
    if not vad:
        edges = [0.0, *(window.end_s for window in found.windows)]
        assert [window.start_s for window in found.windows] == edges[:-1]
        assert edges[-1] == pytest.approx(found.duration_s)
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    errors = count_errors(" ".join(map(spoken.text, names)), found.text, "en")
    assert errors.rate is not None
    assert errors.rate < 0.12


def test_a_recording_is_heard_in_its_own_language(base: Whisper, spoken: Collection) -> None:
    german, spanish = base.transcribe_batch([spoken.folder / GERMAN, spoken.folder / SPANISH])
    assert (german.language, spanish.language) == ("de", "es")
    assert german.language_probability > 0.5
    assert "hinter diesem" in german.text
    assert "arenas" in spanish.text


def test_translation_is_english(base: Whisper, spoken: Collection) -> None:
    pytest.importorskip("whisper_normalizer")
    found = base.transcribe(spoken.folder / GERMAN, task="translate", language="de")
    words = set(normalise(found.text, "en").split())
    assert words & {"the", "was", "this", "behind", "room"}
    assert not words & {"der", "hinter", "diesem", "wurde", "als"}


def test_a_prompt_can_teach_a_spelling(base: Whisper, spoken: Collection) -> None:
    clip = spoken.folder / "librispeech/1272-128104-0000.flac"
    plain = base.transcribe(clip, language="en").text
    prompted = base.transcribe(clip, language="en", prompt="Mr. Kwilter spoke.").text
    assert "Quilter" in plain
    assert prompted == plain.replace("Quilter", "Kwilter")


def test_timestamps_tell_where_it_was_said(base: Whisper, spoken: Collection) -> None:
    clip = spoken.samples("librispeech/1272-128104-0000.flac")
    late = np.concatenate([np.zeros(3 * 16_000, np.float32), clip])
    soon, later = (base.transcribe(sound, timestamps=True, language="en") for sound in (clip, late))
    assert later.segments[-1].end_s - soon.segments[-1].end_s == pytest.approx(3, abs=0.3)
    for found in (soon, later):
        times = [at for segment in found.segments for at in (segment.start_s, segment.end_s)]
        assert times == sorted(times)
        assert times[-1] <= found.duration_s
