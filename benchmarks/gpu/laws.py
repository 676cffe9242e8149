"""The tests of the protocol and of the kernels, run on this device as one part of the benchmark.

They hold the engine against plain NumPy, whatever is encoded, stepped, rewound and copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "test_contract",
    "test_schedules",
    "test_alignment",
    "test_beam_search",
    "cuda/kernels/test_kernels",
    "cuda/kernels/test_fp8_linear",
    "cuda/model/test_log_mel",
    "cuda/kernels/test_dispatch",
)
LONGEST_S = 90


def laws(device: str) -> dict[str, Any]:
    """How the tests went; their output in whole where one failed."""
    tests = ROOT / "tests"
    names = TESTS if device != "cpu" else TESTS[:1]
    files = [str(tests / "engines" / f"{name}.py") for name in names]
    # Without the fixtures for speech and real models, whose needs may not be installed.
    folders = (ROOT, tests, tests / "engines", tests / "models")
    paths = os.pathsep.join(map(str, folders))
    name = "cuda" if device != "cpu" else "pytorch-cpu-float32 and allowed_of_one_token"
    command = ["pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-k", name, *files]
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    summary = ran.stdout.strip().splitlines()[-1:] or [ran.stderr[-500:]]
    found: dict[str, Any] = {"passed": ran.returncode == 0, "summary": summary[0]}
    if ran.returncode:
        found["texts"] = (ran.stdout + ran.stderr)[-20_000:]
        print(found["texts"], flush=True)
    return found
