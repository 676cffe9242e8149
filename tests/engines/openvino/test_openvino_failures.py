"""Failures of OpenVINO become an EngineError that names the cause."""

from __future__ import annotations

import pytest

from batched_whisper.engines.openvino.engine import _failures
from batched_whisper.errors import EngineError


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Exception from src/inference.cpp:80:\nCheck 'x' failed\nout of memory\n",
            "out of memory",
        ),
        ("", "RuntimeError"),
        (" \n", "RuntimeError"),
    ],
)
def test_engine_error_has_the_last_line_of_openvinos_message(said: str, told: str) -> None:
    with (
        pytest.raises(EngineError, match=f"OpenVINO failed while decoding: {told}$"),
        _failures("decoding"),
    ):
        raise RuntimeError(said)
