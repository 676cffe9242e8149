"""The GPU benchmark's own code, on a tiny shape and the processor."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed, so the GPU benchmark is not tried")

from batched_whisper.audio.features import log_mel
from benchmarks import cuda_bench
from benchmarks.gpu import accuracy, mix, parts, rig

ROOT = Path(__file__).parents[2]
MEASURED = [
    "laws",
    "limits",
    "throughput",
    "one by one",
    "latency",
    "step",
    "encoder",
    "determinism",
    "precisions",
    "endurance",
]
"""All parts but transformers', which need not be installed, and the kernels', for GPUs."""


def test_every_part_measures_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = parts.Scale(2, 2, 2, 1, 2, (1, 2), 1 << 16, repeats=1)
    monkeypatch.setattr(parts, "QUICK", tiny)
    monkeypatch.setattr(mix, "TOKENS_PER_S", 0.3)
    assert cuda_bench.main(["--quick", "--out", str(tmp_path), "--parts", ",".join(MEASURED)]) == 0
    [path] = tmp_path.iterdir()
    content = json.loads(path.read_text("utf-8"))
    assert list(content["parts"]) == MEASURED
    for name, figures in content["parts"].items():
        assert "failed" not in figures, (name, figures)
    assert content["parts"]["laws"]["passed"]
    for precision in ("auto", "float32"):
        assert content["parts"]["determinism"][precision]["share_equal_again"] == 1
    assert content["workload"] == "drawn, noise (no --speech)"
    assert "precision=fp8 needs a GPU" in capsys.readouterr().out


CASES = [parts.case_name(*case) for case in parts.CASES]


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Some tones as speech: 6 clips of half a second, each with two words."""
    folder = tmp_path / "speech"
    folder.mkdir()
    lines = []
    for i in range(6):
        tone = (3000 * np.sin(np.arange(8000) * (i + 1) / 50)).astype("<i2")
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(tone.tobytes())
        lines.append({"audio": f"{i}.wav", "text": "Good day", "language": "en", "duration_s": 0.5})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return folder


