"""Which recordings a command line means."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import wave
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.cli.io.inputs import RecordingSource, find_sources
from batched_whisper.cli.io.output_names import output_names
from batched_whisper.errors import (
    BatchedWhisperError,
    ManifestError,
    OptionError,
    UnreadableAudio,
)


def found(*paths: str, listed: bytes = b"") -> list[str]:
    return [source.name for source in find_sources(paths, lambda: listed)]


def test_files_are_taken_in_the_order_given_and_whatever_they_are_called(recordings):
    recordings({"b.wav": "1", "a.strange": "2"})
    assert found("b.wav", "a.strange") == ["b.wav", "a.strange"]


def test_a_folder_is_searched_to_the_bottom_for_sound_alone_in_one_order(recordings):
    recordings(
        {
            "in/z.WAV": "",
            "in/sub/deep/a.mp3": "",
            "in/film.mkv": "",
            "in/notes.txt": "",
            "in/.hidden.wav": "",
            "in/._z.wav": "",
            "in/.trash/a.wav": "",
        }
    )
    assert found("in") == ["in/film.mkv", "in/sub/deep/a.mp3", "in/z.WAV"]


def test_a_folder_without_sound_is_said(recordings):
    recordings({"in/notes.txt": ""})
    with pytest.raises(ManifestError, match="folder in contains no recordings"):
        found("in")


def test_a_glob_is_its_matches(recordings):
    recordings({"a1.wav": "", "a2.wav": "", "b.wav": "", "sub/a3.wav": ""})
    assert found("a*.wav") == ["a1.wav", "a2.wav"]
    assert found("**/a*.wav") == ["a1.wav", "a2.wav", "sub/a3.wav"]


def test_a_file_that_looks_like_a_glob_is_the_file(recordings):
    recordings({"a[1].wav": "", "a1.wav": ""})
    assert found("a[1].wav") == ["a[1].wav"]


def test_what_is_given_twice_is_taken_once(recordings):
    recordings({"in/a.wav": "", "in/b.wav": ""})
    assert found("in/b.wav", "in", "in/*.wav") == ["in/b.wav", "in/a.wav"]


def test_a_list_on_standard_input_may_hold_any_name(recordings):
    assert found("-", listed=b"a.wav\r\n\n b c.wav\n") == ["a.wav", " b c.wav"]
    assert found("-", listed=b"one\nname.wav\0two.wav\0") == ["one\nname.wav", "two.wav"]
    assert found("-", listed=b"caf\xe9.wav") == ["caf\udce9.wav"]


def test_addresses_are_refused():
    with pytest.raises(OptionError, match="download the file"):
        found("https://example.org/a.wav")


@pytest.mark.parametrize(
    ("path", "why"), [("gone.wav", "there is no such file"), ("*.wav", "no file matches")]
)
def test_a_file_that_is_not_there_fails_when_its_turn_comes(folder, path, why):
    (source,) = find_sources([path], bytes)
    assert not source.is_there()
    with pytest.raises(UnreadableAudio, match=why):
        source.open()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("x" * 300 + ".wav", "File name too long"),
        ("x" * 300 + "*.wav", "File name too long"),
        ("/".join(["deep"] * 2000) + ".wav", "File name too long"),
        ("a\0b.wav", "null"),
        ("a\0b/*.wav", "null"),
        ("loop/a.wav", "symbolic links"),
        ("talk.wav/a.wav", "Not a directory"),
    ],
)
def test_a_path_that_no_file_can_have_fails_alone_when_its_turn_comes(
    folder, recordings, path, why
):
    recordings({"talk.wav": "", "other.wav": ""})
    (folder / "loop").symlink_to("loop")
    first, wrong, last = find_sources(["talk.wav", path, "other.wav"], bytes)
    assert (first.name, last.name) == ("talk.wav", "other.wav") and first.is_there()
    assert wrong.name == path and not wrong.is_there()
    with pytest.raises(UnreadableAudio, match=why):
        wrong.open()


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_searched(
    recordings, monkeypatch
):
    recordings({"in/a.wav": "", "in/closed/b.wav": "", "in/open/c.wav": ""})
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    *readable, closed = find_sources(["in"], bytes)
    assert [source.name for source in readable] == ["in/a.wav", "in/open/c.wav"]
    assert closed.name == "in/closed"
    with pytest.raises(UnreadableAudio, match="the folder cannot be read: Permission denied"):
        closed.open()
    assert [source.name for source in find_sources(["in/closed"], bytes)] == ["in/closed"]


@given(st.lists(st.text("a*[?~./\0\udce9é\n", max_size=8).map("nowhere/{}".format), max_size=4))
def test_whatever_is_asked_for_is_a_recording_or_a_refusal_of_ours(paths):
    try:
        sources = find_sources(paths, bytes)
    except BatchedWhisperError:
        return
    assert len(output_names(sources)) == len(sources)
    for source in sources:
        with contextlib.suppress(UnreadableAudio):
            source.open()


def wav() -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\x01\xfe" * 100)
    return written.getvalue()


@pytest.mark.parametrize(
    "sound",
    [
        wav(),
        b"ID3\x03\0\0\0\0\x01\x0aTIT2",
        b"fLaC\0\0\0\x22\x10\0",
        b"OggS\0\x02\0\0\0\0\0\0\0\0",
        b"\0\0\0\x20ftypM4A \0\0\0\0",
    ],
)
def test_sound_on_standard_input_is_refused_with_what_to_do(sound):
    with pytest.raises(OptionError, match=r"list of paths .* name its file"):
        find_sources(["-"], lambda: sound)


NAMES = st.text("aAx./", min_size=1, max_size=8).map(lambda name: f"{name.strip('/.') or 'x'}.wav")


@given(st.lists(NAMES, unique=True, max_size=8))
def test_no_two_recordings_share_a_file_even_where_case_is_ignored(names):
    sources = [RecordingSource(name, PurePath(PurePath(name).name), Path(name)) for name in names]
    places = output_names(sources)
    assert set(places) == set(names)
    assert len({str(place).casefold() for place in places.values()}) == len(names)
    assert not any(place.is_absolute() or ".." in place.parts for place in places.values())


def test_names_are_as_short_as_they_can_be(folder):
    paths = ["a/x.wav", "b/x.wav", "x.mp3", "c/y.wav", "Z.wav", "z.flac"]
    names = output_names(find_sources(paths, bytes))
    assert {name: str(place) for name, place in names.items()} == {
        "a/x.wav": "a_x.wav",
        "b/x.wav": "b_x.wav",
        "x.mp3": "x.mp3",
        "c/y.wav": "y",
        "Z.wav": "Z.wav",
        "z.flac": "z.flac",
    }
