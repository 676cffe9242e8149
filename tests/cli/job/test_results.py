"""Every recording of a job has one outcome, whenever the transcriber asks for the next."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from scripted_whisper import ScriptedWhisper

from batched_whisper.cli.io.inputs import RecordingSource
from batched_whisper.cli.job.results import Failed, JobSummary, Transcribed, outcomes
from batched_whisper.config.options import DecodingOptions
from batched_whisper.errors import OptionError, UnreadableAudio


def source(name: str) -> RecordingSource:
    def read() -> bytes:
        if name.startswith("unopened"):
            raise UnreadableAudio("it cannot be opened")
        return b"not sound" if name.startswith("bad") else name.encode()

    return RecordingSource(name, PurePath(name), read)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("n_in_flight", [1, 2, 9])
@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"],
        ["unopened"],
        ["unopened 1", "a", "unopened 2", "bad", "b", "unopened 3", "unopened 4"],
        ["a", "unopened", "bad"],
    ],
)
def test_each_recording_has_one_outcome_of_its_own(names, n_in_flight, in_order):
    whisper = ScriptedWhisper([], [], n_in_flight=n_in_flight)
    ended = list(outcomes(whisper, map(source, names), DecodingOptions(), in_order=in_order))
    assert [each.source.name for each in ended] == names
    assert_each_has_its_own(ended)


def test_outcomes_come_in_the_order_of_the_sources_or_as_recordings_end():
    names = ["long 1", "unopened", "a", "bad", "long 2", "b", "c"]
    for in_order in (True, False):
        results = outcomes(
            ScriptedWhisper([], []), map(source, names), DecodingOptions(), in_order=in_order
        )
        ended = list(results)
        as_they_end = ["unopened", "a", "long 1", "bad", "b", "long 2", "c"]
        assert [each.source.name for each in ended] == (names if in_order else as_they_end)
        assert_each_has_its_own(ended)


def test_who_stops_early_gives_up_what_is_in_flight():
    whisper = ScriptedWhisper([], [])
    results = outcomes(whisper, map(source, ["long", "a", "b"]), DecodingOptions(), in_order=False)
    assert next(results).source.name == "a"
    [(_, future, _)] = whisper.long
    results.close()
    assert future.cancelled()


def test_an_error_that_is_of_all_ends_the_job_after_what_came_before_it():
    whisper = ScriptedWhisper([], [])
    results = outcomes(whisper, map(source, ["a", "a wrong option", "b"]), DecodingOptions())
    assert next(results).source.name == "a"
    with pytest.raises(OptionError, match="language='xx'"):
        next(results)
    assert "b" not in whisper.heard


def assert_each_has_its_own(ended):
    for each in ended:
        if isinstance(each, Transcribed):
            assert each.transcript.text == f" {each.source.name}"
            assert each.transcript.name == each.source.name
        else:
            assert isinstance(each, Failed) and each.source.name.startswith(("bad", "unopened"))


def test_recordings_are_opened_as_they_are_asked_for():
    opened = []

    def endless():
        for number in range(10**9):
            opened.append(number)
            yield source(str(number))

    results = outcomes(ScriptedWhisper([], []), endless(), DecodingOptions())
    next(results)
    results.close()
    assert len(opened) <= 3  # two in flight and the one that is done


def test_a_job_of_no_time_has_figures_too():
    assert str(JobSummary(1, 5.0, 0.0, 0, 0.0)).endswith(
        "0.0 times real time; 0 batches of 0.0 on average"
    )
