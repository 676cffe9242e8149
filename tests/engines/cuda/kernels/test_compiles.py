"""Triton's compiler accepts every kernel, for GPUs that need not be present.

The interpreter of `test_kernels` accepts what the compiler does not, such as a name whose type
changes in a branch. A kernel that fails is replaced by plain PyTorch, many times slower.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
if find_spec("triton") is None:  # not imported: `test_kernels` must set its mode first
    pytest.skip("Triton is not installed: pip install --no-deps triton", allow_module_level=True)

HERE = Path(__file__).parent
KERNELS = HERE.parents[3] / "batched_whisper" / "engines" / "cuda" / "kernels"


CAPABILITIES = (80, 90)
"""Of an A100, and of an H100 and H200. Floating point of 8 bits came in between."""
SHARED_BYTES = 99 << 10
"""What a program may have of a multiprocessor's memory on GPUs of capability 8.6, 8.9 and 12.0, the
least since 8.0 (CUDA C++ programming guide, technical specifications)."""


@pytest.fixture(scope="module")
def compiling() -> Iterator[dict[int, subprocess.Popen[str]]]:
    """Start one process per compute capability, since compiling takes time."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (HERE.parents[3], HERE)))
    processes = {
        capability: subprocess.Popen(
            [sys.executable, HERE / "compile_for_a_gpu.py", str(capability)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for capability in CAPABILITIES
    }
    yield processes
    for each in processes.values():
        each.kill()
        each.wait()


def kernels_in(path: Path) -> set[str]:
    """Return the functions that are launched: ``name[grid](...)``."""
    module = ast.parse(path.read_text("utf-8"))
    defined = {each.name for each in module.body if isinstance(each, ast.FunctionDef)}
    calls = [each.func for each in ast.walk(module) if isinstance(each, ast.Call)]
    launched = {getattr(f.value, "id", "") for f in calls if isinstance(f, ast.Subscript)}
    return launched & defined


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_triton_kernel_compiles(
    compiling: dict[int, subprocess.Popen[str]], capability: int
) -> None:
    printed, errors = compiling[capability].communicate()
    assert compiling[capability].returncode == 0, errors[-4000:]
    lines = [line.split() for line in printed.splitlines()]
    launched = kernels_in(KERNELS / "decoder_kernels.py")
    launched |= kernels_in(KERNELS / "encoder_kernels.py")
    # Those of `decoder_attention` are chosen by its table.
    launched |= {"_attention_kernel", "int8_attention_kernel"}
    assert {name for name, _ in lines} == launched - (
        {"_quantise_kernel"} if capability < 89 else set()
    )
    too_much = [line for line in lines if int(line[1]) > SHARED_BYTES]
    assert not too_much
