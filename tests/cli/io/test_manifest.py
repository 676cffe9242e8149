"""Manifests are read as they are written, and errors name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from batched_whisper.cli.io.inputs import from_manifest
from batched_whisper.cli.io.manifest import Row, read_manifest
from batched_whisper.cli.io.output_names import output_names
from batched_whisper.errors import ManifestError, UnreadableAudio


def test_a_row_has_what_is_known_and_paths_start_at_the_manifest(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text(
        '\ufeff{"audio": "in/a.wav", "text": "", "language": null, "duration_s": 2, "more": []}\n'
        "\n"
        '{"audio": "/b.wav", "text": "grü\u2028ße", "language": "de", "collection": "x"}'
    )
    assert read_manifest(path) == [
        Row(tmp_path / "in/a.wav", "in/a.wav", text="", duration_s=2),
        Row(Path("/b.wav"), "/b.wav", text="grü\u2028ße", language="de", collection="x"),
    ]


@pytest.mark.parametrize(
    ("written", "code"), [("English", "en"), ("JA", "ja"), ("pt-BR", "pt"), ("klingon", None)]
)
def test_a_language_is_known_however_it_is_written(tmp_path, written, code):
    path = tmp_path / "list.jsonl"
    path.write_text(f'{{"audio": "a.wav", "language": "{written}"}}')
    [row] = read_manifest(path)
    assert row.language == code


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"audio": "a.wav"', "not JSON"),
        ('["a.wav"]', "expected an object"),
        ('{"text": "a"}', '"audio" must be'),
        ('{"audio": ""}', '"audio" must be'),
        ('{"audio": 1}', '"audio" must be'),
        ('{"audio": "a\\u0000"}', '"audio" must be'),
        ('{"audio": "a", "text": 1}', '"text" must be a string'),
        ('{"audio": "a", "language": ["en"]}', '"language" must be a string'),
        ('{"audio": "a", "duration_s": true}', '"duration_s" must be a number'),
    ],
)
def test_an_error_names_the_file_and_the_line(tmp_path, line, told):
    path = tmp_path / "list.jsonl"
    path.write_text('{"audio": "a.wav"}\n\n' + line + "\n")
    with pytest.raises(ManifestError, match=r"list\.jsonl, line 3: .*" + told):
        read_manifest(path)


def test_a_manifest_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.jsonl cannot be read: No such file"):
        read_manifest(tmp_path / "gone.jsonl")
    with pytest.raises(ManifestError, match=r"cannot be read: .*null"):
        read_manifest(tmp_path / "\0.jsonl")
    (tmp_path / "sound.jsonl").write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(ManifestError, match="not UTF-8 text"):
        read_manifest(tmp_path / "sound.jsonl")


@pytest.mark.parametrize("audio", [".", "/", "./", "..", "x/..", "x" * 300])
def test_a_row_that_names_no_file_fails_when_its_turn_comes(tmp_path, audio):
    path = tmp_path / "list.jsonl"
    path.write_text(f'{{"audio": "{audio}"}}\n{{"audio": "a.wav"}}\n')
    sources = from_manifest(path)
    assert len(output_names(sources)) == 2
    with pytest.raises(UnreadableAudio):
        sources[0].open()


def test_files_made_of_a_manifest_stay_in_the_output_folder(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"audio": "../a.wav"}\n{"audio": "/x/b.wav"}\n{"audio": "in/c.wav"}\n')
    assert [str(source.place) for source in from_manifest(path)] == ["a.wav", "b.wav", "in/c.wav"]


def test_the_collection_of_real_speech_is_a_manifest(speech):
    rows = read_manifest(speech / "manifest.jsonl")
    assert rows and all(row.audio.is_file() for row in rows)
    assert {"ljspeech", "languages"} <= {row.collection for row in rows}
