"""The GPU benchmark's own code, on a tiny shape and the processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed, so the GPU benchmark is not tried")

from benchmarks import cuda_bench
from benchmarks.gpu import mix, parts

MEASURED = [
    "laws",
    "limits",
    "step",
    "encoder",
    "throughput",
    "one by one",
    "latency",
    "determinism",
    "precisions",
    "endurance",
]
"""All parts but transformers', which need not be installed, and the kernels', for GPUs."""


def test_every_part_measures_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = parts.Scale(2, 1, 2, (1, 2), 1 << 16, repeats=1)
    monkeypatch.setattr(parts, "QUICK", tiny)
    monkeypatch.setattr(mix, "TOKENS_PER_S", 0.3)
    assert cuda_bench.main(["--quick", "--out", str(tmp_path), "--parts", ",".join(MEASURED)]) == 0
    [path] = tmp_path.iterdir()
    content = json.loads(path.read_text("utf-8"))
    assert list(content["parts"]) == MEASURED
    for name, figures in content["parts"].items():
        assert "failed" not in figures, (name, figures)
    assert content["parts"]["laws"]["passed"]
    assert content["parts"]["determinism"]["share_equal_again"] == 1
    assert "precision=fp8 is for GPUs alone" in capsys.readouterr().out


def test_a_part_that_fails_loses_no_other(tmp_path: Path) -> None:
    report = cuda_bench.Report(tmp_path / "r.json", {"seed": 0})
    report.add("good", lambda: {"a": 1.0})
    report.add("bad", lambda: {"b": 1 / 0})
    report.add("last", lambda: {"c": 2})
    written = json.loads((tmp_path / "r.json").read_text("utf-8"))["parts"]
    assert (written["good"]["a"], written["last"]["c"]) == (1.0, 2)
    assert "ZeroDivisionError" in written["bad"]["failed"]
    assert "ZeroDivisionError" in report.table()


def test_the_drawn_mixes_are_those_that_they_are_named_after() -> None:
    packed, single = mix.mlperf_like(4000), mix.short(4000)
    for windows, mean_s, mean_tokens in ((packed, 24.8, 70), (single, 7, 20)):
        durations = [window.duration_s for window in windows]
        assert sum(durations) / 4000 == pytest.approx(mean_s, rel=0.03)
        assert max(durations) <= 30
        assert sum(window.n_tokens for window in windows) / 4000 == pytest.approx(
            mean_tokens, rel=0.05
        )
    assert mix.mlperf_like(50, seed=1) == mix.mlperf_like(50, seed=1)


def test_a_fitted_context_holds_the_window_and_is_never_more_than_full() -> None:
    for window in mix.mlperf_like(100) + mix.short(100):
        fitted = window.context(1500, fitted=True)
        assert min(1500, 50 * window.duration_s) <= fitted <= window.context(1500, fitted=False)


def test_a_manifest_tells_tokens_or_is_estimated_from_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"duration_s": 3.0, "n_tokens": 9}\n{"duration_s": 50, "text": "one two three four"}\n'
        '{"duration_s": 1}\n'
    )
    assert mix.of_file(path) == [mix.WindowSize(3.0, 9), mix.WindowSize(30.0, 4)]