def run(out: Path, *arguments: str) -> dict[str, Any]:
    assert cuda_bench.main(["--quick", "--out", str(out), *arguments]) == 0
    [path] = out.iterdir()
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def test_with_speech_and_a_tokenizer_windows_are_heard_and_say_their_transcripts(
    tmp_path: Path, spoken: Path, base_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    task = rig.Rig.task
    monkeypatch.setattr(
        rig.Rig, "task", lambda *a, **k: heard.append(task(*a, **k).audio) or task(*a, **k)
    )
    models = tmp_path / "models"
    models.mkdir()
    (models / "base").symlink_to(base_model.files.folder)
    content = run(
        tmp_path / "out",
        *("--speech", str(spoken), "--models", str(models)),
        *("--parts", "throughput,one by one,latency,encoder"),
    )
    assert content["workload"].startswith("real speech: windows of 6 English clips")
    assert content["mixes"]["short"]["mean_s"] == 0.5
    assert content["mixes"]["mlperf-like"]["mean_s"] == 0.5  # with the gap two are too long
    n_tokens = len(base_model.tokenizer.encode(" Good day"))
    measured = content["parts"]
    assert [name for name, figures in measured.items() if "failed" in figures] == []
    for case in CASES:
        batched, alone = measured["throughput"][case], measured["one by one"][case]
        assert batched["mean_tokens"] == alone["mean_tokens"] == n_tokens
        ratio = batched["windows_per_s"] / alone["windows_per_s"]
        assert alone["batched_is_so_many_times"] == pytest.approx(ratio)
    tones = [log_mel(clip.samples, 16, 120) for clip in accuracy.clips_of(spoken)]
    assert all(any(np.array_equal(tone, each) for tone in tones) for each in heard)


def test_transformers_is_measured_beside_ours_on_the_same_windows(
    tmp_path: Path, spoken: Path, base_model: Any
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = ("--tokenizer", str(base_model.files.folder))
    content = run(tmp_path / "o", "--speech", str(spoken), *tokenizer, "--parts", "transformers")
    figures = content["parts"]["transformers"]
    assert "failed" not in figures, figures
    for case in ("short, full", "short, fitted", "full 30 s, full"):
        ours = figures[f"ours, {case}"]
        theirs = figures[f"transformers, {case.rpartition(', ')[0]}"]
        for key in ("n_windows", "mean_audio_s", "mean_tokens"):
            assert ours[key] == theirs[key]
        ratio = ours["windows_per_s"] / theirs["windows_per_s"]
        assert ours["over_transformers"] == pytest.approx(ratio)


def test_what_would_begin_after_the_budget_is_left_out_and_named(tmp_path: Path) -> None:
    late = cuda_bench.Report(tmp_path / "r.json", {}, deadline_s=time.perf_counter() - 1)
    late.add("slow", lambda: {"a": 1})
    written = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (written["left_out"], written["parts"]) == (["slow"], {})
    content = run(tmp_path / "out", "--budget-s", "0", "--parts", "limits,step")
    assert content["left_out"] == ["limits", "step"]
    assert run(tmp_path / "all", "--budget-s", "1e9", "--parts", "limits")["left_out"] == []


@pytest.mark.parametrize(
    ("said", "found", "used"),
    [("best", {"best": 40}, 40), ("best", {"failed": "no"}, None), ("7", {"best": 40}, 7)],
)
def test_what_overlap_finds_best_is_what_all_parts_are_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: Any, used: int | None
) -> None:
    monkeypatch.setattr(parts, "overlap", lambda rig, scale: found)
    monkeypatch.setattr(parts, "latency", lambda rig, scale: dict(rig.options))
    measured = run(tmp_path / "out", "--for-steps", said, "--parts", "latency")["parts"]
    assert ("overlap" in measured) == (said == "best")
    assert measured["latency"].get("n_step_sms") == used


def test_of_ways_to_share_the_device_one_that_fails_or_is_none_is_not_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_some(rig: Any, scale: Any, n_step_sms: int) -> Any:
        if n_step_sms == 16:
            raise RuntimeError("lost")
        packed = {"windows_per_s": 100 + n_step_sms}
        decoded = [SimpleNamespace(tokens=(i, n_step_sms if i else 0)) for i in range(4)]
        run = SimpleNamespace(decoded=decoded)
        return {"divided": n_step_sms == 40, "packed, full": packed}, run

    monkeypatch.setattr(parts, "_with_for_steps", with_some)
    monkeypatch.setattr(parts, "N_FOR_STEPS", (0, 16, 40, 64))
    found = parts.overlap(None, None)  # type: ignore[arg-type]
    assert found["best"] == 40  # 64 would be faster, but it divided nothing
    assert found["16 for steps"] == {"failed": "RuntimeError: lost"}
    assert found["0 for steps"]["share_equal"] == 1
    assert found["40 for steps"]["share_equal"] == 0.25


def test_sharing_the_device_is_measured(tmp_path: Path) -> None:
    figures = run(tmp_path / "out", "--parts", "overlap")["parts"]["overlap"]
    assert figures["best"] == 0  # a processor has nothing to divide
    for each in ("0 for steps", "40 for steps"):
        assert figures[each]["packed, full"]["windows_per_s"] > 0
        assert figures[each]["share_equal"] == 1


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
    drawn = mix.DrawnWorkload("")
    for name, mean_s, mean_tokens in (
        (mix.PACKED, 24.8, 70),
        (mix.SHORT, 7, 20),
        (mix.FULL_LENGTH, 28.75, 81),
    ):
        windows = drawn.windows(name, 4000)
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


def test_a_part_that_is_stuck_ends_the_program_and_keeps_what_was_measured(tmp_path: Path) -> None:
    stuck = (
        "import sys, time; from benchmarks import cuda_bench; from benchmarks.gpu import parts\n"
        "parts.latency = lambda *given: time.sleep(600)\n"
        "sys.exit(cuda_bench.main(sys.argv[1:]))"
    )
    options = ["--quick", "--out", str(tmp_path), "--parts", "limits,latency", "--part-s", "3"]
    began_s = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", stuck, *options], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert time.monotonic() - began_s < 120
    assert "in <lambda>" in ran.stderr  # where it was
    [path] = tmp_path.iterdir()
    measured = json.loads(path.read_text("utf-8"))["parts"]
    assert measured["limits"]["copy_bytes_per_s"] > 0
    assert measured["latency"] == {"failed": "not done after 3 s"}


@pytest.mark.parametrize(
    "why", ["slower in plain PyTorch: listen (no compiler)", "attention in plain PyTorch"]
)
def test_a_gpu_is_not_measured_without_its_kernels(why: str) -> None:
    info = SimpleNamespace(why=("on a GPU", why))
    on_gpu = SimpleNamespace(device="cuda")
    with pytest.raises(RuntimeError, match="not worth measuring: on a GPU"):
        rig.Rig._require_kernels(on_gpu, SimpleNamespace(info=info))
    info.why = ("attention by Triton kernels", "encoding is recorded as CUDA graphs")
    rig.Rig._require_kernels(on_gpu, SimpleNamespace(info=info))


def test_noise_is_as_far_below_the_speech_as_told_and_the_same_each_time(spoken: Path) -> None:
    clips = accuracy.clips_of(spoken)
    found, again = (accuracy.with_noise(clips, (10.0, 5.0)) for _ in range(2))
    assert [clip.text for clip in found] == 3 * [clip.text for clip in clips]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(found, again, strict=True))
    for i, level_db in ((len(clips), 10.0), (2 * len(clips), 5.0)):
        noise = found[i].samples - clips[0].samples
        ratio = np.mean(clips[0].samples ** 2) / np.mean(noise**2)
        assert 10 * np.log10(ratio) == pytest.approx(level_db, abs=0.3)
