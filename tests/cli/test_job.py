"""Every recording of a job has one outcome, whenever the transcriber asks for the next."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from scripted_whisper import ScriptedWhisper

from batched_whisper.cli.inputs import Source
from batched_whisper.cli.job import Failed, Figures, Transcribed, outcomes
from batched_whisper.config import DecodingOptions
from batched_whisper.errors import UnreadableAudio


def source(name: str) -> Source:
    def read() -> bytes:
        if name.startswith("unopened"):
            raise UnreadableAudio("it cannot be opened")
        return b"not sound" if name.startswith("bad") else name.encode()

    return Source(name, PurePath(name), read)


@pytest.mark.parametrize("n_in_flight", [0, 1, 9])
@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"],
        ["unopened"],
        ["unopened 1", "a", "unopened 2", "bad", "b", "unopened 3", "unopened 4"],
        ["a", "unopened", "bad"],
    ],
)
def test_each_recording_has_one_outcome_of_its_own(names, n_in_flight):
    whisper = ScriptedWhisper({}, [], [], n_in_flight=n_in_flight)
    ended = list(outcomes(whisper, map(source, names), DecodingOptions()))
    assert sorted(each.source.name for each in ended) == sorted(names)
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

    results = outcomes(ScriptedWhisper({}, [], []), endless(), DecodingOptions())
    next(results)
    results.close()
    assert len(opened) <= 3  # two in flight and the one that is done


def test_a_job_of_no_time_has_figures_too():
    assert str(Figures(1, 5.0, 0.0, 0, 0.0)).endswith(
        "0.0 times real time; 0 batches of 0.0 on average"
    )
