"""What importing OpenVINO does not do here: it reports to nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PRETENCE = """
from pathlib import Path

Path(__file__).with_name("was-imported").touch()

class Telemetry:
    def __init__(self, *given, **named):
        pass

    def __getattr__(self, name):
        return lambda *given, **named: None
"""


@pytest.mark.parametrize("module", ["engines.openvino.engine", "audio.silero", "whisper"])
def test_openvino_is_imported_without_its_telemetry(tmp_path: Path, module: str) -> None:
    pretence = tmp_path / "openvino_telemetry"
    pretence.mkdir()
    (pretence / "__init__.py").write_text(PRETENCE)
    (pretence / "main.py").write_text("from openvino_telemetry import Telemetry")
    loads = f"import sys, batched_whisper.{module}; print('openvino' in sys.modules)"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", loads],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "True"
    assert not (pretence / "was-imported").exists()
