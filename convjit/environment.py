"""What this process runs on: versions, machine, threads, the cache of compiled code.

Knows how to ask; changes nothing. What `python -m convjit info` prints and what the bench stamps its results with.
"""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import llvmlite
import llvmlite.binding
import numba
import numpy as np

from .runtime import cache, containers, forks, memory, threads
from .simd import isa


def versions() -> dict[str, str]:
    """Versions of everything that decides what a kernel compiles to."""
    from . import __version__

    return {
        "convjit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "platform": platform.platform(),
    }


def cpu_name() -> str:
    """The name that the maker gave the processor; LLVM's name for it where the system does not say."""
    try:
        for line in containers.system_text(Path("/proc/cpuinfo")).splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or llvmlite.binding.get_host_cpu_name()


def instruction_set() -> str:
    """The vectors that micro-kernels are emitted for: of what Numba compiles for, the best that there is a row of."""
    return isa.here().title


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threading_layer() -> str:
    """The library behind parallel loops; this starts it."""
    if numba.config.DISABLE_JIT:
        return "none (NUMBA_DISABLE_JIT=1)"
    if forks.forked():
        return "none (a forked process runs serially)"
    try:
        return threads.layer()
    except RuntimeError as error:
        return f"none ({error})"


def _twin() -> str:
    """Which twin a large call of this thread takes, and why."""
    try:
        reason = threads.why_serial()
        return f"serial twin: {reason}" if reason else f"parallel twin, {threads.available()} workers"
    except RuntimeError:
        return "none: the threading layer cannot be used"


def cache_state() -> dict[str, str]:
    """Where compiled code is kept, whether it can be, and how much of it there is."""
    place, state, sizes = "", "on", []
    try:
        place = str(cache.folder())
        sizes = [path.stat().st_size for path in Path(place).glob("*.nbc") if path.is_file()]
        if not _writable(Path(place)):
            state = "on, but the folder cannot be written"
    except OSError as error:
        place, state = place or "none", f"on, but the folder cannot be used ({error})"
    if not cache.enabled():
        state = "off (CONVJIT_CACHE=0)"
    size = memory.readable_size(sum(sizes))
    return {"folder": place, "state": state, "entries": f"{len(sizes)} ({size})" if sizes else "0"}


def _writable(place: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, takes a file, which is gone at once.

    Modes do not tell: root may write everywhere, but for `/proc` and what is mounted read-only.
    """
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def report() -> dict[str, dict[str, str]]:
    """Everything, in sections of names and values."""
    quota = containers.cpu_quota()
    cores = usable_cores()
    layer = threading_layer()
    return {
        "versions": versions(),
        "machine": {
            "cpu": f"{cpu_name()} ({llvmlite.binding.get_host_cpu_name()})",
            "instruction set": instruction_set(),
            "cores": f"{os.cpu_count()}, of which usable: {cores}",
            "container quota": f"{quota} cores" if quota < containers.UNLIMITED else "none",
            "memory available": memory.readable_size(memory.available_bytes()),
        },
        "threads": {
            "layer": layer,
            "numba threads": f"{numba.config.NUMBA_NUM_THREADS}",
            "a large call": _twin(),
            "a small call": f"serial twin, below {threads.SERIAL_BELOW_NS // 1000} microseconds of work, or "
            f"{threads.SERIAL_BELOW_IF_AWAKE_NS // 1000} while threads are awake",
        },
        "cache": cache_state(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(("NUMBA_", "CONVJIT_", "OMP_"))
        },
    }


def as_text(sections: dict[str, dict[str, str]]) -> str:
    """Sections as aligned lines, to be pasted into a report."""
    width = max(len(name) for fields in sections.values() for name in fields)
    lines = []
    for section, fields in sections.items():
        if fields:
            lines.append(section)
            lines += [f"  {name:<{width}}  {value}" for name, value in fields.items()]
    return "\n".join(lines)


def print_report() -> None:
    """Write everything to standard output."""
    print(as_text(report()))
