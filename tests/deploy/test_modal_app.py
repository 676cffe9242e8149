"""The recipe on Modal: what the app asks Modal for, and what comes of it.

Modal itself is a stand-in on this machine; its command line, its client and its containers are the
real ones.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("modal", reason="pip install 'batched-whisper[modal]'")
pytest.importorskip("datasets", reason="pip install 'batched-whisper[datasets]'")

import hub_stand_in
import numpy as np
from modal_stand_in import StandInModal, serving
from speech_data_set import NAME, data_set_hub, rows_of

from batched_whisper import Whisper
from batched_whisper.audio.decode import decode
from batched_whisper.cli.demo import demo_sources
from batched_whisper.models.cache_folder import user_cache_folder

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "deploy" / "modal" / "batched_whisper.py"
ON_CPU = {"MODEL_NAME": "base", "MODEL_GPU": ""}
ENGLISH = {"language": "en"}


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandInModal]:
    """Modal on this machine. The volume is an empty folder, and compiled graphs are shared."""
    environment = {
        "HF_HOME": str(tmp_path / "volume"),
        "HF_HUB_CACHE": str(tmp_path / "volume" / "hub"),
        "BATCHED_WHISPER_CACHE_DIR": str(user_cache_folder()),
    }
    with serving(StandInModal(tmp_path, APP, environment)) as stand_in:
        yield stand_in


def modal(
    stand_in: StandInModal, *arguments: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line program ``modal`` from the clone."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MODEL_", "MODAL_"))}
    environment |= {
        "MODAL_SERVER_URL": stand_in.url,
        "MODAL_TOKEN_ID": "ak-x",
        "MODAL_TOKEN_SECRET": "as-x",
        "MODAL_CONFIG_PATH": str(stand_in.folder / "none"),
        **(variables or {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "modal", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


class TestWhatTheAppAsksFor:
    def test_on_a_gpu_it_has_the_shape_of_the_original(self, stand_in: StandInModal) -> None:
        ran = modal(stand_in, "deploy", str(APP))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert stand_in.published.name == "example-batched-whisper"
        model = stand_in.function("Model.*")
        assert model.resources.gpu_config.gpu_type == "A10G"
        assert model.resources.gpu_config.count == 1
        assert model.concurrency_limit == 10
        assert (model.batch_max_size, model.batch_linger_ms) == (64, 1000)
        assert list(model.method_definitions) == ["transcribe"]
        for function in stand_in.functions.values():
            mounts = {m.mount_path: m.volume_id for m in function.volume_mounts}
            volume = stand_in.objects[mounts["/model"]]
            assert volume.volume_metadata.name == "hf-hub-cache"
        names = {function.function_name for function in stand_in.functions.values()}
        assert names == {"Model.*", "Engine.*", "download_model", "transcribe_hf_dataset"}

    def test_the_continuous_class_takes_many_calls_and_no_batches(
        self, stand_in: StandInModal
    ) -> None:
        modal(stand_in, "deploy", str(APP))
        engine = stand_in.function("Engine.*")
        assert (engine.max_concurrent_inputs, engine.target_concurrent_inputs) == (256, 128)
        assert engine.batch_max_size == 0
        assert engine.resources.gpu_config.gpu_type == "A10G"

    def test_the_image_has_the_clone_and_what_it_needs(self, stand_in: StandInModal) -> None:
        modal(stand_in, "deploy", str(APP))
        commands = "\n".join(stand_in.image_commands())
        installed = next(line for line in commands.splitlines() if "openvino" in line)
        assert "torch>=" in installed and "datasets>=" in installed
        assert not any(name in commands for name in ("transformers", "librosa", "modal", "demo"))
        assert "--no-deps /package" in commands
        variables = stand_in.image_variables()
        assert variables["HF_HUB_CACHE"] == "/model"
        assert variables["MODEL_NAME"] == "openai/whisper-large-v3"
        assert len(variables["MODEL_REVISION"]) == 40

    def test_without_a_gpu_it_needs_no_torch(self, stand_in: StandInModal) -> None:
        modal(stand_in, "deploy", str(APP), variables=ON_CPU)
        assert not stand_in.function("Model.*").resources.gpu_config.gpu_type
        assert "torch" not in "\n".join(stand_in.image_commands())
        # Another model is one variable, and has no revision of the first one.
        assert stand_in.image_variables()["MODEL_NAME"] == "base"
        assert stand_in.image_variables()["MODEL_REVISION"] == ""


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    with Whisper("base") as whisper:
        return [t.text for t in whisper.transcribe.map((r["audio"] for r in rows), **ENGLISH)]


@pytest.mark.usefixtures("base_model")
class TestAWholeRun:
    @pytest.mark.parametrize("flags", [(), ("--continuous",)], ids=["batched", "continuous"])
    def test_every_text_of_a_data_set(
        self, stand_in: StandInModal, speech: Path, flags: tuple[str, ...]
    ) -> None:
        rows = rows_of(speech, 66)
        with hub_stand_in.serving(data_set_hub(rows)) as hub:
            stand_in.environment["HF_ENDPOINT"] = hub.url
            ran = modal(stand_in, "run", str(APP), *flags, variables=ON_CPU)
        assert ran.returncode == 0, ran.stderr + stand_in.printed()
        printed = [line for line in ran.stdout.splitlines() if line and line[0] not in "✓├└"]
        *texts, figures = printed
        assert texts == texts_of(rows)
        seconds = sum(len(decode(row["audio"]["bytes"]).samples) for row in rows) / 16_000
        assert figures.startswith(f"66 samples, {seconds:.1f} s of audio in ")
        if flags:
            assert stand_in.batches["Engine.*"] == [1] * 66
            assert float(figures.rpartition(" ")[2]) > 2
        else:
            assert stand_in.batches["Model.*"] == [64, 2]
            assert figures.endswith("; mean batch 33.0")
            assert "Transcribing 64 audio samples" in stand_in.printed()
        assert f"Loading dataset {NAME}" in stand_in.printed()

    def test_a_model_that_is_not_there_is_said_in_words_to_a_caller_without_the_package(
        self, stand_in: StandInModal
    ) -> None:
        stand_in.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
        variables = {**ON_CPU, "MODEL_NAME": "no/such"}
        ran = modal(stand_in, "run", f"{APP}::download_model", variables=variables)
        assert ran.returncode != 0
        assert "Error: HubUnreachable: the model no/such is not on this machine" in ran.stderr
        assert "batched_whisper.errors" not in ran.stderr


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    """The app's module, as a program that imports it has it, for base on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ON_CPU.items():
            patch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("recipe", APP)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "recipe", module)
        spec.loader.exec_module(module)
        yield module
        if module.load_whisper.cache_info().currsize:
            module.load_whisper().close()


