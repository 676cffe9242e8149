"""The commands ``demo``, ``eval``, ``info`` and ``download``."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest

from batched_whisper.cli.demo import RECORDINGS, demo_sources
from batched_whisper.errors import MissingExtra, UnknownModel

# --- demo


def test_the_demo_takes_recordings_of_ones_own_and_shows_the_figures(run, recordings):
    recordings({"a.wav": "hello"})
    ended = run("demo", "a.wav")
    assert (ended.code, ended.out) == (0, "a.wav: hello\n")
    assert ended.err.startswith("1 recording, 5.0 s of audio in ")


def test_the_demo_finds_the_recordings_of_its_extra(tmp_path):
    for name in RECORDINGS:
        (tmp_path / "assets").mkdir(exist_ok=True)
        (tmp_path / "assets" / name).touch()
    sources = demo_sources(lambda package: tmp_path)
    assert [source.name for source in sources] == list(RECORDINGS)
    assert all(source.is_there() for source in sources)


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_without_its_extra_the_demo_says_what_to_install(folder):
    with pytest.raises(MissingExtra, match=r"pip install 'batched-whisper\[demo\]'"):
        demo_sources(lambda package: folder)


# --- info and download


def test_info_says_what_would_run_and_why_without_loading_it(run, script):
    ended = run("info", "--model", "tiny")
    assert ended.code == 0
    told = [line.split() for line in ended.out.splitlines()]
    assert ["model", "scripted"] in told and ["precision", "float32"] in told
    assert "- A test asked for it." in ended.out and "openvino" in ended.out
    assert script.settings[0].model == "tiny" and script.events == ["close"]


def test_download_says_where_the_model_is(run):
    assert run("download", "base").out == "base is in /models/here\n"
    assert run("download", "base", "--revision", "abc").out == "base at abc is in /models/here\n"


def test_a_model_that_does_not_exist_is_one_sentence(run, script, monkeypatch):
    def unknown(settings: object) -> None:
        raise UnknownModel("there is no model\nnonsense; try base")

    monkeypatch.setattr(script, "_open", unknown)
    ended = run("info", "--model", "nonsense")
    assert (ended.code, ended.err) == (1, "Error: there is no model nonsense; try base\n")


# --- eval


@pytest.fixture
def manifest(recordings, folder):
    """Three collections: one right, one with a wrong word in four, one in Japanese."""
    pytest.importorskip("jiwer", reason="the extra eval is not installed")
    said = {
        "a.wav": ("hello there", "Hello, there!", "en", "good"),
        "b.wav": ("the bat sat down", "The cat sat down.", "en", "fair"),
        "c.wav": ("今日は晴れ", "今日は雨れ", "ja", "other"),
        "d.wav": ("bonjour", "Bonjour", "fr", "other"),
        "e.wav": ("not sound", "x", "en", "fair"),
    }
    recordings({name: heard for name, (heard, *_) in said.items()})
    lines = [
        {"audio": name, "text": text, "language": language, "collection": collection}
        for name, (_, text, language, collection) in said.items()
    ]
    lines.append({"audio": "no-text.wav"})
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table's rows, without its heading."""
    lines = [line.split("  ") for line in table.splitlines() if line.startswith("  ")]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return [row for row in cells if row][1:]


def test_eval_measures_each_collection_and_all(run, manifest, folder):
    ended = run("eval", manifest, "--output", "figures.json")
    table = [row[:7] for row in rows(ended.out)]
    assert table == [
        ["good", "1", "2 words", "0.00%", "0", "0", "0"],
        ["fair", "1", "4 words", "25.00%", "1", "0", "0"],
        ["other", "1", "1 word", "0.00%", "0", "0", "0"],
        ["other", "1", "5 chars", "20.00%", "1", "0", "0"],
        ["all", "3", "7 words", "14.29%", "1", "0", "0"],
        ["all", "1", "5 chars", "20.00%", "1", "0", "0"],
    ]
    assert [row[-1] for row in rows(ended.out)] == [
        *("1 of 1", "1 of 1", "0 of 1", "0 of 1"),
        *("2 of 3", "0 of 1"),
    ]
    assert "scored in characters" in ended.out
    assert ended.code == 1 and "  e.wav: no decoder" in ended.err.replace(f"{folder}/", "")
    assert "1 recording without a text skipped" in ended.err

    document = json.loads((folder / "figures.json").read_text())
    assert document["model"] == "scripted" and document["options"]["task"] == "transcribe"
    assert [row["error_rate"] for row in document["collections"]] == [0, 0.25, 0, 0.2]
    assert [row["hypothesis"] for row in document["recordings"]][:2] == [
        *(" hello there", " the bat sat down"),
    ]
    assert len(document["failures"]) == 1


def test_detection_is_not_judged_where_the_language_is_given(run, manifest, script):
    ended = run("eval", manifest, "--language", "en", "--collection", "good")
    assert rows(ended.out)[0][-1] != "1 of 1" and ended.code == 0
    assert script.calls[0].language == "en"


def test_a_collection_may_be_chosen_and_one_that_is_not_there_is_told(run, manifest, script):
    ended = run("eval", manifest, "--collection", "good", "--collection", "other")
    assert [row[0] for row in rows(ended.out)][:3] == ["good", "other", "other"]
    script.settings.clear()
    ended = run("eval", manifest, "--collection", "gone")
    assert (ended.code, ended.err) == (
        2,
        "Error: --collection gone: the manifest has good, fair, other\n",
    )
    assert not script.settings


