"""Windows of real speech: what is in them, and what they say of themselves."""

from __future__ import annotations

import json
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed, so the GPU benchmark is not tried")

from hypothesis import given, settings
from hypothesis import strategies as st

from batched_whisper.audio.features import log_mel
from batched_whisper.models.dimensions import Dimensions
from benchmarks.gpu import wav_clips
from benchmarks.gpu.accuracy import Clip, read_wav
from benchmarks.gpu.mix import FULL_LENGTH, PACKED, SHORT, WindowSize, with_mean_tokens
from benchmarks.gpu.speech_windows import GAP, N_DIFFERENT, SpeechWindow, SpeechWorkload, pack

SIZES = Dimensions(8, 1500, 64, 2, 2, 2000, 448, 64, 2, 2)
LONGEST = 30 * 16_000
MIXES = (SHORT, PACKED, FULL_LENGTH)


def clips_of_s(durations_s: list[float], language: str = "en") -> list[Clip]:
    random = np.random.default_rng(len(durations_s))
    return [
        Clip(
            f"{i}.wav",
            (0.1 * random.standard_normal(round(16_000 * duration_s))).astype(np.float32),
            f"Clip {i}" + " says" * round(2 * duration_s),
            language,
        )
        for i, duration_s in enumerate(durations_s)
    ]


def n_words(text: str) -> int:
    return len(text.split())


def workload(durations_s: list[float], seed: int = 0) -> SpeechWorkload:
    return SpeechWorkload(clips_of_s(durations_s), n_words, SIZES, seed)


def windows_of(given: SpeechWorkload, mix: str, n: int) -> list[SpeechWindow]:
    found = given.windows(mix, n)
    assert all(isinstance(window, SpeechWindow) for window in found)
    return found


def test_windows_can_say_more_or_less_on_the_same_sound() -> None:
    windows = windows_of(workload([2.0, 9.0, 17.0, 4.5]), PACKED, 200)
    slower = with_mean_tokens(windows, 31)
    assert sum(each.n_tokens for each in slower) == pytest.approx(31 * 200, rel=0.03)
    assert len(set(map(id, slower))) == len(set(map(id, windows)))  # their features are kept once
    for one, other in zip(windows, slower, strict=True):
        assert (one.duration_s, one.clips) == (other.duration_s, other.clips)


def mean_s(windows: list[WindowSize]) -> float:
    return sum(window.duration_s for window in windows) / len(windows)


MIXED = [2.0, 3.5, 5.0, 6.5, 7.5, 8.0, 9.5, 11.0, 14.0]

durations = st.lists(st.integers(1, 300).map(lambda tenths: tenths / 10), min_size=1, max_size=20)


@settings(deadline=None, max_examples=40)
@given(durations_s=durations, seed=st.integers(0, 99))
def test_a_packed_window_holds_what_fits_and_no_more(durations_s: list[float], seed: int) -> None:
    clips = [Clip(str(i), np.zeros(round(16e3 * s)), "", "en") for i, s in enumerate(durations_s)]
    windows = pack(clips, LONGEST, 30, np.random.default_rng(seed))

    def length(window: tuple[Clip, ...]) -> int:
        return sum(len(clip.samples) + GAP for clip in window) - GAP

    assert len(windows) == 30
    for window, after in pairwise(windows):
        assert 0 < length(window) <= LONGEST < length((*window, after[0]))


def test_every_clip_is_heard_once_before_any_is_heard_again() -> None:
    clips = clips_of_s(MIXED)
    windows = pack(clips, LONGEST, 40, np.random.default_rng(0))
    heard = [clip.name for window in windows for clip in window]
    turns = [heard[i : i + len(clips)] for i in range(0, len(heard) - len(clips), len(clips))]
    assert all(set(turn) == {clip.name for clip in clips} for turn in turns)
    assert len({tuple(turn) for turn in turns}) == len(turns)


@pytest.mark.parametrize("mix", MIXES)
def test_a_window_is_its_clips_with_silence_between_and_says_their_texts(mix: str) -> None:
    for window in windows_of(workload(MIXED), mix, N_DIFFERENT):
        samples, text = window.samples, ""
        assert len(samples) == round(16_000 * window.duration_s) <= LONGEST
        for clip in window.clips:
            assert np.array_equal(samples[: len(clip.samples)], clip.samples)
            samples = samples[len(clip.samples) :]
            assert len(samples) == 0 or not samples[:GAP].any()
            samples, text = samples[GAP:], f"{text} {clip.text}"
        assert window.text == text.strip()
        assert window.n_tokens == n_words(text)


