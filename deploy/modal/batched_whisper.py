"""Fast Whisper inference using dynamic batching, on Modal: the known recipe, on this engine.

    modal run deploy/modal/batched_whisper.py                  # a dataset, in batches of 64
    modal run deploy/modal/batched_whisper.py --continuous     # the same, without fixed batches
    modal run deploy/modal/batched_whisper.py::download_model  # fill the volume ahead of time
    python deploy/modal/batched_whisper.py --local recordings/ # on this machine, without Modal

`Model` has the shape of Modal's own example: one batch after another, each as slow as its slowest
recording. `Engine` takes one recording per call and lets the engine form its batches at every step
of the decoder. README.md beside this file says how to choose, and what each setting means.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, Optional

import modal

MODEL_DIR = "/model"
MODEL_NAME = os.environ.get("MODEL_NAME", "openai/whisper-large-v3")
MODEL_REVISION: str | None = os.environ.get("MODEL_REVISION") or (
    None if "MODEL_NAME" in os.environ else "afda370583db9c5359511ed5d989400a6199dfe1"
)
LANGUAGE = os.environ.get("MODEL_LANGUAGE", "en")
"""The language spoken, as in Modal's example; empty: the model detects it."""

GPU: str | None = os.environ.get("MODEL_GPU", "a10g") or None
"""Any GPU of Modal's; None runs on processors, with OpenVINO and without PyTorch."""

CPU = 4.0 if GPU else 8.0
"""Processors of a container: to decode recordings for a GPU, or to do everything."""

PUBLISHED: str | None = None
"""None builds the package from this clone; a requirement such as "==0.1.0" takes a release."""

DATASET = "hf-internal-testing/librispeech_asr_dummy"
MAX_BATCH_SIZE = 64
WAIT_MS = 1000
MAX_INPUTS = 256
TARGET_INPUTS = 128

# ## The container image
#
# The dependencies are a layer of their own, so that a change of the code installs nothing again.
# The package goes to site-packages and not beside this file, which has its name.

CLONE = Path(__file__).resolve().parent.parent.parent
EXTRAS = ["cuda", "datasets"] if GPU else ["datasets"]


def build_image() -> modal.Image:
    """The image of all functions: the package, PyTorch where there is a GPU, and `datasets`."""
    base = modal.Image.debian_slim(python_version="3.12")
    if PUBLISHED is not None:
        built = base.uv_pip_install(f"batched-whisper[{','.join(EXTRAS)}]{PUBLISHED}")
    else:
        built = base.pip_install_from_pyproject(str(CLONE / "pyproject.toml"), EXTRAS)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            built = built.add_local_file(CLONE / name, f"/package/{name}", copy=True)
        built = built.add_local_dir(
            CLONE / "batched_whisper",
            "/package/batched_whisper",
            copy=True,
            ignore=["**/__pycache__"],
        ).uv_pip_install("/package", extra_options="--no-deps")
    return built.env(
        {
            "HF_HUB_CACHE": MODEL_DIR,
            "BATCHED_WHISPER_CACHE_DIR": f"{MODEL_DIR}/batched-whisper",  # compiled graphs
            # This file is imported in the container again, where your environment is not.
            "MODEL_NAME": MODEL_NAME,
            "MODEL_REVISION": MODEL_REVISION or "",
            "MODEL_LANGUAGE": LANGUAGE,
            "MODEL_GPU": GPU or "",
        }
    )


image = build_image()
model_cache = modal.Volume.from_name("hf-hub-cache", create_if_missing=True)
app = modal.App("example-batched-whisper", image=image, volumes={MODEL_DIR: model_cache})

# ## The engine
#
# One model per container, whichever class uses it.