def measured(run, folder, text: str, language: str | None, *flags: str) -> list[str]:
    """The row of a manifest of one recording, without its speed."""
    line = {"audio": "a.wav", "text": text, "language": language}
    (folder / "list.jsonl").write_text(json.dumps(line))
    row = rows(run("eval", "list.jsonl", *flags).out)[0]
    return row[:8] + row[9:]


@pytest.mark.parametrize(
    ("heard", "text", "ways"),
    [
        ("two colors", "2 colours", ["en", "English", "EN"]),
        ("今日は晴れ", "今日は雨れ", ["ja", "Japanese", "JA"]),
    ],
)
def test_a_language_is_measured_the_same_however_it_is_told(
    run, recordings, folder, script, heard, text, ways
):
    pytest.importorskip("jiwer", reason="the extra eval is not installed")
    recordings({"a.wav": heard})
    told = [measured(run, folder, text, None, "--language", way) for way in ways]
    assert told == [told[0]] * len(ways)
    assert told[0][2] in ("2 words", "5 chars")
    script.language = ways[0]
    written = [measured(run, folder, text, way) for way in ways]
    assert written == [[*told[0], "1 of 1"]] * len(ways)


def test_a_language_per_window_is_measured_as_the_one_detected(run, recordings, folder, script):
    pytest.importorskip("jiwer", reason="the extra eval is not installed")
    recordings({"a.wav": "two colors"})
    flags = ("--language", "per_window")
    assert measured(run, folder, "2 colours", None, *flags)[2:4] == ["2 words", "0.00%"]
    assert measured(run, folder, "2 colours", "English", *flags)[-1] == "1 of 1"


def test_a_language_that_whisper_does_not_know_is_refused_before_an_engine_starts(
    run, manifest, script
):
    ended = run("eval", manifest, "--language", "klingon")
    assert ended.code == 2 and "'klingon' is unknown to Whisper" in ended.err
    assert not script.settings


def test_a_translation_is_measured_as_english(run, recordings, folder):
    pytest.importorskip("jiwer", reason="the extra eval is not installed")
    recordings({"a.wav": "two colors"})
    line = {"audio": "a.wav", "text": "2 colours", "language": "ja"}
    (folder / "list.jsonl").write_text(json.dumps(line))
    ended = run("eval", "list.jsonl", "--task", "translate")
    assert rows(ended.out)[0][:4] == ["(none)", "1", "2 words", "0.00%"]


@pytest.fixture
def unsure(recordings, folder):
    """Four windows; one of them is decoded again on a fitted context, and comes out wrong."""
    pytest.importorskip("jiwer", reason="the extra eval is not installed")
    names = recordings({"a.wav": "unsure", "b.wav": "right", "c.wav": "right", "d.wav": "right"})
    texts = dict.fromkeys(names, "right") | {"a.wav": "sure"}
    lines = [
        {"audio": name, "text": text, "collection": "left" if name == "a.wav" else "right"}
        for name, text in texts.items()
    ]
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_several_audio_contexts_stand_side_by_side(run, unsure, folder, script):
    ended = run("eval", unsure, "--audio-context", "fit, full", "--output", "figures.json")
    assert ended.code == 0
    assert [row[:7] for row in rows(ended.out)] == [
        ["left", "fit", "1", "1 word", "100.00%", "1", "100.0%"],
        ["left", "full", "1", "1 word", "0.00%", "1", "0.0%"],
        ["right", "fit", "3", "3 words", "0.00%", "3", "0.0%"],
        ["right", "full", "3", "3 words", "0.00%", "3", "0.0%"],
        ["all", "fit", "4", "4 words", "25.00%", "4", "25.0%"],
        ["all", "full", "4", "4 words", "0.00%", "4", "0.0%"],
    ]
    assert len(script.settings) == 1  # one engine for all
    turns = [context for context, _ in groupby(call.audio_context for call in script.calls)]
    assert turns == ["fit", "full"] * 3  # the first of each is a warm-up

    contexts = json.loads((folder / "figures.json").read_text())["audio_contexts"]
    assert list(contexts) == ["fit", "full"]
    assert contexts["fit"]["all"][0]["error_rate"] == 0.25
    assert contexts["fit"]["all"][0]["n_decoded_again"] == 1
    assert [len(each["recordings"]) for each in contexts.values()] == [4, 4]


def test_one_audio_context_is_measured_as_ever_and_says_what_was_decoded_again(run, unsure):
    ended = run("eval", unsure, "--audio-context", "fit")
    assert rows(ended.out)[-1][:4] == ["all", "4", "4 words", "25.00%"]
    assert "1 of 4 windows (25.0%) decoded again." in ended.out


def test_a_recording_that_fails_on_every_context_is_named_once(run, manifest):
    ended = run("eval", manifest, "--audio-context", "fit,full")
    assert ended.code == 1 and ended.err.count("e.wav: no decoder") == 1


def test_a_list_of_no_audio_context_is_refused(run, unsure, script):
    ended = run("eval", unsure, "--audio-context", ",")
    assert ended.code == 2 and "--audio-context" in ended.err and not script.settings


def test_a_manifest_without_texts_cannot_be_evaluated(run, folder):
    (folder / "list.jsonl").write_text('{"audio": "a.wav"}\n')
    ended = run("eval", "list.jsonl")
    assert ended.code == 1 and "has a reference text" in ended.err