@pytest.mark.parametrize("mix", MIXES)
def test_the_same_seed_makes_the_same_windows(mix: str) -> None:
    one, same, other = (windows_of(workload(MIXED, seed), mix, 100) for seed in (0, 0, 1))
    assert [window.text for window in one] == [window.text for window in same]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(one, same, strict=True))
    assert [window.text for window in one] != [window.text for window in other]


@pytest.mark.parametrize("mix", MIXES)
def test_features_are_as_long_as_asked_and_those_of_the_sound_alone(mix: str) -> None:
    for window in windows_of(workload(MIXED), mix, 4):
        tight = -(-len(window.samples) // 320)
        for context in (1500, window.context(1500, fitted=True), tight):
            found = window.features(context)
            assert found.shape == (8, 2 * context)
            assert np.array_equal(found, log_mel(window.samples, 8, 2 * context))


@pytest.mark.parametrize("durations_s", [MIXED, [3.0] * 30 + [20.0], [6.0, 15.0, 29.0]])
def test_the_short_mix_has_a_mean_of_seven_seconds(durations_s: list[float]) -> None:
    assert mean_s(workload(durations_s).windows(SHORT, N_DIFFERENT)) == pytest.approx(7, abs=0.3)


@pytest.mark.parametrize("mix", MIXES)
def test_windows_beyond_the_different_ones_repeat_them_and_keep_the_mean(mix: str) -> None:
    speech = workload(MIXED)
    once, often = speech.windows(mix, N_DIFFERENT), speech.windows(mix, 5 * N_DIFFERENT)
    assert {id(window) for window in often} == {id(window) for window in once}
    assert mean_s(often) == pytest.approx(mean_s(once))
    assert often[:N_DIFFERENT] != often[N_DIFFERENT : 2 * N_DIFFERENT]


def test_a_model_with_less_context_hears_the_beginning_and_says_its_share() -> None:
    sizes = Dimensions(8, 60, 64, 2, 2, 2000, 448, 64, 2, 2)
    [clip] = clips_of_s([2.4])
    [window] = SpeechWorkload([clip], n_words, sizes).windows(SHORT, 1)
    assert window.duration_s == pytest.approx(1.2)
    assert n_words(clip.text) == 7
    assert window.n_tokens == 3


def test_a_text_in_capitals_alone_is_counted_in_small_letters() -> None:
    texts = ("LOUD SPEECH", "Quiet Speech", "BBC radio")
    clips = [Clip(text, np.zeros(16_000, np.float32), text, "en") for text in texts]
    spoken = SpeechWorkload(clips, n_words, SIZES).windows(PACKED, N_DIFFERENT)
    heard = {clip.text for window in spoken for clip in window.clips}
    assert heard == {"loud speech", "Quiet Speech", "BBC radio"}


def test_only_english_clips_are_taken_and_one_is_needed() -> None:
    foreign = clips_of_s([5.0, 6.0], "de")
    speech = SpeechWorkload([*clips_of_s([4.0]), *foreign], n_words, SIZES)
    assert "1 English clips" in speech.what
    assert {window.duration_s for window in speech.windows(SHORT, 9)} == {4.0}
    with pytest.raises(ValueError, match="none of the clips is in English"):
        SpeechWorkload(foreign, n_words, SIZES)


def test_what_travels_is_read_back_as_it_was(tmp_path: Path) -> None:
    samples = (3000 * np.sin(np.arange(16_000) / 9)).astype("<i2")
    source, out = tmp_path / "speech", tmp_path / "out"
    (source / "jfk").mkdir(parents=True)
    with wave.open(str(source / "jfk" / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    line = {"audio": "jfk/a.wav", "text": "a", "collection": "jfk", "duration_s": 1.0}
    (source / "manifest.jsonl").write_text(json.dumps(line))
    assert wav_clips.main([str(source), str(out), "--most-mb", "1"]) == 0
    [written] = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    assert written == {**line, "audio": "jfk-a.wav"}
    assert np.abs(read_wav(out / "jfk-a.wav") - samples / 32768).max() < 2 / 32768
