"""The example of a batched function does what it shows."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "batched_function.py"


def test_the_example_batches_a_thousand_calls(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one call: -6.0 dB"
    assert lines[1] == "a thousand: 0.0 to -999.0 dB"
    assert int(lines[2].split()[0]) > 32
    assert lines[3] == "unloaded"
