"""What several engines are together, in words: for whoever asks what runs, where and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from batched_whisper.engines.interface import EngineInfo


def together(infos: Sequence[EngineInfo]) -> EngineInfo:
    """One description of engines behind one queue, one at least; slots are added up.

    Of engines that share a device the first one speaks for all. Of several devices each is named;
    a reason that all of them give is given once, any other with the device that it is about.
    """
    first = infos[0]
    max_slots = sum(info.max_slots for info in infos)
    devices = list(dict.fromkeys(info.device for info in infos))
    if len(devices) == 1:
        return replace(first, max_slots=max_slots)
    shared = [reason for reason in first.why if all(reason in info.why for info in infos)]
    own = [f"{info.device}: {each}" for info in infos for each in info.why if each not in shared]
    why = (f"{len(infos)} engines, one on each device, behind one queue", *shared, *own)
    named = f"{len(devices)} GPUs: {', '.join(devices)}"
    return replace(first, device=named, max_slots=max_slots, why=why)