class NothingImported(pickle.Unpickler):
    """A caller that has nothing installed: results must be made of Python's own types."""

    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"{module}.{name} is needed")


def received(results: Any) -> Any:
    return NothingImported(io.BytesIO(pickle.dumps(results))).load()


@pytest.mark.usefixtures("base_model")
@pytest.mark.filterwarnings("ignore:.*executing locally.*")
class TestWithoutModal:
    def test_download_model(self, recipe: ModuleType) -> None:
        assert (Path(recipe.download_model.local()) / "config.json").is_file()

    @pytest.fixture
    def talk(self) -> Path:
        return Path(str(next(s.audio for s in demo_sources() if s.name == "beckett.wav")))

    def test_each_kind_of_sample_and_a_wrong_one_in_its_place(
        self, recipe: ModuleType, talk: Path
    ) -> None:
        sound = decode(talk).samples
        samples = [
            {"audio": {"path": "beckett.wav", "bytes": talk.read_bytes()}, "text": "a row"},
            {"path": "beckett.wav", "bytes": talk.read_bytes()},
            {"path": None, "array": sound, "sampling_rate": 16_000},
            {"raw": sound, "sampling_rate": 16_000},
            b"not sound",
            talk.read_bytes(),
            np.array(sound),
        ]
        with Whisper("base") as whisper:
            expected = whisper.transcribe(talk, **ENGLISH)
        results = recipe.Model().transcribe.local(samples)
        assert len(results) == len(samples)
        for n, result in enumerate(received(results)):
            assert result["text"] == ("" if n == 4 else expected.text)
            assert result["batch_size"] == len(samples)
            assert ("error" in result) == (n == 4)
        assert results[4]["error"].startswith("UnreadableAudio: ")
        assert results[0]["language"] == "en"
        assert results[0]["duration"] == pytest.approx(10.0, abs=0.1)
        assert results[0]["segments"][-1]["end"] <= results[0]["duration"]

    def test_the_continuous_class_says_the_same(self, recipe: ModuleType, talk: Path) -> None:
        samples = [talk.read_bytes(), b"not sound", {"bytes": talk.read_bytes(), "path": "x"}]

        async def all_at_once() -> list[dict[str, Any]]:
            engine = recipe.Engine()
            return await asyncio.gather(*map(engine.transcribe.local, samples))

        results = received(asyncio.run(all_at_once()))
        batched = recipe.Model().transcribe.local(samples)
        assert [r["text"] for r in results] == [r["text"] for r in batched]
        assert results[1]["error"] == batched[1]["error"]

    @pytest.mark.parametrize("flags", [(), ("--continuous",)], ids=["batched", "continuous"])
    def test_in_one_command(self, tmp_path: Path, talk: Path, flags: tuple[str, ...]) -> None:
        (tmp_path / "talk.wav").write_bytes(talk.read_bytes())
        (tmp_path / "wrong.wav").write_bytes(b"not sound")
        command = [sys.executable, str(APP), "--local", str(tmp_path), *flags]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=bare())
        assert ran.returncode == 1
        assert "fail better" in ran.stdout.lower()
        assert "2 samples (1 failed), 10.0 s of audio in " in ran.stdout
        assert "not transcribed: UnreadableAudio: " in ran.stderr
        assert "Warning" not in ran.stderr and "Traceback" not in ran.stderr

    def test_a_data_set_in_one_command(self, tmp_path: Path, talk: Path) -> None:
        import datasets

        stored = {"bytes": talk.read_bytes(), "path": "talk.wav"}
        rows = datasets.Dataset.from_list([{"audio": stored}] * 2)
        rows.to_parquet(tmp_path / "train.parquet")
        command = [sys.executable, str(APP), "--local", str(tmp_path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=bare())
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.lower().count("fail better") == 2


def bare() -> dict[str, str]:
    """The environment without what would choose a model."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODEL")}


def test_a_dead_engine_fails_the_batch_so_that_modal_tries_elsewhere(recipe: ModuleType) -> None:
    from batched_whisper.errors import EngineError

    error = EngineError("the device is gone")
    assert recipe.as_result(error, 3)["error"] == "EngineError: the device is gone"
    error.none_left = True
    with pytest.raises(RuntimeError, match="EngineError: the device is gone"):
        recipe.as_result(error, 3)


def test_without_the_package_it_says_what_to_install(
    recipe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(APP.parent)])
    monkeypatch.delitem(sys.modules, "batched_whisper")
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[modal\]'"):
        recipe.package()


def test_figures_count_batches_and_not_only_samples(recipe: ModuleType) -> None:
    figures = recipe.Figures()
    for size in [4, 4, 4, 4, 2, 2]:
        figures.show({"text": "x", "duration": 1.5, "batch_size": size})
    assert "6 samples, 9.0 s of audio" in str(figures)
    assert str(figures).endswith("mean batch 3.0")  # six samples in two batches


def test_the_settings_page_names_every_setting() -> None:
    """The page beside the app says what each constant and variable means."""
    page = (APP.parent / "README.md").read_text("utf-8")
    source = APP.read_text("utf-8")
    constants = {
        line.split("=")[0].split(":")[0].strip()
        for line in source.splitlines()
        if line[:1].isupper() and "=" in line and line.split("=")[0].split(":")[0].strip().isupper()
    }
    assert len(constants) > 8
    assert not {name for name in constants if f"`{name}`" not in page}
