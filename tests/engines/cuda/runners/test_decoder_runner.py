"""The decoder's runner: recorded sizes, and what happens if nothing can be recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import ANYTHING, IDS, Heard, check, reference_logits, tiny_checkpoint  # noqa: E402

from batched_whisper.engines.cuda import cuda_graphs  # noqa: E402
from batched_whisper.engines.cuda.cuda_graphs import RecordedGraphs, StreamSlot, try_to_record  # noqa: E402
from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.cuda.runners.decoder_runner import recorded_sizes  # noqa: E402
from batched_whisper.engines.interface import StepRow  # noqa: E402


@pytest.mark.parametrize("most", [1, 2, 3, 16, 17, 64, 100, 256, 1024])
def test_recorded_sizes_cover_every_number_of_tokens(most: int) -> None:
    sizes = recorded_sizes(most)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for n in range(1, most + 1):
        assert min(size for size in sizes if size >= n) <= max(2 * n - 1, 1)
    assert len(sizes) <= 20


def test_recorded_sizes_pad_large_passes_by_less_than_half() -> None:
    sizes = recorded_sizes(256)
    for n in range(17, 257):
        assert min(size for size in sizes if size >= n) <= 1.5 * n


def test_engine_runs_without_cuda_graphs_if_recording_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU has no graphs: asked to record, the engine says so and continues."""

    def fail(self: RecordedGraphs, recorder: object) -> None:
        self._recorded.append({1: None})
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "GraphRecorder", lambda *given: None)
    monkeypatch.setattr(RecordedGraphs, "record", fail)
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=2, device="cpu")
    for runs in (engine._decoder_runner, engine._encoder_runner):
        runs.record([StreamSlot(None)])
        assert "cannot be recorded: operation not permitted" in runs.why
    heard = Heard(0, 20)
    engine.encode([heard.row(1)])
    row = StepRow(1, (5,), 0, ANYTHING)
    [result] = engine.step([row])
    check(result, row, reference_logits(heard, (5,))[-1], 1e-3)


def test_try_to_record_keeps_earlier_streams_if_a_later_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def record(self: RecordedGraphs, recorder: int) -> None:
        self._recorded.append({1: recorder})
        if recorder == 1 and self is last:
            raise RuntimeError("invalid resource handle")

    monkeypatch.setattr(cuda_graphs, "GraphRecorder", lambda place: place.stream)
    monkeypatch.setattr(RecordedGraphs, "record", record)
    first, last = (RecordedGraphs(lambda size: None, [1]) for _ in range(2))
    said = try_to_record("stepping", [first, last], [StreamSlot(0), StreamSlot(1)])
    assert said == (
        "stepping is recorded for the whole GPU, but not for a part of it: invalid resource handle"
    )
    assert first._recorded == last._recorded == [{1: 0}]


def test_out_of_memory_while_recording_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda_graphs, "GraphRecorder", fail)
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=2, device="cpu")
    for runs in (engine._decoder_runner, engine._encoder_runner):
        with pytest.raises(torch.OutOfMemoryError):
            runs.record([StreamSlot(None)])


class Played:
    """Replaces a CUDA graph."""

    def __init__(self, place: int, played: list[int], compute: Callable[[], None]) -> None:
        self._place, self._played, self._compute = place, played, compute

    def replay(self) -> None:
        self._played.append(self._place)
        self._compute()


def recorded_at_two_places(engine: CudaEngine) -> tuple[list[int], list[int]]:
    """Give an engine graphs on two stream slots, as on a split GPU; returns what is replayed."""
    places = []
    for graphs in (engine._decoder_runner.graphs, engine._encoder_runner.graphs):
        played = list[int]()
        graphs._recorded = [
            {n: Played(place, played, partial(graphs._compute, n)) for n in graphs.sizes}
            for place in (0, 1)
        ]
        places.append(played)
    engine._decoder_runner._between._recorded = [{}, {}]
    engine._is_split = True
    return places[0], places[1]


def test_shared_stream_slot_is_used_only_while_steps_and_encoding_overlap() -> None:
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=3, device="cpu")
    steps, encodings = recorded_at_two_places(engine)
    heard = [Heard(seed, 20) for seed in range(3)]
    engine.encode([heard[0].row(0)])
    assert encodings == [0]  # no step is in progress
    row = StepRow(0, (5,), 0, ANYTHING)
    started = engine.start([row])
    assert steps == [1]  # a window was encoded, so expect another
    engine.encode([heard[1].row(1)])
    assert encodings == [0, 1]
    [result] = started()
    check(result, row, reference_logits(heard[0], (5,))[-1], 1e-3)
    engine.step([StepRow(1, (5,), 0, ANYTHING)])
    assert steps == [1, 1]
    engine.step([StepRow(1, (6,), 1, ANYTHING)])
    assert steps == [1, 1, 0]  # no window was encoded
    engine.encode([heard[2].row(2)])
    assert encodings == [0, 1, 0]


@pytest.mark.parametrize("said", ["high", "highest"])
def test_full_float32_precision_overrides_and_restores_the_setting(said: str) -> None:
    torch.set_float32_matmul_precision(said)
    try:
        with cuda_graphs.full_float32_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == said
    finally:
        torch.set_float32_matmul_precision("highest")


def test_graph_recorder_records_in_full_float32_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the warm-up runs, in which libraries choose their algorithms, and the recording."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    graph = SimpleNamespace(pool=lambda: None)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, **options: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    seen = list[str]()
    torch.set_float32_matmul_precision("high")
    try:
        recorder = cuda_graphs.GraphRecorder(StreamSlot(stream))
        recorder.record(lambda: seen.append(torch.get_float32_matmul_precision()))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == (cuda_graphs.WARM_UPS + 1) * ["highest"]


def test_full_float32_precision_with_pytorchs_newer_interface() -> None:
    settings = torch.backends.cuda.matmul
    if not hasattr(settings, "fp32_precision"):
        pytest.skip("this PyTorch has no newer interface")
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        with cuda_graphs.full_float32_precision():
            assert settings.fp32_precision == "ieee"
        assert settings.fp32_precision == "tf32"
    finally:
        settings.fp32_precision = before


def test_padding_columns_of_logits_are_never_chosen() -> None:
    """Different values of the padding would change results if it were read."""
    said = []
    for filling in (0.0, 30.0, -30.0):
        engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=1, device="cpu")
        tokens = engine._decoder._tokens
        assert len(tokens) > IDS.n_vocab
        tokens[IDS.n_vocab :] = filling
        engine.encode([Heard(0, 20).row(0)])
        said.append(engine.step([StepRow(0, (5,), 0, ANYTHING, probe=IDS.no_speech, n_best=3)]))
    assert said[0] == said[1] == said[2]
