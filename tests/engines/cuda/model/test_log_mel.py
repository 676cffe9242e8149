"""The log-mel spectrogram on the device against the one in NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import ANYTHING, IDS, N_AUDIO_CTX, N_MELS, random_text, tiny_checkpoint  # noqa: E402

from batched_whisper.audio.features import log_mel  # noqa: E402
from batched_whisper.engines.cuda import packed_batch  # noqa: E402
from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.cuda.model.log_mel import Spectrogram, lay_samples, n_samples  # noqa: E402
from batched_whisper.engines.interface import EncodeRow, StepRow  # noqa: E402
from batched_whisper.engines.merged_padding import layout  # noqa: E402
from batched_whisper.errors import EngineError  # noqa: E402

FULL = 1500


def sound(seed: int, n: int, loud: float = 0.3) -> np.ndarray:
    """Return noise of varying loudness."""
    random = np.random.default_rng(seed)
    swell = np.sin(np.linspace(0, 9, n)) ** 8 + 1e-4
    return (loud * swell * random.standard_normal(n)).clip(-1, 1).astype(np.float32)


SOUNDS = [
    (sound(0, 16_000), 96),
    (np.zeros(0, np.float32), 10),
    (sound(1, 480_000), FULL),  # to the last sample
    (sound(2, 479_000), FULL),
    (sound(3, 40_000, 1e-3), 200),
    (np.zeros(5_000, np.float32), 64),
    (sound(4, 31_999), 100),
]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_spectrogram_equals_log_mel(n_mels: int) -> None:
    layouts = [layout(context, FULL) for _, context in SOUNDS]
    batch_shape = packed_batch.BatchShape(sum(map(len, layouts)), FULL, padding_slot=9)
    numbers = np.zeros(batch_shape.n_numbers, np.int32)
    packed_batch.write_batch(range(len(SOUNDS)), layouts, batch_shape, numbers)
    samples = np.full(n_samples(batch_shape.n_frames), np.nan, np.float32)
    starts = packed_batch.frame_starts(layouts)
    for (each, _), window_layout, start in zip(SOUNDS, layouts, starts, strict=True):
        lay_samples(each, start, window_layout.n_frames, samples)
    windows = packed_batch.PackedBatch.of(torch.from_numpy(numbers), batch_shape)
    found = Spectrogram(n_mels, torch.device("cpu"))(torch.from_numpy(samples), windows)
    for (each, _), window_layout, start in zip(SOUNDS, layouts, starts, strict=True):
        expected = log_mel(each, n_mels, window_layout.n_frames)
        off = np.abs(found[:, start : start + window_layout.n_frames].numpy() - expected)
        assert off.max() < 2e-3 and off.mean() < 2e-5


def test_engine_from_samples_agrees_with_engine_from_features() -> None:
    pairs = [(sound(i, 320 * (context - 5)), context) for i, context in enumerate((9, 40, 120))]
    make = partial(CudaEngine, tiny_checkpoint(), IDS, max_slots=3, device="cpu")
    plain, from_samples = make(), make(from_samples=True)
    assert not plain.info.takes_samples and from_samples.info.takes_samples
    plain.encode(
        [
            EncodeRow(i, log_mel(s, N_MELS, 2 * context), context)
            for i, (s, context) in enumerate(pairs)
        ]
    )
    from_samples.encode([EncodeRow(i, s, context) for i, (s, context) in enumerate(pairs)])
    rows = [StepRow(slot, random_text(slot, 6), 0, ANYTHING) for slot in range(3)]
    for one, other in zip(plain.step(rows), from_samples.step(rows), strict=True):
        assert one and other and one.token == other.token
        assert one.logprob == pytest.approx(other.logprob, abs=1e-2)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((N_MELS, 20), np.float32), np.zeros(3_201, np.float32), np.full(9, np.nan, "f4")],
)
def test_encode_rejects_wrong_samples(wrong: np.ndarray) -> None:
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=1, device="cpu", from_samples=True)
    with pytest.raises(EngineError, match=r"samples of shape|not numbers"):
        engine.encode([EncodeRow(0, wrong, 10)])
    engine.encode([EncodeRow(0, np.zeros(3_200, np.float32), N_AUDIO_CTX)])
