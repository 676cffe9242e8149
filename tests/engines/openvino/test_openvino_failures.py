"""Whatever the runtime says when it fails, it comes as an error of ours that tells the cause."""

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
def test_the_cause_is_the_last_line_of_what_the_runtime_says_or_else_its_kind(
    said: str, told: str
) -> None:
    with (
        pytest.raises(EngineError, match=f"OpenVINO failed while decoding: {told}$"),
        _failures("decoding"),
    ):
        raise RuntimeError(said)
