"""Each example runs as it is written, and is one idea on one screen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batched_whisper.cli.demo import demo_sources
from batched_whisper.errors import MissingExtra

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAID = "fail better"
"""The last words of the recording, however a model sets the stops before them."""


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of speech, alone in a folder."""
    try:
        speech = next(s.audio for s in demo_sources() if s.name == "beckett.wav")
    except MissingExtra as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("talks")
    return Path(shutil.copy(str(speech), folder / "talk.wav"))


def output_of(name: str, *arguments: str | Path) -> str:
    """What the example prints, run as a user runs it."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.lower()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_screen_and_says_how_it_is_run(example: Path) -> None:
    text = example.read_text("utf-8")
    assert len(text.splitlines()) <= 40
    assert f"examples/{example.name}" in text or "sys.argv" not in text


@pytest.mark.usefixtures("base_model")
class TestWithARealModel:
    def test_one_recording(self, talk: Path) -> None:
        first, *segments = output_of("one_recording.py", talk).splitlines()
        assert first.startswith("10.0 s of en")
        assert SAID in first
        assert SAID in segments[-1]

    def test_segments_as_they_come(self, talk: Path) -> None:
        assert SAID in output_of("segments_as_they_come.py", talk).splitlines()[-1]

    def test_many_recordings(self, talk: Path) -> None:
        folder = talk.parent / "many"
        folder.mkdir()
        for name in ("a.wav", "b.wav"):
            shutil.copy(talk, folder / name)
        (folder / "broken.wav").write_bytes(b"not sound")
        a, b, broken, figures = output_of("many_recordings.py", folder).splitlines()
        assert a.startswith("a.wav") and SAID in a
        assert b.startswith("b.wav") and SAID in b
        assert broken.startswith("broken.wav: ") and SAID not in broken
        assert figures.startswith("2 windows")

    def test_async_service(self, talk: Path) -> None:
        good, bad, again = output_of("async_service.py", talk, "nothing.wav", talk).splitlines()
        assert good.startswith("200: ") and SAID in good
        assert bad.startswith("400: ") and "nothing.wav" in bad
        assert again == good

    def test_batched_model(self, talk: Path) -> None:
        pytest.importorskip("datasets", reason="pip install 'batched-whisper[datasets]'")
        printed = output_of("batched_model.py", talk, talk).splitlines()
        assert len(printed) == 2
        assert all(SAID in text for text in printed)

    def test_array_samples(self, talk: Path) -> None:
        whole, half = output_of("array_samples.py", talk).splitlines()
        assert SAID in whole
        assert half.startswith("half: ") and SAID not in half
