"""Where and with what something was measured: the birth certificate of a figure.

Knows Linux's /proc, and does without where there is none.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_CPUINFO, _STAT, _STATUS = Path("/proc/cpuinfo"), Path("/proc/stat"), Path("/proc/self/status")


def n_processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """What the processor can do, by Linux's names; empty where unknown."""
    return frozenset(_cpuinfo("flags").split())


def processor_name() -> str:
    """Such as "AMD EPYC"."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def machine_slug() -> str:
    """The machine in a file's name, such as amd-epyc-2-cores."""
    words = re.findall(r"[a-z0-9]+", processor_name().lower().replace("(r)", ""))
    return "-".join([*words[:6], str(n_processors()), "cores"])


def certificate() -> dict[str, Any]:
    """Processor, memory, system, commit and time, as JSON types."""
    shown = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    flags = processor_flags()
    return {
        "processor": processor_name(),
        "processors": n_processors(),
        "processor_flags": [flag for flag in shown if flag in flags],
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def today() -> str:
    """The date in a file's name."""
    return datetime.now(timezone.utc).date().isoformat()


def commit() -> str | None:
    """The checkout's commit, with ``+`` where files of it were changed since; None without git."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "batched_whisper")
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if changed else "")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of some distributions; those not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_bytes() -> int:
    """The most memory that this process ever had resident."""
    text = _status("VmHWM")  # unlike ru_maxrss it does not start from the parent's
    if text:
        return int(text.split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def n_threads() -> int | None:
    """The threads of this process; None where unknown."""
    text = _status("Threads")
    return int(text) if text else None


@dataclass(frozen=True)
class BusyTime:
    """Seconds for which all processors together were busy since the machine started."""

    seconds: float | None

    @classmethod
    def now(cls) -> BusyTime:
        """None in it where the system does not say."""
        if not _STAT.is_file():
            return cls(None)
        ticks = [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
        busy = user + nice + system + irq + softirq + steal
        return cls(busy / os.sysconf("SC_CLK_TCK"))

    def since(self, earlier: BusyTime) -> float | None:
        """Seconds between the two."""
        if self.seconds is None or earlier.seconds is None:
            return None
        return self.seconds - earlier.seconds


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _cpuinfo(field: str) -> str:
    return _field(_CPUINFO, field)


def _status(field: str) -> str:
    return _field(_STATUS, field)


def _field(file: Path, name: str) -> str:
    """The first line ``name : value`` of a file; empty where there is none."""
    if file.is_file():
        for line in file.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""
