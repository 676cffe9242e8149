"""The bar is there on a terminal alone, and never in the way of results."""

from __future__ import annotations

import io
import os
import pty
import sys

import pytest
from scripted_whisper import ScriptedWhisper

from batched_whisper.cli.job.progress import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def whisper():
    return ScriptedWhisper([], [])


def shown(display: Display, whisper: ScriptedWhisper, monkeypatch, err: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with display.loading():
        whisper.load()
    with display.running(whisper, 2):
        display.advance(90.0)
        display.warn("a warning [of brackets]")
        display.print("a result\n")
        display.advance(30.0)
    return err.getvalue()


def test_a_terminal_sees_recordings_seconds_speed_and_queue(whisper, monkeypatch, capsys):
    told = shown(Display(quiet=False), whisper, monkeypatch, Terminal())
    assert "2/2" in told.replace("\x1b[32m", "") and "120 s" in told
    assert "x real time" in told and "0 waiting" in told
    assert "a warning [of brackets]" in told and "a result" not in told
    assert capsys.readouterr().out == "a result\n"


def test_where_results_and_bar_share_a_terminal_the_bar_makes_room(whisper, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert "a result" in shown(Display(quiet=False), whisper, monkeypatch, Terminal())


def test_a_file_sees_warnings_alone(whisper, monkeypatch, capsys):
    told = shown(Display(quiet=False), whisper, monkeypatch, io.StringIO())
    assert told == "a warning [of brackets]\n"
    assert capsys.readouterr().out == "a result\n"


def test_quiet_shows_nothing_but_results(whisper, monkeypatch, capsys):
    assert shown(Display(quiet=True), whisper, monkeypatch, Terminal()) == ""
    assert capsys.readouterr().out == "a result\n"


def test_a_pipe_gets_whole_results_while_the_bar_is_on_a_terminal(start, recordings):
    recordings({"a.wav": "word " * 100})
    main, terminal = pty.openpty()
    ended = start("transcribe", "a.wav", stderr=terminal)
    os.close(terminal)
    os.close(main)
    assert (ended.code, ended.out) == (0, ("word " * 100).strip() + "\n")
