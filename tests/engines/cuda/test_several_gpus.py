"""Several GPU engines behind one queue: the same tokens as with one, each on its own device."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import BEGIN, IDS, N_TEXT_CTX, SIZES, Heard, tiny_checkpoint  # noqa: E402

from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest  # noqa: E402
from batched_whisper.batching.engine_group import EngineGroup  # noqa: E402
from batched_whisper.batching.policy import FixedWait  # noqa: E402
from batched_whisper.decoding.beam import SINGLE_BEAM, Beams  # noqa: E402
from batched_whisper.decoding.fallback import Attempt  # noqa: E402
from batched_whisper.decoding.rules import Rules  # noqa: E402
from batched_whisper.engines.cuda import engine as engine_module  # noqa: E402
from batched_whisper.engines.cuda import streams as streams_module  # noqa: E402
from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.cuda.runners import decoder_runner, encoder_runner  # noqa: E402

RULES = Rules(
    IDS, suppress=frozenset(range(151, BEGIN)), suppress_begin=frozenset(), timestamps=True
)
SOON_S = 60.0


def window(number: int) -> DecodeRequest:
    heard = Heard(number, 20 + 7 * (number % 12))

    return DecodeRequest(
        audio=heard.features,
        sot=151,
        after_language=(152,),
        rules=RULES,
        max_tokens=N_TEXT_CTX // 20,
        first=Attempt(heard.audio_context),
        beams=Beams(size=3) if number % 4 == 3 else SINGLE_BEAM,
    )


def texts_of(devices: tuple[str, ...], n_windows: int) -> list[DecodedTokens]:
    engines = [
        CudaEngine(
            tiny_checkpoint(), IDS, max_slots=4, precision="float32", threads=1, device=device
        )
        for device in devices
    ]
    loops = EngineGroup(engines, policy=FixedWait(0))
    futures = [loops.submit(window(number)) for number in range(n_windows)]
    found = [future.result(SOON_S) for future in futures]
    assert loops.stats.n_windows == n_windows
    loops.close()
    return found


N_GPUS = torch.cuda.device_count()
PAIRS = [("cuda:0", "cuda:0"), ("cuda:1", "cuda:0")][:N_GPUS]


def test_two_cuda_engines_in_a_group_agree_with_one() -> None:
    one, two = texts_of(("cpu",), 16), texts_of(("cpu", "cpu"), 16)
    assert [each.tokens for each in two] == [each.tokens for each in one]
    assert sum(len(each.tokens) for each in one) > 16
    for our, their in zip(two, one, strict=True):
        assert our.sum_logprob == pytest.approx(their.sum_logprob, abs=1e-3)


@pytest.mark.skipif(not PAIRS, reason="PyTorch sees no GPU here")
@pytest.mark.parametrize("devices", PAIRS)
def test_engines_on_gpus_agree_with_the_cpu(devices: tuple[str, ...]) -> None:
    """Except for windows with nearly equal tokens: other sizes use other kernels."""
    one, two = texts_of(("cpu",), 64), texts_of(devices, 64)
    same = [our.tokens == their.tokens for our, their in zip(two, one, strict=True)]
    assert sum(same) > 0.9 * len(same)


def test_device_cuda_is_fixed_to_the_threads_current_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert engine_module._with_index(torch.device("cuda")) == torch.device("cuda", 2)
    assert engine_module._with_index(torch.device("cuda:1")) == torch.device("cuda", 1)
    assert engine_module._with_index(torch.device("cpu")) == torch.device("cpu")


class PretendStream:
    """A fake stream of a device, which waits for nothing."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device, self.priority = device, priority

    def wait_stream(self, other: Any) -> None:
        pass


class PretendGraph:
    def pool(self) -> str:
        return "pool"


def test_graphs_are_recorded_on_streams_of_the_engines_own_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch's default stream for recording belongs to the first device that recorded."""
    recorded_on: list[Any] = []

    @contextmanager
    def graph(graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local"  # other engines may be at work
        recorded_on.append(stream)
        yield

    @contextmanager
    def stream(stream: Any) -> Any:
        yield

    for name, pretended in {
        "Stream": PretendStream,
        "stream": stream,
        "current_stream": PretendStream,
        "CUDAGraph": PretendGraph,
        "graph": graph,
        "device": stream,
        "Event": object,
    }.items():
        monkeypatch.setattr(torch.cuda, name, pretended)
    engines = [
        CudaEngine(tiny_checkpoint(), IDS, max_slots=2, device="cpu", threads=1) for _ in range(2)
    ]
    for i, engine in enumerate(engines):
        found = streams_module.Streams(torch.device("cuda", i))
        for recorded, places in (
            (engine._decoder_runner, found.steps),
            (engine._encoder_runner, found.encoding),
        ):
            recorded.record(places)
            assert "recorded as CUDA graphs" in recorded.why
    n_steps = (
        len(decoder_runner.recorded_sizes(engines[0]._decoder_runner.max_tokens)) + 1
    )  # and what lies between
    n_encodings = len(encoder_runner.recorded_positions(SIZES.n_audio_ctx))
    assert len(recorded_on) == 2 * (n_steps + n_encodings)
    assert {str(each.device) for each in recorded_on} == {"cuda:0", "cuda:1"}
    streams = [next(group) for _, group in groupby(recorded_on, id)]
    assert len(streams) == len(set(map(id, streams))) == 4  # steps and encoding of both
    assert streams[0].priority < streams[1].priority