def package(name: str = "") -> Any:
    """Import a module of the package `batched_whisper`, whose name this file has too.

    Python looks in this file's own folder first, so a plain import would find this file.
    """
    here = Path(__file__).resolve().parent
    if not hasattr(sys.modules.get("batched_whisper"), "__path__"):
        elsewhere = [entry for entry in sys.path if Path(entry).resolve() != here]
        spec = PathFinder.find_spec("batched_whisper", elsewhere)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(
                "the package batched-whisper is not installed: run pip install '.[modal]' in the "
                "clone that this file is from"
            )
        sys.modules["batched_whisper"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return importlib.import_module(f"batched_whisper{name and '.'}{name}")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the package's errors as RuntimeErrors, which a caller without the package can read."""
    try:
        yield
    except package("errors").BatchedWhisperError as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


@cache
def load_whisper() -> Any:
    """The `Whisper` of this container, loaded."""
    device = "auto" if modal.is_local() else "cuda" if GPU else "cpu"
    settings = {"revision": MODEL_REVISION, "device": device}
    with plain_errors():
        return package().Whisper(MODEL_NAME, **settings).load()


def as_result(outcome: Any, batch_size: float) -> dict[str, Any]:
    """A transcript, or a sample's error, as a plain dictionary: callers need no package of ours.

    Raises:
        RuntimeError: no engine is left, so that no other sample can do better in this container.
    """
    if not isinstance(outcome, Exception):
        document: dict[str, Any] = package("formats.json_output").as_document(outcome)
        return {**document, "batch_size": batch_size}
    error = f"{type(outcome).__name__}: {outcome}"
    if getattr(outcome, "none_left", False):
        raise RuntimeError(error)
    return {"text": "", "error": error, "batch_size": batch_size}


@app.function(timeout=3600)
def download_model() -> str:
    """Bring the model into the volume ahead of time; returns the folder that it is in."""
    cache_dir = package().Settings.from_environment().cache_dir
    with plain_errors():
        found = package("models.sources").download(MODEL_NAME, MODEL_REVISION, cache_dir=cache_dir)
    print(f"{found.name} is in {found.folder}")
    return str(found.folder)


@app.cls(gpu=GPU, cpu=CPU, max_containers=10, timeout=3600)
class Model:
    """The class of Modal's example: Modal collects samples into batches; each batch is a call."""

    @modal.enter()
    def load_model(self) -> None:
        """Load the model when the container starts, before it has inputs."""
        load_whisper()

    @modal.batched(max_batch_size=MAX_BATCH_SIZE, wait_ms=WAIT_MS)
    def transcribe(self, audio_samples: Sequence[Any]) -> list[dict[str, Any]]:
        """Transcribe a list of samples; results have their order.

        Args:
            audio_samples: rows or audio values of a dataset, the bytes of files, or
                ``{"array": samples, "sampling_rate": hertz}``.

        Returns:
            Of each sample a dictionary with ``text``, ``language``, ``duration`` (in seconds),
            ``segments`` and ``batch_size``; of one that cannot be read with ``error`` and an
            empty ``text``.
        """
        start = time.monotonic()
        size = len(audio_samples)
        print(f"Transcribing {size} audio samples")
        options = {"language": LANGUAGE or None, "return_exceptions": True}
        outcomes = load_whisper().transcribe.map(audio_samples, **options)
        results = [as_result(outcome, size) for outcome in outcomes]
        print(f"Transcribed {size} samples in {time.monotonic() - start:.2f}s")
        return results


@app.cls(gpu=GPU, cpu=CPU, max_containers=10, timeout=3600)
@modal.concurrent(max_inputs=MAX_INPUTS, target_inputs=TARGET_INPUTS)
class Engine:
    """One recording per call. Concurrent calls share decoder steps; none waits for the others."""

    @modal.enter()
    def load_model(self) -> None:
        """Load the model when the container starts, before it has inputs."""
        load_whisper()

    @modal.method()
    async def transcribe(self, audio_sample: Any) -> dict[str, Any]:
        """Transcribe one sample; see `Model.transcribe` for what it may be and what it becomes.

        ``batch_size`` is the mean number of windows in the decoder's steps during the call.
        """
        whisper = load_whisper()  # `.local()` of an asynchronous method runs no @modal.enter()
        before = whisper.stats
        outcome: Any
        try:
            outcome = await whisper.transcribe.aio(audio_sample, language=LANGUAGE or None)
        except Exception as error:  # whatever is wrong with this sample
            outcome = error
        after = whisper.stats
        n_steps = after.n_batches - before.n_batches
        return as_result(outcome, (after.n_rows - before.n_rows) / n_steps if n_steps else 0.0)

    # The HTTP server goes here, as @modal.asgi_app(): a class with @modal.batched can have no
    # other method, this one can.


# ## A dataset


@app.function(timeout=3600)
async def transcribe_hf_dataset(
    dataset_name: str, config: str = "clean", split: str = "validation", continuous: bool = False
) -> AsyncIterator[dict[str, Any]]:
    """Transcribe a dataset of the Hub; results come in its order."""
    from datasets import Audio, load_dataset

    print("📂 Loading dataset", dataset_name)
    dataset = load_dataset(dataset_name, config or None, split=split)
    # As files, which are a fraction of their samples and are decoded where they are transcribed.
    dataset = dataset.cast_column("audio", Audio(decode=False))
    print("📣 Sending data for transcription")
    transcribe = Engine().transcribe if continuous else Model().transcribe
    async for result in transcribe.map.aio(dataset["audio"]):
        yield result


@dataclass
class Figures:
    """The figures of a run."""

    n_samples: int = 0
    n_failed: int = 0
    audio_s: float = 0.0
    n_batches: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    def show(self, result: dict[str, Any]) -> None:
        """Print a result and count it."""
        self.n_samples += 1
        self.audio_s += result.get("duration") or 0.0
        # A batch of n gives n results that each say so: together they are one batch.
        self.n_batches += 1 / result["batch_size"] if result["batch_size"] else 0.0
        if "error" in result:
            self.n_failed += 1
            print(f"not transcribed: {result['error']}", file=sys.stderr)
        else:
            print(result["text"])

    def __str__(self) -> str:
        seconds = time.monotonic() - self.started_s
        mean = self.n_samples / self.n_batches if self.n_batches else 0.0
        failed = f" ({self.n_failed} failed)" if self.n_failed else ""
        return (
            f"{self.n_samples} samples{failed}, {self.audio_s:.1f} s of audio in {seconds:.1f} s: "
            f"{self.audio_s / seconds:.1f} times real time; mean batch {mean:.1f}"
        )


@app.local_entrypoint()
async def main(
    dataset_name: Optional[str] = None,  # noqa: UP045 (Modal reads it on Python 3.10 too)
    config: str = "clean",
    split: str = "validation",
    continuous: bool = False,
) -> None:
    """Print the texts of a dataset, and at the end how fast that was, containers included."""
    figures = Figures()
    name = dataset_name or DATASET
    async for result in transcribe_hf_dataset.remote_gen.aio(name, config, split, continuous):
        figures.show(result)
    print(figures)


# ## The same without Modal


def local_samples(source: str | None) -> list[Any]:
    """The recordings of a folder, a file, a dataset (a folder or on the Hub), or the demo's."""
    dataset, demo, inputs = map(package, ("cli.io.dataset", "cli.demo", "cli.io.inputs"))
    if source is None:
        found = demo.demo_sources()
    elif Path(source).exists() and not any(Path(source).glob("**/*.parquet")):
        found = inputs.find_sources([source], lambda: b"")
    else:
        found = dataset.from_dataset(dataset.DatasetName(source))
    return [each.open() for each in found]


def in_batches(samples: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """`Model.transcribe` over batches as large as Modal makes them."""
    model = Model()
    for first in range(0, len(samples), MAX_BATCH_SIZE):
        yield from model.transcribe.local(samples[first : first + MAX_BATCH_SIZE])


async def continuously(samples: Sequence[Any]) -> list[dict[str, Any]]:
    """`Engine.transcribe` of each sample, as many at a time as Modal gives a container."""
    engine, free = Engine(), asyncio.Semaphore(MAX_INPUTS)

    async def one(sample: Any) -> dict[str, Any]:
        async with free:
            result: dict[str, Any] = await engine.transcribe.local(sample)
            return result

    return await asyncio.gather(*map(one, samples))


def run_locally() -> int:
    """Transcribe on this machine by the same methods; the exit code."""
    parser = argparse.ArgumentParser(description="The recipe on this machine, without Modal.")
    parser.add_argument(
        "--local",
        nargs="?",
        required=True,
        metavar="FOLDER_OR_DATASET",
        help="recordings, or a dataset; the demo's recordings if none is given",
    )
    parser.add_argument("--continuous", action="store_true", help="by Engine and not by Model")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*executing locally.*")  # as it shall
    try:
        with plain_errors():
            samples = local_samples(given.local)
        with load_whisper() as whisper:
            print(*whisper.info.why, sep="; ", file=sys.stderr)
            figures = Figures()
            found = asyncio.run(continuously(samples)) if given.continuous else in_batches(samples)
            for result in found:
                figures.show(result)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(figures)
    return 1 if figures.n_failed else 0


if __name__ == "__main__":
    if "MODEL_NAME" not in os.environ:
        MODEL_NAME = MODEL_REVISION = None  # type: ignore[assignment]  # the engine's own choice
    sys.exit(run_locally())
