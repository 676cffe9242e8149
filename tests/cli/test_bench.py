"""The command ``bench``: what it brings to the engine, and what it makes of it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scripted_whisper import ScriptedStats

from batched_whisper.cli.load_patterns import (
    BenchClip,
    LoadPattern,
    Pass,
    measure,
    n_differing,
    n_sequential_calls,
    summarise,
)
from batched_whisper.config.options import DecodingOptions
from batched_whisper.types import Transcript

PATTERNS = [pattern.value for pattern in LoadPattern]


def cells(table: str) -> list[list[str]]:
    lines = [line.split("  ") for line in table.splitlines() if line.startswith("  ")]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return [row for row in rows if row][1:]


# --- the command


def test_each_way_is_a_row_with_its_calls(run, recordings, script, folder):
    recordings({"a.wav": "hello", "b.wav": "you"})
    ended = run("bench", "a.wav", "b.wav", "--calls", "8", "--rounds", "2", "--output", "f.json")
    assert ended.code == 0
    assert [row[:2] for row in cells(ended.out)] == [
        [PATTERNS[0], "2"],
        [PATTERNS[1], "8"],
        [PATTERNS[2], "8"],
    ]
    assert cells(ended.out)[0][-1] == "1.00"
    assert "All patterns gave the same texts." in ended.out
    assert len(script.heard) == 2 + 2 * (2 + 8 + 8)  # the warm-up, and the rounds
    assert ended.err.count("concurrent: 8 calls in ") == 2

    document = json.loads((folder / "f.json").read_text())
    assert document["model"] == "scripted" and document["options"]["task"] == "transcribe"
    assert [each["pattern"] for each in document["patterns"]] == PATTERNS
    assert [each["audio_s"] for each in document["passes"]] == [8.0, 32.0, 32.0] * 2
    assert document["peak_memory_bytes"] > 1_000_000


def test_options_reach_every_call_and_settings_the_engine(run, recordings, script):
    recordings({"a.wav": "hello"})
    run("bench", "a.wav", "--calls", "2", "--language", "de", "--precision", "int8", "-q")
    assert {call.language for call in script.calls} == {"de"}
    assert script.settings[0].precision == "int8" and script.events == ["load", "close"]


def test_what_the_figures_are_of_is_plain_json(run, recordings, folder):
    recordings({"a.wav": "hello"})
    asked = ("--clip-timestamps", "0,2", "--logprob-threshold", "none", "--language", "de")
    assert run("bench", "a.wav", "--calls", "1", *asked, "--output", "f.json").code == 0
    document = json.loads((folder / "f.json").read_text())
    options = document["options"]
    assert (options["clip_timestamps"], options["suppress_tokens"]) == ([0, 2], [-1])
    assert (options["logprob_threshold"], options["language"]) == (None, "de")
    assert "prompt" not in options and "model" not in document["settings"]
    assert document["settings"]["wait_ms"] == 20


def test_a_recording_that_cannot_be_read_is_named_and_the_others_are_measured(run, recordings):
    recordings({"a.wav": "hello", "b.wav": "not sound"})
    ended = run("bench", "a.wav", "b.wav", "gone.wav", "--calls", "4")
    assert ended.code == 1 and "2 recordings failed" in ended.err
    assert "1 recording, 5.0 s" in ended.out and len(cells(ended.out)) == 3


def test_where_no_recording_can_be_read_nothing_is_measured(run, recordings, folder):
    recordings({"b.wav": "not sound"})
    ended = run("bench", "b.wav", "--output", "f.json")
    assert (ended.code, ended.out) == (1, "") and not (folder / "f.json").exists()
    assert "unexpected" not in ended.err and "1 recording failed" in ended.err


def test_a_checkout_says_that_others_can_be_compared_with(run, recordings, monkeypatch, tmp_path):
    recordings({"a.wav": "hello"})
    assert "make bench" in run("bench", "a.wav", "--calls", "1").out
    monkeypatch.setattr("batched_whisper.__file__", str(tmp_path / "site" / "b" / "__init__.py"))
    assert "make bench" not in run("bench", "a.wav", "--calls", "1").out


# --- the patterns


@dataclass
class Counted:
    """Counts concurrent callers; in the concurrent pattern all must meet."""

    meeting: threading.Barrier
    stats: Any = field(default_factory=ScriptedStats)
    most_at_once: dict[bool, int] = field(default_factory=dict)
    n_inside: int = 0
    n_calls: int = 0
    lock: Any = field(default_factory=threading.Lock)

    @property
    def transcribe(self) -> Counted:
        return self

    def __call__(self, audio: str, options: DecodingOptions) -> Transcript:
        in_thread = threading.current_thread() is not threading.main_thread()
        with self.lock:
            self.n_inside += 1
            self.n_calls += 1
            self.most_at_once[in_thread] = max(self.most_at_once.get(in_thread, 0), self.n_inside)
        if in_thread:
            self.meeting.wait(timeout=20)
        with self.lock:
            self.n_inside -= 1
        return Transcript(f"{audio} {options.language}", "en", 1.0, 1.0, (), ())

    def map(self, audios: list[str], options: DecodingOptions) -> list[Transcript]:
        return [Transcript(f"{a} {options.language}", "en", 1.0, 1.0, (), ()) for a in audios]


def test_callers_call_all_at_once_and_one_at_a_time_is_one_at_a_time():
    whisper = Counted(threading.Barrier(6))
    clips = [BenchClip("a", 2.0), BenchClip("b", 4.0)]
    options = DecodingOptions(language="en")
    passes = list(measure(whisper, clips, options, n_calls=6, n_rounds=1))  # type: ignore[arg-type]
    assert whisper.most_at_once == {False: 1, True: 6}
    assert [each.pattern for each in passes] == list(LoadPattern)
    assert [each.texts for each in passes] == [("a en", "b en"), *[("a en", "b en") * 3] * 2]
    assert [each.audio_s for each in passes] == [6.0, 18.0, 18.0]


@pytest.mark.parametrize(
    ("n_calls", "n_clips", "expected"),
    [(64, 3, 18), (64, 16, 16), (64, 17, 17), (64, 100, 64), (1, 1, 1), (2, 5, 2), (64, 1, 16)],
)
def test_one_caller_gets_whole_passes_over_the_clips(n_calls, n_clips, expected):
    assert n_sequential_calls(n_calls, n_clips) == expected


def a_pass(
    pattern: LoadPattern, wall_s: float, n_rows: int = 10, n_batches: int = 10, *texts: str
) -> Pass:
    return Pass(pattern, 12.0, wall_s, n_batches, n_rows, texts or ("a", "b"))


def test_figures_are_medians_and_ratios_are_of_speed():
    passes = [a_pass(LoadPattern.SEQUENTIAL, wall_s) for wall_s in (4.0, 6.0, 100.0)]
    passes += [a_pass(LoadPattern.CONCURRENT, wall_s, 60) for wall_s in (2.0, 3.0, 0.1)]
    passes += [a_pass(LoadPattern.MAP, 1.0, 80, 0)]
    alone, callers, mapped = summarise(passes)
    assert (alone.wall_s, alone.times_real_time, alone.speedup) == (6.0, 2.0, 1.0)
    assert (callers.times_real_time, callers.speedup) == (6.0, 3.0)
    assert (callers.mean_batch_size, callers.calls_per_s) == (6.0, 1.0)
    assert mapped.mean_batch_size == 0.0 and mapped.speedup == 6.0


def test_a_text_that_differs_in_any_call_is_counted_once_for_its_recording():
    same = a_pass(LoadPattern.SEQUENTIAL, 1.0, 1, 1, "a", "b")
    other = a_pass(LoadPattern.MAP, 1.0, 1, 1, "a", "b", "a", "x")
    assert n_differing([same, other], n_clips=2) == 1
    assert n_differing([same, same], n_clips=2) == 0


def test_without_recordings_those_of_the_demo_are_taken(run, monkeypatch, recordings):
    from batched_whisper.cli.io.inputs import RecordingSource

    recordings({"demo.wav": "to be"})
    source = RecordingSource("demo.wav", Path("demo.wav"), Path("demo.wav"))
    monkeypatch.setattr("batched_whisper.cli.bench.demo_sources", lambda: [source])
    assert "1 recording, 5.0 s" in run("bench", "--calls", "1").out
