"""The command ``transcribe``: what it sends where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from subtitle_readers import read_srt, read_vtt

from batched_whisper.cli.messages import about
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import OptionError


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- standard output


def test_one_recording_is_its_text_alone_on_standard_output(run, recordings):
    recordings({"a.wav": "hello there"})
    ended = run("transcribe", "a.wav")
    assert (ended.code, ended.out) == (0, "hello there\n")


def test_several_recordings_are_a_line_each_with_their_names(run, recordings):
    recordings({"b.wav": "two\nlines", "a.wav": "one"})
    assert run("transcribe", "b.wav", "a.wav").out == "b.wav: two lines\na.wav: one\n"


def test_the_format_may_be_chosen_for_standard_output(run, recordings):
    recordings({"a.wav": "hi", "b.wav": "ho"})
    assert run("transcribe", "a.wav", "--format", "srt").out.startswith("1\n00:00:00,000 -->")
    lines = run("transcribe", "a.wav", "b.wav", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a.wav", "b.wav"]


def test_a_layout_of_subtitles_turns_the_times_of_words_on(run, recordings, script):
    recordings({"a.wav": "one two three"})
    ended = run("transcribe", "a.wav", "--format", "srt", "--max-words-per-line", "2")
    assert [text for *_, text in read_srt(ended.out)] == ["one two", "three"]
    assert script.calls[-1].word_timestamps and script.calls[-1].timestamps
    run("transcribe", "a.wav", "--format", "srt")
    assert not script.calls[-1].word_timestamps


def test_of_several_formats_those_with_subtitles_are_laid_out(run, recordings, folder):
    recordings({"a.wav": "one two"})
    shaped = ("--max-line-width", "3", "--max-lines", "1", "--highlight-words")
    ended = run("transcribe", "a.wav", "--format", "text,srt,vtt", "--output-dir", "out", *shaped)
    assert ended.code == 0
    assert (folder / "out/a.txt").read_text() == "one two\n"
    assert [text for *_, text in read_srt((folder / "out/a.srt").read_text())] == [
        *("<u>one</u>", "<u>two</u>"),
    ]
    assert "<u>one</u>" in (folder / "out/a.vtt").read_text()


def test_a_layout_from_the_environment_is_of_no_account_to_other_formats(
    run, recordings, script, monkeypatch
):
    recordings({"a.wav": "one two"})
    monkeypatch.setenv("BATCHED_WHISPER_MAX_WORDS_PER_LINE", "1")
    assert run("transcribe", "a.wav").out == "one two\n"
    assert not script.calls[-1].word_timestamps
    subtitles = run("transcribe", "a.wav", "--format", "vtt").out
    assert [text for *_, text in read_vtt(subtitles)] == ["one", "two"]


@pytest.mark.parametrize("forms", [["--format", "srt"], ["--format", "text,json"]])
def test_what_cannot_be_mixed_on_standard_output_needs_a_folder(run, recordings, script, forms):
    recordings({"a.wav": "hi", "b.wav": "ho"})
    ended = run("transcribe", "a.wav", "b.wav", *forms)
    assert ended.code == 2 and "--output-dir" in ended.err
    assert not script.settings  # refused before an engine was made


def test_figures_come_last_on_standard_error_and_quiet_hides_them(run, recordings):
    recordings({"a.wav": "hello", "b.wav": "you"})
    figures = run("transcribe", "a.wav", "b.wav").err.splitlines()[-1]
    assert figures.startswith("2 recordings, 8.0 s of audio in ")
    assert figures.endswith("times real time; 7 batches of 3.5 on average")
    assert run("transcribe", "a.wav", "b.wav", "--quiet").err == ""


def test_warnings_are_shown_with_their_recording(run, recordings):
    recordings({"a.wav": "torn"})
    ended = run("transcribe", "a.wav")
    assert ended.err.startswith("a.wav: it is cut off at its end\n") and ended.code == 0


def test_a_reader_that_goes_away_is_no_reason_to_complain(start, recordings):
    recordings({"a.wav": "one", "b.wav": "two"})
    reader, writer = os.pipe()
    os.close(reader)
    ended = start("transcribe", "a.wav", "b.wav", stdout=writer)
    os.close(writer)
    assert (ended.code, ended.err) == (141, "")


# --- files


def test_each_format_asked_for_is_a_file(run, recordings, folder):
    recordings({"a.wav": "hi"})
    ended = run(
        *("transcribe", "a.wav", "--output-dir", "out/deep"),
        *("--format", "srt,vtt", "--format", "json", "--format", "SRT"),
    )
    assert (ended.code, ended.out) == (0, "")
    written = sorted(path.name for path in (folder / "out/deep").iterdir())
    assert written == ["a.json", "a.srt", "a.vtt"]
    assert json.loads((folder / "out/deep/a.json").read_text())["name"] == "a.wav"


def test_recordings_of_one_name_get_files_of_their_own(run, recordings, folder):
    names = recordings({"a/x.wav": "1", "b/x.wav": "2", "x.mp3": "3", "y.wav": "4"})
    run("transcribe", *names, "--output-dir", "out")
    files = {path.name: path.read_text() for path in (folder / "out").iterdir()}
    assert sorted(files.values()) == ["1\n", "2\n", "3\n", "4\n"]
    assert files["y.txt"] == "4\n"


def test_a_folder_keeps_its_shape(run, recordings, folder):
    recordings({"in/a/x.wav": "1", "in/b/x.wav": "2"})
    run("transcribe", "in", "--output-dir", "out")
    assert (folder / "out/a/x.txt").read_text() == "1\n"
    assert (folder / "out/b/x.txt").read_text() == "2\n"


def test_a_folder_that_cannot_be_made_is_said_before_an_engine_starts(run, recordings, script):
    recordings({"a.wav": "hi", "out": "a file"})
    ended = run("transcribe", "a.wav", "--output-dir", "out")
    assert ended.code == 1 and "the folder out cannot be created" in ended.err
    assert not script.settings


# --- JSON lines


def test_json_lines_are_one_a_recording(run, recordings, folder):
    names = recordings({"b.wav": "1", "a.wav": "2", "c.wav": "3"})
    assert run("transcribe", *names, "--output", "new/out.jsonl").code == 0
    assert [line["name"] for line in lines_of(folder / "new/out.jsonl")] == names


def test_what_is_kept_is_written_as_recordings_end_and_what_is_shown_in_order(
    run, recordings, folder
):
    names = recordings({"a.wav": "long", "b.wav": "1", "c.wav": "not sound", "d.wav": "2"})
    ended = run("transcribe", *names, "--output", "out.jsonl")
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == ["b.wav", "a.wav", "d.wav"]
    assert [line["text"] for line in lines_of(folder / "out.jsonl")] == [" 1", " long", " 2"]
    assert "  c.wav: no decoder can read it" in ended.err
    assert run("transcribe", *names).out == "a.wav: long\nb.wav: 1\nd.wav: 2\n"


def test_results_of_an_earlier_job_are_not_overwritten(run, recordings, folder, script):
    recordings({"a.wav": "1"})
    (folder / "out.jsonl").write_text('{"name": "old"}\n')
    ended = run("transcribe", "a.wav", "--output", "out.jsonl")
    assert ended.code == 1 and "--resume" in ended.err
    assert (folder / "out.jsonl").read_text() == '{"name": "old"}\n'
    assert not script.settings


def test_resume_transcribes_only_what_is_missing(run, recordings, folder, script):
    names = recordings({"a.wav": "1", "b.wav": "2", "c.wav": "3"})
    run("transcribe", "b.wav", "--output", "out.jsonl")
    script.heard.clear()
    ended = run("transcribe", *names, "--output", "out.jsonl", "--resume")
    assert ended.code == 0 and "1 recording of 3 already done in an earlier run" in ended.err
    assert script.heard == ["1", "3"]
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == ["b.wav", "a.wav", "c.wav"]


def test_a_finished_job_resumed_starts_no_engine(run, recordings, script):
    recordings({"a.wav": "1"})
    run("transcribe", "a.wav", "--output", "out.jsonl")
    script.settings.clear()
    assert run("transcribe", "a.wav", "--output", "out.jsonl", "--resume").code == 0
    assert not script.settings


def test_resume_works_on_a_folder_of_files_too(run, recordings, script, folder):
    recordings({"a.wav": "1", "b.wav": "2"})
    run("transcribe", "a.wav", "b.wav", "--output-dir", "out", "--format", "text,srt")
    (folder / "out/b.srt").unlink()
    script.heard.clear()
    run("transcribe", "a.wav", "b.wav", "--output-dir", "out", "--format", "text,srt", "--resume")
    assert script.heard == ["2"] and (folder / "out/b.srt").is_file()


def test_two_places_are_each_resumed_where_they_stand(run, recordings, folder):
    recordings({"a.wav": "1", "b.wav": "2"})
    both = ("--output-dir", "out", "--output", "out.jsonl")
    run("transcribe", "a.wav", "b.wav", *both)
    (folder / "out/a.txt").unlink()
    run("transcribe", "a.wav", "b.wav", *both, "--resume")
    assert (folder / "out/a.txt").is_file()
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--resume"], "--output"),
        (["--output", "out.srt"], "must end in .jsonl"),
        (["--output", "out.jsonl", "--format", "srt"], "--output-dir"),
        (["--format", "docx"], "there is no format 'docx'"),
        (["--max-batch-size", "0"], "--max-batch-size"),
        (["--device", "toaster"], "--device"),
        (
            ["--max-line-width", "40"],
            "--max-line-width applies to subtitles only: add --format srt",
        ),
        (["--highlight-words", "--format", "text"], "--highlight-words applies to subtitles only"),
        (["--max-line-width", "0", "--format", "srt"], "--max-line-width"),
        (["--max-lines", "2", "--format", "srt"], "max_line_width"),
        (["--highlight-words", "--no-word-timestamps", "--format", "srt"], "--no-word-timestamps"),
        (["--wait-ms", "soon"], "--wait-ms"),
        (["--no-such-flag"], "--no-such-flag"),
        (["https://example.org/a.wav"], "download the file"),
    ],
)
def test_a_wrong_command_line_is_told_with_exit_code_2(run, recordings, script, arguments, told):
    recordings({"a.wav": "1"})
    ended = run("transcribe", "a.wav", *arguments)
    assert ended.code == 2 and told in ended.err and "Traceback" not in ended.err
    assert not script.settings


def test_nothing_to_transcribe_is_a_wrong_command_line(run):
    assert run("transcribe").code == 2


# --- what goes wrong


def test_bad_recordings_are_listed_and_the_others_go_on(run, recordings, folder):
    names = recordings({"a.wav": "1", "b.wav": "not sound", "c.wav": "a bug", "d.wav": "2"})
    ended = run("transcribe", *names, "gone.wav", "*.ogg", ".", "--output", "out.jsonl")
    assert ended.code == 1
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == ["a.wav", "d.wav"]
    listed = ended.err.splitlines()
    assert listed[0] == "4 recordings failed:"
    assert sorted(listed[1:5]) == [
        "  *.ogg: no file matches",
        "  b.wav: no decoder can read it; convert it to WAV",
        "  c.wav: RuntimeError: of the program",
        "  gone.wav: there is no such file",
    ]
    assert listed[5].startswith("2 recordings, 2.0 s of audio")


def test_a_path_that_no_file_can_have_does_not_stop_the_others(run, recordings, folder):
    recordings({"a.wav": "1"})
    job = ("transcribe", "x" * 300 + ".wav", "a.wav", "--output-dir", "out")
    for way in ([], ["--resume"]):
        ended = run(*job, *way)
        assert ended.code == 1 and "xxx.wav: the file cannot be opened: File name" in ended.err
        assert (folder / "out/a.txt").read_text() == "1\n"


def test_sound_in_the_place_of_a_list_of_paths_is_a_wrong_command_line(
    run, folder, monkeypatch, script
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"RIFF\x10\0\0\0WAVE")))
    ended = run("transcribe", "-")
    assert ended.code == 2 and "name its file" in ended.err.replace("\n", " ")
    assert not script.settings


def test_a_name_is_not_said_twice():
    assert about("a.wav", "a.wav: too short") == "a.wav: too short"
    assert about("a.wav", "a.wave of noise") == "a.wav: a.wave of noise"


def test_what_failed_is_tried_again_on_resume(run, recordings, script):
    recordings({"a.wav": "not sound", "b.wav": "1"})
    run("transcribe", "a.wav", "b.wav", "--output", "out.jsonl")
    recordings({"a.wav": "mended"})
    script.heard.clear()
    assert run("transcribe", "a.wav", "b.wav", "--output", "out.jsonl", "--resume").code == 0
    assert script.heard == ["mended"]


def test_no_engine_is_started_for_files_that_are_not_there(run, script):
    ended = run("transcribe", "gone.wav")
    assert ended.code == 1 and "  gone.wav: there is no such file\n" in ended.err
    assert not script.settings


def test_a_dead_engine_ends_the_job_at_once(run, recordings, script, folder):
    recordings({"a.wav": "1", "b.wav": "a dead engine", "c.wav": "2"})
    ended = run("transcribe", "a.wav", "b.wav", "c.wav", "--output", "out.jsonl")
    assert ended.code == 1 and ended.err == "Error: the engine is gone; start again\n"
    assert len(lines_of(folder / "out.jsonl")) == 1
    assert script.events == ["load", "close"]


def test_what_failed_before_the_engine_died_is_named_too(run, recordings):
    names = recordings({"a.wav": "not sound", "b.wav": "1", "c.wav": "a dead engine"})
    ended = run("transcribe", *names)
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "1 recording failed:",
        "  a.wav: no decoder can read it; convert it to WAV",
        "Error: the engine is gone; start again",
    ]


def test_an_engine_of_several_that_breaks_fails_its_recordings_and_the_others_go_on(
    run, recordings, script
):
    names = recordings({"a.wav": "a lost GPU", "b.wav": "1", "c.wav": "a lost GPU", "d.wav": "2"})
    ended = run("transcribe", *names)
    assert (ended.code, ended.out) == (1, "b.wav: 1\nd.wav: 2\n")
    assert ended.err.splitlines()[:3] == [
        "2 recordings failed:",
        "  a.wav: the engine on cuda:1 is out of service; the others go on",
        "  c.wav: the engine on cuda:1 is out of service; the others go on",
    ]


def test_an_option_that_no_recording_can_be_transcribed_with_ends_the_job(run, recordings, script):
    recordings({"a.wav": "a wrong option", "b.wav": "a wrong option"})
    ended = run("transcribe", "a.wav", "b.wav")
    assert (ended.code, ended.err) == (2, "Error: language='xx' is unknown to Whisper\n")
    assert script.heard == ["a wrong option"]


def test_an_unexpected_error_is_one_sentence_and_the_way_to_its_traceback(
    run, recordings, monkeypatch, script
):
    recordings({"a.wav": "1"})

    def broken(settings: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(script, "_open", broken)
    ended = run("transcribe", "a.wav")
    assert ended.code == 1
    assert ended.err == (
        "Error: ZeroDivisionError: by zero\n"
        "Unexpected error; set BATCHED_WHISPER_DEBUG=1 to see the traceback.\n"
    )
    monkeypatch.setenv("BATCHED_WHISPER_DEBUG", "1")
    assert "Traceback" in run("transcribe", "a.wav").err


def test_an_option_error_from_within_has_exit_code_2(run, recordings, monkeypatch, script):
    recordings({"a.wav": "1"})

    def refuse(settings: object) -> None:
        raise OptionError("this processor has no bfloat16; choose float32")

    monkeypatch.setattr(script, "_open", refuse)
    ended = run("transcribe", "a.wav")
    assert (ended.code, ended.err) == (
        2,
        "Error: this processor has no bfloat16; choose float32\n",
    )


def test_ctrl_c_says_what_is_written_and_how_to_go_on(run, recordings, script, folder):
    names = recordings({"a.wav": "1", "b.wav": "Ctrl-C", "c.wav": "2"})
    ended = run("transcribe", *names, "--output", "out.jsonl")
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == (
        "Interrupted: 1 of 3 recordings are in out.jsonl. "
        "Run the same command with --resume to continue."
    )
    assert script.events == ["load", "close"]
    recordings({"b.wav": "calm"})
    assert run("transcribe", *names, "--output", "out.jsonl", "--resume").code == 0
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == names


def test_ctrl_c_reaches_a_process_of_its_own(start, recordings):
    recordings({"a.wav": "1", "b.wav": "Ctrl-C"})
    ended = start("transcribe", "a.wav", "b.wav")
    assert (ended.code, ended.out, ended.err) == (130, "a.wav: 1\n", "Interrupted.\n")


# --- killed, and resumed


@pytest.mark.parametrize("dies_after", [0, 1, 4])
def test_a_killed_job_resumed_has_every_recording_once(start, recordings, folder, dies_after):
    names = recordings({f"{n}.wav": f"said {n}" for n in range(5)})
    job = ("transcribe", *names, "--output", "out.jsonl")
    assert start(*job, dies_after=dies_after).code == -9
    written = (folder / "out.jsonl").read_bytes()
    assert written.count(b"\n") == dies_after and (not written or written.endswith(b"\n"))
    assert start(*job, "--resume").code == 0
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == names


@pytest.mark.parametrize(
    "where", [["--output", "out.jsonl"], ["--output-dir", "out"], ["--output", "out/a.jsonl"]]
)
def test_a_killed_job_loses_nothing_that_had_ended_behind_a_long_recording(
    start, recordings, folder, where
):
    names = recordings({"a.wav": "long", "b.wav": "1", "c.wav": "2", "d.wav": "3"})
    job = ("transcribe", *names, *where)
    assert start(*job, dies_after=1).code == -9
    ended = start(*job, "--resume")
    assert ended.code == 0 and ended.err.startswith(
        "1 recording of 4 already done in an earlier run\n"
    )
    if where[0] == "--output":
        kept = [str(line["name"]) for line in lines_of(folder / where[1])]
        assert kept[0] == "b.wav" and sorted(kept) == names


def test_a_job_may_be_killed_again_and_again(start, recordings, folder):
    names = recordings({f"{n}.wav": f"said {n}" for n in range(5)})
    job = ("transcribe", *names, "--output", "out.jsonl", "--resume")
    codes = [start(*job, dies_after=2).code for _ in range(3)]
    assert codes == [-9, -9, 0]
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == names


# --- settings


def test_flags_win_over_variables_and_variables_over_defaults(run, recordings, monkeypatch, script):
    recordings({"a.wav": "1"})
    monkeypatch.setenv("BATCHED_WHISPER_MAX_BATCH_SIZE", "8")
    monkeypatch.setenv("BATCHED_WHISPER_WAIT_MS", "5")
    monkeypatch.setenv("MODEL", "tiny")
    monkeypatch.setenv("BATCHED_WHISPER_TASK", "translate")
    run("transcribe", "a.wav", "--wait-ms", "7.5", "--language", "de", "--device", "cpu")
    (settings,) = script.settings
    assert (settings.model, settings.device) == ("tiny", "cpu")
    assert (settings.max_batch_size, settings.wait_ms) == (8, 7.5)
    assert settings.max_queue_size == Settings().max_queue_size
    (options,) = script.calls
    assert options == DecodingOptions(language="de", task="translate")


def test_a_wrong_variable_is_named(run, recordings, monkeypatch):
    recordings({"a.wav": "1"})
    monkeypatch.setenv("BATCHED_WHISPER_WAIT_MS", "soon")
    ended = run("transcribe", "a.wav")
    assert (ended.code, ended.err) == (2, "Error: BATCHED_WHISPER_WAIT_MS='soon' is not a number\n")


@pytest.mark.parametrize(("variable", "expected"), [("0", False), ("1", True), ("", True)])
def test_a_variable_counts_as_the_users_word(
    run, recordings, script, monkeypatch, variable, expected
):
    recordings({"a.wav": "1"})
    monkeypatch.setenv("BATCHED_WHISPER_TIMESTAMPS", variable)
    run("transcribe", "a.wav", "--format", "srt")
    assert script.calls[0].timestamps is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--format", "srt"], True),
        (["--format", "json,vtt"], True),
        (["--format", "tsv"], True),
        (["--format", "json"], True),
        (["--format", "text"], False),
        (["--format", "jsonl"], False),
        (["--output", "results.jsonl"], False),
        ([], False),
        (["--timestamps"], True),
        (["--format", "srt", "--no-timestamps"], False),
    ],
)
def test_formats_that_are_read_for_segments_turn_timestamps_on_unless_the_user_said_no(
    run, recordings, script, arguments, expected
):
    recordings({"a.wav": "1"})
    run("transcribe", "a.wav", "--output-dir", "out", *arguments)
    assert script.calls[0].timestamps is expected


def test_a_list_of_paths_comes_on_standard_input(run, recordings, monkeypatch):
    recordings({"a b.wav": "1", "c.wav": "2"})
    listed = io.TextIOWrapper(io.BytesIO(b"a b.wav\n\nc.wav\r\n"))
    monkeypatch.setattr(sys, "stdin", listed)
    assert run("transcribe", "-").out == "a b.wav: 1\nc.wav: 2\n"


def test_a_manifest_is_transcribed_from_its_own_folder(run, recordings, folder):
    recordings({"in/x/a.wav": "1"})
    (folder / "in/list.jsonl").write_text('{"audio": "x/a.wav"}\n')
    for way in (["in/list.jsonl"], ["--manifest", "in/list.jsonl"]):
        run("transcribe", *way, "--output-dir", "out", "--output", "out.jsonl", "--resume")
    assert (folder / "out/x/a.txt").read_text() == "1\n"
    assert [line["name"] for line in lines_of(folder / "out.jsonl")] == ["in/x/a.wav"]
