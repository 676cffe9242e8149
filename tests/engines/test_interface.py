"""The description of several engines: every device is named, no reason is lost or repeated."""

from __future__ import annotations

from batched_whisper.engines.interface import EngineInfo, combined_info


def info(device: str, slots: int, *why: str) -> EngineInfo:
    return EngineInfo("cuda", device, "float16", 8, slots, why)


def test_combined_info_of_one_engine_is_its_own() -> None:
    alone = info("H200 (GPU 1)", 4, "PyTorch", "4 slots")
    assert combined_info([alone]) == alone


def test_combined_info_of_one_device_adds_up_slots() -> None:
    shared = [info("EPYC", 4, "OpenVINO") for _ in range(3)]
    assert combined_info(shared) == info("EPYC", 12, "OpenVINO")


def test_combined_info_names_each_device_and_its_reasons() -> None:
    said = combined_info(
        [
            info("H200 (GPU 0)", 256, "PyTorch", "256 slots"),
            info("A10 (GPU 2)", 40, "PyTorch", "40 slots instead of 256"),
        ]
    )
    assert said.device == "2 GPUs: H200 (GPU 0), A10 (GPU 2)"
    assert said.max_slots == 296
    assert said.why == (
        "2 engines, one on each device, behind one queue",
        "PyTorch",
        "H200 (GPU 0): 256 slots",
        "A10 (GPU 2): 40 slots instead of 256",
    )
