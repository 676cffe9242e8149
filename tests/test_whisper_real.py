"""Real models on real speech: that what the parts do on a pretend engine adds up to words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from batched_whisper.audio.decode import open_audio
from batched_whisper.evaluation import count_errors, normalise
from batched_whisper.types import Samples, Transcript
from batched_whisper.whisper import Whisper

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
    assert found.duration > 45
    if not vad:
        edges = [0.0, *(window.end for window in found.windows)]
        assert [window.start for window in found.windows] == edges[:-1]
        assert edges[-1] == pytest.approx(found.duration)
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
    assert later.segments[-1].end - soon.segments[-1].end == pytest.approx(3, abs=0.3)
    for found in (soon, later):
        times = [at for segment in found.segments for at in (segment.start, segment.end)]
        assert times == sorted(times)
        assert times[-1] <= found.duration


def noises(seconds: int) -> dict[str, Samples]:
    """What is not speech."""
    chance, n = np.random.default_rng(0), seconds * 16_000
    spectrum = np.fft.rfft(chance.standard_normal(n))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n)
    at = np.arange(n) / 16_000
    made = {
        "digital silence": np.zeros(n),
        "white noise": 0.1 * chance.standard_normal(n),
        "pink noise": 0.3 * pink / np.abs(pink).max(),
        "440 Hz": 0.3 * np.sin(2 * np.pi * 440 * at),
    }
    return {name: sound.astype(np.float32) for name, sound in made.items()}


def test_where_nobody_speaks_no_window_is_heard(base: Whisper, speech: Path) -> None:
    sounds = [*noises(60).values(), speech / "silence/empty.flac"]
    assert [found.windows for found in base.transcribe_batch(sounds)] == [()] * 5


def test_without_the_detector_nothing_is_made_of_noise_either(base: Whisper, speech: Path) -> None:
    sounds = [*noises(10).values(), speech / "silence/empty.flac"]
    found = base.transcribe_batch(sounds, vad=False, language="en")
    assert [each.text for each in found] == [""] * 5


def test_a_long_reading_is_heard_as_well_as_its_sentences_one_by_one(
    base: Whisper, speech: Path
) -> None:
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    name = "long/ljspeech_chapter.flac"
    lines = map(json.loads, (speech / "manifest.jsonl").read_text("utf-8").splitlines())
    entry = next(line for line in lines if line["audio"] == name)
    clips = [speech / segment["clip"] for segment in entry["segments"]]
    options = {"language": "en", "timestamps": True, "word_timestamps": True}
    whole = base.transcribe(speech / name, **options)
    alone = base.transcribe_batch(clips, language="en")
    one_by_one = count_errors(entry["text"], " ".join(each.text for each in alone), "en").rate
    at_once = count_errors(entry["text"], whole.text, "en").rate
    assert at_once is not None
    assert one_by_one is not None
    assert at_once <= one_by_one + 0.005

    words = [word for segment in whole.segments for word in segment.words or ()]
    middles = [(word.start + word.end) / 2 for word in words]
    for segment in entry["segments"]:
        assert any(segment["start"] < at < segment["end"] for at in middles)
    for before, after in pairwise(entry["segments"]):
        in_silence = [at for at in middles if before["end"] + 0.1 < at < after["start"] - 0.1]
        assert not in_silence


def test_the_size_of_the_batch_changes_no_text(
    tiny_en: Whisper, tiny_en_model: LoadedModel, spoken: Collection
) -> None:
    """Where windows overlap, too: here there is no pause to cut in."""
    clips = [spoken.samples(name) for name in SHORT]
    loud = [clip[np.abs(clip) > 0.005] for clip in clips]
    sound = np.concatenate([*loud, *clips])
    alone = tiny_en.transcribe(sound, vad=False)
    assert len(alone.windows) > 1
    files = tiny_en_model.files.folder
    with Whisper(files, threads=2, precision="float32", max_batch_size=1) as one_slot:
        assert one_slot.transcribe(sound, vad=False).text == alone.text
    timed = tiny_en.transcribe_batch([sound, *clips], vad=False, word_timestamps=True)
    assert timed[0].text == alone.text
