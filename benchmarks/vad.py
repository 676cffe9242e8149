"""How fast speech is found, against the same network run one frame after the other.

    python benchmarks/vad.py [RECORDING] [--seconds 600] [--threads 1] [--json FILE]

Both run in this process, in turns, on the same sound: a recording, or the one that the `demo`
extra brings, again and again. Figures are the medians of the turns, by the clock and by processor
time; on a machine that others use too, processor time says more.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov

from batched_whisper.audio.decode import decode
from batched_whisper.audio.packing import SpeechCutter
from batched_whisper.audio.silero import SileroDetector
from batched_whisper.audio.silero_graph import CONTEXT, FRAME, WIDTH, compiled, spectra_samples
from batched_whisper.types import SAMPLING_RATE, Samples, Window

SECONDS_BY_FRAME = 60


def demo_recording() -> str:
    package = importlib.util.find_spec("moonshine_voice")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("name a recording, or pip install 'batched-whisper[demo]'")
    return str(Path(package.submodule_search_locations[0]) / "assets" / "two_cities.wav")


def hear(sound: Samples, detector: SileroDetector) -> None:
    listener = detector.listen()
    listener.hear(sound)
    listener.end()


def pack(sound: Samples, detector: SileroDetector) -> list[Window]:
    cutter = SpeechCutter(detector)
    return [*cutter.add(sound), *cutter.end()]


def run_frame_by_frame(sound: Samples, network: ov.CompiledModel) -> None:
    request = network.create_infer_request()
    hidden, cell = np.zeros((1, 1, WIDTH), np.float32), np.zeros((1, 1, WIDTH), np.float32)
    for start in range(0, len(sound) - FRAME - CONTEXT, FRAME):
        seen = sound[start : start + CONTEXT + FRAME]
        outputs = request.infer([spectra_samples(seen), hidden, cell], share_inputs=True)
        hidden, cell = outputs[1], outputs[2]


def times_real_time(run: Callable[[], object], sound_s: float, turns: int) -> dict[str, float]:
    run()
    clock, processor = [], []
    for _ in range(turns):
        started, used = time.perf_counter(), time.process_time()
        run()
        clock.append(sound_s / (time.perf_counter() - started))
        processor.append(sound_s / (time.process_time() - used))
    return {
        "by_the_clock": round(statistics.median(clock)),
        "by_processor_time": round(statistics.median(processor)),
    }


def measure(sound: Samples, threads: int, turns: int) -> dict[str, object]:
    detector = SileroDetector(threads=threads)
    by_frame = compiled(1, threads)
    sound_s, minute = len(sound) / SAMPLING_RATE, sound[: SECONDS_BY_FRAME * SAMPLING_RATE]
    minute_s = len(minute) / SAMPLING_RATE
    ours = times_real_time(lambda: hear(sound, detector), sound_s, turns)
    packed = times_real_time(lambda: pack(sound, detector), sound_s, turns)
    frames = times_real_time(lambda: run_frame_by_frame(minute, by_frame), minute_s, turns)
    ratio = ours["by_processor_time"] / frames["by_processor_time"]
    return {
        "sound_s": round(sound_s, 1),
        "threads": threads,
        "turns": turns,
        "openvino": ov.__version__,
        "processor": ov.Core().get_property("CPU", "FULL_DEVICE_NAME"),
        "python": platform.python_version(),
        "times_real_time": {"spans": ours, "windows": packed, "frame_by_frame": frames},
        "spans_over_frame_by_frame": round(ratio, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", nargs="?", default=None)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    given = parser.parse_args()
    sound = np.resize(
        decode(given.recording or demo_recording()).samples, given.seconds * SAMPLING_RATE
    )
    text = json.dumps(measure(sound, given.threads, given.turns), indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
