"""Engines that share a CPU: each gives the results it gives alone, while the others run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_whisper import (
    ANY_TEXT,
    IDS,
    Heard,
    check,
    random_text,
    reference_logits,
    tiny_checkpoint,
)

from batched_whisper.engines.interface import Engine, StepRow
from batched_whisper.engines.openvino.multi_engine import make_cpu_engines, n_cpu_engines

N = 3


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Engine]]:
    made = make_cpu_engines(
        tiny_checkpoint(), IDS, max_slots=4 * N, precision="float32", threads=N, streams=N
    )
    yield list(made)
    for engine in made:
        engine.close()


def test_make_cpu_engines_divides_the_slots(engines: list[Engine]) -> None:
    assert [engine.info.max_slots for engine in engines] == [4] * N
    assert all(engine.info.threads == N for engine in engines)


def test_cpu_engines_run_concurrently_without_affecting_each_other(
    engines: list[Engine],
) -> None:
    def live(number: int) -> None:
        engine = engines[number]
        for turn in range(6):
            heard = [Heard(10 * number + slot, 20 + 7 * turn + slot) for slot in range(4)]
            texts = [random_text(100 * number + 10 * turn + slot, 3 + turn) for slot in range(4)]
            engine.encode([each.row(slot) for slot, each in enumerate(heard)])
            rows = [StepRow(slot, text, 0, ANY_TEXT) for slot, text in enumerate(texts)]
            for row, each, text, result in zip(rows, heard, texts, engine.step(rows), strict=True):
                check(result, row, reference_logits(each, text)[-1], tolerance=1e-3)

    with ThreadPoolExecutor(N) as threads:
        list(threads.map(live, range(N)))


@pytest.mark.parametrize(
    ("threads", "max_slots", "wanted", "n"),
    [
        (2, 64, None, 1),
        (16, 64, None, 2),
        (64, 1, None, 1),  # a lone window has all threads
        (2, 64, 2, 2),
        (2, 64, 5, 2),
        (8, 3, 8, 3),
    ],
)
def test_n_cpu_engines_leaves_each_a_thread_and_a_slot(
    threads: int, max_slots: int, wanted: int | None, n: int
) -> None:
    assert n_cpu_engines(threads, max_slots, wanted) == n
