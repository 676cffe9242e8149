"""Programs of their own that use a `Whisper` with the listener in place of its engine."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from scripted_speech import SOON_S

import batched_whisper

if TYPE_CHECKING:
    from conftest import LoadedModel

_PRELUDE = """
import os, sys, threading
from pathlib import Path
from scripted_speech import Listener, sentence, tone
from batched_whisper import Whisper
from batched_whisper.backends import local
from batched_whisper.errors import Closed
from batched_whisper.tokens.tokenizer import Tokenizer

class Told(Listener):
    def close(self):
        super().close()
        print("engine closed", flush=True)

folder = Path(sys.argv[1])
listener = Told(Tokenizer.from_folder(folder), 4)
local.make_engines = lambda *_: [listener]
whisper = Whisper(folder, wait_ms=0, max_batch_size=4, max_queue_size=8).load()
"""


def run_program(program: str, model: LoadedModel) -> subprocess.CompletedProcess[str]:
    """Run it, with ``whisper`` and ``listener``; lines that it prints are in ``stdout``."""
    rooms = (Path(__file__).parent, Path(batched_whisper.__file__).parents[1])
    paths = os.pathsep.join([*map(str, rooms), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(program), str(model.files.folder)],
        env={**os.environ, "PYTHONPATH": paths, "BATCHED_WHISPER_VAD": "false"},
        capture_output=True,
        text=True,
        timeout=2 * SOON_S,
        check=False,
    )
