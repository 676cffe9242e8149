"""Ctrl-C stays an ordinary Ctrl-C, whatever was loaded and closed before."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import signal
from batched_whisper import Whisper

Whisper("base", device="cpu").load().close()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.usefixtures("base_model")
def test_ctrl_c_after_close_does_not_crash_the_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
