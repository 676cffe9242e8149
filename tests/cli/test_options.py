"""Each declared option is a flag; its help, range and words are the declared ones."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

import batched_whisper
from batched_whisper.cli import options as flags
from batched_whisper.config.fields import CheckedOptions, option
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import OptionError

COMMANDS = ["transcribe", "demo", "eval", "bench", "info", "download"]
HEAVY = ("openvino", "av", "numpy", "huggingface_hub", "datasets", "jiwer", "tokenizers")


@dataclasses.dataclass(frozen=True)
class Sample(CheckedOptions):
    count: int = option(3, "A count [of things].", minimum=1, maximum=5)
    ratio: float | None = option(None, "A ratio.", minimum=0, maximum=1)
    is_on: bool = option(True, "On.")
    word: str = option("a", "A word.", choices=("a", "b"))
    mixed: float | str = option("auto", "Or a number.", minimum=0, maximum=9, choices=("auto",))
    limit: float | None = option(0.5, "A limit.", minimum=-1)


@pytest.fixture
def sample(monkeypatch):
    """Runs a command that takes `Sample`, and gives what it got."""
    monkeypatch.setitem(flags.PANELS, Sample, "Sample")
    got = []

    def command(*, sample: Sample) -> None:
        got.append(sample)

    command.__annotations__ = {"sample": Sample, "return": type(None)}
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command()(flags.takes_options(command))

    def run(*arguments: str) -> Sample | None:
        got.clear()
        app(args=list(arguments), standalone_mode=False)
        return got[0] if got else None

    return run


def test_what_is_no_option_object_stays_as_the_command_declares_it():
    """Where a default is None, Python 3.10 would wrap the kind in Optional, which hides it."""
    declared = Annotated[list[str] | None, typer.Argument(metavar="PATH")]

    def command(paths: declared = None) -> None: ...

    command.__annotations__ = {"paths": declared, "return": None}
    (parameter,) = inspect.signature(flags.takes_options(command)).parameters.values()
    assert parameter.annotation == declared


def test_nothing_given_is_the_defaults(sample):
    assert sample() == Sample()


def test_each_kind_of_flag_gives_its_kind_of_value(sample):
    assert sample("--mixed", "auto") == Sample()
    given = ("--count", "5", "--ratio", "0.5", "--no-is-on", "--word", "b", "--mixed", "2")
    assert sample(*given) == Sample(5, 0.5, False, "b", 2.0)


@pytest.mark.parametrize("wrong", [("--count", "6"), ("--ratio", "2"), ("--word", "c")])
def test_ranges_and_words_are_checked_and_the_flag_is_named(sample, wrong):
    with pytest.raises(OptionError, match=f"^{wrong[0]}="):
        sample(*wrong)


def test_a_number_that_can_be_switched_off_is_a_number_or_the_word_none(sample, monkeypatch):
    assert sample("--limit", "-0.5") == Sample(limit=-0.5)
    assert sample("--limit", "none") == Sample(limit=None)
    monkeypatch.setenv("BATCHED_WHISPER_LIMIT", "none")
    assert sample() == Sample(limit=None)
    assert sample("--limit", "2") == Sample(limit=2.0)
    for wrong in ("-2", "some"):
        with pytest.raises(OptionError, match=f"^--limit='?{wrong}"):
            sample("--limit", wrong)


def test_a_variable_out_of_its_range_is_not_blamed_on_a_flag(sample, monkeypatch):
    monkeypatch.setenv("BATCHED_WHISPER_COUNT", "9")
    with pytest.raises(OptionError, match=r"^count=9 is out of range"):
        sample()


def test_variables_are_read_where_no_flag_is_given(sample, monkeypatch):
    monkeypatch.setenv("BATCHED_WHISPER_COUNT", "4")
    monkeypatch.setenv("BATCHED_WHISPER_IS_ON", "no")
    assert sample() == Sample(4, is_on=False)
    assert sample("--count", "2", "--is-on") == Sample(2)


def test_the_help_says_defaults_and_words(sample, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    sample("--help")
    told = capsys.readouterr().out
    for part in ("A count [of things]. [1 to 5, default: 3]", "[default: on]", "a|b", "--no-is-on"):
        assert part in told


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_every_flag(command, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    ended = run(command, "--help")
    assert ended.code == 0 and ended.err == ""
    declared = {
        "download": [],
        "info": [Settings],
    }.get(command, [Settings, DecodingOptions])
    for owner in declared:
        for field in dataclasses.fields(owner):
            assert f"--{field.name.replace('_', '-')} " in ended.out
            assert field.metadata["help"] in " ".join(ended.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_is_cut_short_on_80_columns(command, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "…" not in run(command, "--help").out


def test_help_loads_nothing_heavy():
    package = str(Path(batched_whisper.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {package!r})\n"
        "import batched_whisper.cli.app\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (loaded.returncode, loaded.stdout) == (0, "\n")


def test_the_package_runs_as_a_module():
    package = str(Path(batched_whisper.__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, "-m", "batched_whisper", "--version"],
        cwd=package,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == f"batched-whisper {batched_whisper.__version__}\n"


def test_no_command_is_the_help(run):
    ended = run()
    assert "transcribe" in ended.out + ended.err


THRESHOLDS = ["compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"]


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("command", ["transcribe", "demo", "bench", "eval"])
def test_a_threshold_that_is_switched_off_is_off_in_every_command(
    command, name, run, recordings, folder, script
):
    recordings({"a.wav": "hello"})
    given = "a.wav"
    if command == "eval":
        pytest.importorskip("jiwer", reason="the extra eval is not installed")
        given = "list.jsonl"
        (folder / given).write_text('{"audio": "a.wav", "text": "hello"}\n')
    assert run(command, given, f"--{name.replace('_', '-')}", "none").code == 0
    assert set(script.calls) == {DecodingOptions(**{name: None})}
