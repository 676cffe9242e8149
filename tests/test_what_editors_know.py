"""What a type checker, and so an editor, knows of the public calls: run over real programs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import README, blocks

ROOT = Path(__file__).resolve().parents[1]

[MAP_LOOP] = [
    block for _, block in blocks(README, "python") if "in whisper.transcribe.map(" in block
]

CALLS = """
from pathlib import Path
from batched_whisper import DecodingOptions, Settings, Whisper

whisper = Whisper("base", settings=Settings(device="cpu"), precision="int8")
paths = [Path("a.wav"), Path("b.wav")]
reveal_type(whisper.transcribe("a.wav", options=DecodingOptions(language="en"), task="translate"))
reveal_type(whisper.transcribe_batch(paths))
reveal_type(whisper.submit("a.wav").result())
for transcript in whisper.transcribe.map(paths, order_outputs=False, language="en"):
    reveal_type(transcript)
for either in whisper.transcribe.map(paths, return_exceptions=True):
    reveal_type(either)
for segment in whisper.transcribe.segments("a.wav", timestamps=True):
    reveal_type(segment)


async def main() -> None:
    reveal_type(await whisper.transcribe.aio("a.wav"))
    async for transcript in whisper.transcribe.map.aio(paths, return_exceptions=False):
        reveal_type(transcript)
    async for either in whisper.transcribe.map.aio(paths, return_exceptions=True):
        reveal_type(either)
    async for segment in whisper.transcribe.segments.aio("a.wav"):
        reveal_type(segment)
"""

KNOWN = [
    *("Transcript", "list[Transcript]", "Transcript", "Transcript", "Transcript | Exception"),
    *("Segment", "Transcript", "Transcript", "Transcript | Exception", "Segment"),
]

MISTAKES = """
from batched_whisper import DecodingOptions, Settings, Whisper

whisper = Whisper("base")
for transcript in whisper.transcribe.map(["a.wav"]):
    transcript.txt
for either in whisper.transcribe.map(["a.wav"], return_exceptions=True):
    either.text
whisper.transcribe("a.wav").segments[0].start_s
whisper.transcribe("a.wav", lanugage="en")
whisper.transcribe("a.wav", task="summarise")
whisper.transcribe.map(["a.wav"], channels="left")
whisper.transcribe("a.wav", options={"language": "en"})
Whisper("base", precision="int4")
Whisper("base", max_batch_size="many")
Whisper("base", settings=DecodingOptions())
DecodingOptions(task="summarise")
Settings(log_mel="moon")
"""


def checked(*paths: Path) -> list[str]:
    """What mypy says of these files, in its strictest way."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty"]
    done = subprocess.run(
        [*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_examples_are_right_in_every_type() -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    assert checked(ROOT / "examples") == []


def test_in_the_readmes_own_loop_a_transcript_is_known_to_be_one(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    program = tmp_path / "loop.py"
    before = 'from batched_whisper import Whisper\nwhisper = Whisper("base")\n'
    program.write_text(before + MAP_LOOP.rstrip() + "\n    reveal_type(transcript)\n")
    [said] = checked(program)
    assert '"batched_whisper.types.Transcript"' in said


def test_every_call_is_known_to_give_what_it_gives(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    program = tmp_path / "calls.py"
    program.write_text(CALLS)
    said = [re.search(r'Revealed type is "(.*)"$', line) for line in checked(program)]
    known = [re.sub(r"[a-z_.]+\.(?=[A-Zl])", "", found[1]) for found in said if found]
    assert known == KNOWN


def test_every_mistake_is_seen_where_it_is_made(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    seen = {int(line.split(":")[1]) for line in checked(program) if ": error: " in line}
    numbered = enumerate(MISTAKES.splitlines(), 1)
    wrong = {
        n for n, line in numbered if line and not re.match(r'from|for|whisper = Whisper\("', line)
    }
    assert seen == wrong
