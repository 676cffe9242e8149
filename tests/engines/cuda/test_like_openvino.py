"""The GPU engine on a CPU against OpenVINO's, in float32, token for token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_whisper import NumpyWhisper
from tiny_whisper import SIZES

from batched_whisper.backends import local
from batched_whisper.config.options import Settings
from batched_whisper.decoding.rules import EVERYTHING, Allowed, Rules, TokenIds
from batched_whisper.engines.interface import EncodeRow, Engine, StepResult, StepRow
from batched_whisper.engines.openvino.engine import OpenVinoEngine
from batched_whisper.models.checkpoint import Checkpoint, Dimensions, random_checkpoint
from batched_whisper.whisper import Whisper

pytest.importorskip("torch", reason="PyTorch is not installed, so the GPU engine is not tested")

from batched_whisper.engines.cuda.engine import CudaEngine

if TYPE_CHECKING:
    from conftest import LoadedModel

TINY = replace(SIZES, n_text_ctx=48)
SHAPES = {
    "large-v3's bands": replace(TINY, n_mels=128),
    "distil: two decoder layers of four": replace(TINY, n_audio_layer=4, n_text_layer=2),
    "turbo: more encoder than decoder": replace(TINY, n_mels=128, n_audio_layer=3, n_text_layer=1),
    "an odd number of heads": replace(
        TINY, n_audio_state=192, n_audio_head=3, n_text_state=192, n_text_head=3, n_text_layer=3
    ),
}
IDS = TokenIds(eot=150, timestamp_begin=160, n_vocab=SIZES.n_vocab, no_speech=155)


def openvino(checkpoint: Checkpoint, ids: TokenIds) -> Engine:
    return OpenVinoEngine(checkpoint, ids, max_slots=8, precision="float32", threads=1)


def pytorch(checkpoint: Checkpoint, ids: TokenIds, precision: str = "float32") -> Engine:
    return CudaEngine(checkpoint, ids, max_slots=8, precision=precision, threads=1, device="cpu")


def features(sizes: Dimensions, seed: int, context: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return random.standard_normal((sizes.n_mels, 2 * context), dtype=np.float32)


CONTEXTS = (120, 33, 120, 7)


def said(engine: Engine, sizes: Dimensions) -> list[list[StepResult]]:
    """Decode four windows together by the rules for some steps."""
    rules = Rules(IDS, suppress=frozenset({3, 25}), suppress_begin=frozenset(), timestamps=True)
    engine.encode(
        [EncodeRow(i, features(sizes, i, context), context) for i, context in enumerate(CONTEXTS)]
    )
    fed = [(151, 152, 153) for _ in CONTEXTS]
    texts: list[list[StepResult]] = [[] for _ in CONTEXTS]
    position = 0
    for _ in range(20):
        rows = [
            StepRow(slot, tokens, position, rules.next([each.token for each in texts[slot]]))
            for slot, tokens in enumerate(fed)
        ]
        position += len(fed[0])
        for text, result in zip(texts, engine.step(rows), strict=True):
            assert result is not None
            text.append(result)
        fed = [(text[-1].token,) for text in texts]  # type: ignore[misc]
    return texts


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_cuda_and_openvino_engines_choose_the_same_tokens(sizes: Dimensions) -> None:
    checkpoint = random_checkpoint(sizes, 3)
    ours, theirs = (said(make(checkpoint, IDS), sizes) for make in (pytorch, openvino))
    for our, their in zip(ours, theirs, strict=True):
        assert [each.token for each in our] == [each.token for each in their]
        np.testing.assert_allclose(
            [each.logprob for each in our], [each.logprob for each in their], atol=1e-3
        )


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_cuda_engine_probes_equal_numpy_logits(sizes: Dimensions) -> None:
    """Reads the logits through the probe, for every token of a small vocabulary."""
    checkpoint = random_checkpoint(sizes, 4)
    reference, engine = NumpyWhisper(checkpoint), pytorch(checkpoint, IDS)
    heard, text = features(sizes, 0, 61), (5, 9, 200)
    logits = reference.logits(list(text), reference.encode(heard))[-1].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum())
    engine.encode([EncodeRow(2, heard, 61)])
    engine.step([StepRow(2, text[:-1], 0, None)])
    for token in range(0, sizes.n_vocab, 7):
        row = StepRow(2, text[-1:], 2, Allowed(EVERYTHING), probe=token)
        [result] = engine.step([row])
        assert result is not None
        assert result.probed is not None
        assert np.log(result.probed) == pytest.approx(expected[token], abs=1e-3)


@pytest.mark.parametrize(("precision", "near"), [("float16", 0.02), ("bfloat16", 0.1)])
def test_precision_of_16_bits_is_close_to_float32(precision: str, near: float) -> None:
    checkpoint = random_checkpoint(TINY, 5)
    engines = [pytorch(checkpoint, IDS, kind) for kind in ("float32", precision)]
    text = (151, 7, 20, 160)
    outputs = []
    for engine in engines:
        engine.encode([EncodeRow(slot, features(TINY, slot, 60), 60) for slot in range(4)])
        engine.step([StepRow(slot, text[:-1], 0, None) for slot in range(4)])
        rows = [StepRow(slot, text[-1:], 3, Allowed(EVERYTHING), probe=slot) for slot in range(4)]
        outputs.append(engine.step(rows))
    for exact, rounded in zip(*outputs, strict=True):
        assert exact is not None
        assert rounded is not None
        assert rounded.logprob == pytest.approx(exact.logprob, abs=near)
        assert rounded.probed == pytest.approx(exact.probed, rel=near)


def test_encode_of_a_packed_batch_equals_encoding_alone() -> None:
    checkpoint = random_checkpoint(TINY, 5)
    together, alone = (pytorch(checkpoint, IDS) for _ in range(2))
    rows = [EncodeRow(i, features(TINY, i, c), c) for i, c in enumerate((40, 120, 40, 9, 120))]
    together.encode(rows)
    for row in reversed(rows):
        alone.encode([row])
    asked = [StepRow(row.slot, (151, 7), 0, Allowed(EVERYTHING)) for row in rows]
    for our, their in zip(together.step(asked), alone.step(asked), strict=True):
        assert our is not None
        assert their is not None
        assert our.token == their.token
        assert our.logprob == pytest.approx(their.logprob, abs=1e-5)


# --- real speech ----------------------------------------------------------------------------------

N_CLIPS = 2
LONGEST_S = 5.0


@pytest.fixture(scope="module")
def clips(speech: Path) -> list[Path]:
    """Return short clips from several collections."""
    lines = map(json.loads, (speech / "manifest.jsonl").read_text("utf-8").splitlines())
    english = (line for line in lines if line["language"] == "en")
    short = [speech / line["audio"] for line in english if 2 < line["duration_s"] < LONGEST_S]
    return short[:: len(short) // N_CLIPS][:N_CLIPS]


def tokens_of(
    model: LoadedModel, clips: list[Path], from_samples: bool, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[tuple[int, ...]]]:
    """Yield the tokens of all clips: by OpenVINO's engine, then by PyTorch's, each end to end."""

    def make_engines(
        checkpoint: Checkpoint, ids: TokenIds, settings: Settings, cache_dir: Path | None
    ) -> list[Engine]:
        made = CudaEngine(
            checkpoint,
            ids,
            max_slots=8,
            precision="float32",
            device="cpu",
            from_samples=from_samples,
        )
        return [made]

    for replacement in (None, make_engines):
        if replacement is not None:
            monkeypatch.setattr(local, "make_engines", replacement)
        with Whisper(model.files.folder, device="cpu", precision="float32") as whisper:
            found = whisper.transcribe_batch(
                clips, timestamps=True, temperature_increment=0.0, audio_context=320
            )
        yield [window.tokens for each in found for window in each.windows]


@pytest.mark.parametrize(("name", "from_samples"), [("base", False), ("tiny.en", True)])
def test_cuda_and_openvino_engines_agree_on_real_clips(
    name: str,
    from_samples: bool,
    request: pytest.FixtureRequest,
    clips: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = request.getfixturevalue({"base": "base_model", "tiny.en": "tiny_en_model"}[name])
    theirs, ours = tokens_of(model, clips, from_samples, monkeypatch)
    assert sum(map(len, theirs)) > 5 * len(clips)
    assert ours == theirs
