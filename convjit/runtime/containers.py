"""What the container allows: CPUs and memory of the process's control group, versions 1 and 2.

Source: the Linux kernel's documentation, "Control Group v2" (`cpu.max`, `memory.max`) and "CFS Bandwidth Control".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 30


def system_text(file: Path) -> str:
    """What the system says in a file, decoded as names of files are: those of groups have letters of any locale."""
    return os.fsdecode(file.read_bytes())


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the process's group and those above it; `controller` is empty for version 2."""
    top = _ROOT / controller
    try:
        lines = system_text(Path("/proc/self/cgroup")).splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = top / path.lstrip("/")
            while group != top:
                yield group
                group = group.parent
    yield top


def _quotas() -> Iterator[float]:
    for group in _groups(""):
        try:
            quota, period = system_text(group / "cpu.max").split()
            yield int(quota) / int(period)
        except (OSError, ValueError):
            continue  # "max": no quota
    for group in _groups("cpu"):
        try:
            quota, period = (system_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        except OSError:
            continue
        if int(quota) > 0:
            yield int(quota) / int(period)


@cache
def cpu_quota() -> int:
    """The CPU quota in whole CPUs, at least 1; `UNLIMITED` where there is none."""
    return max(1, math.floor(min(_quotas(), default=UNLIMITED)))


def memory_left() -> int | None:
    """Bytes until the group's limit, None without one."""
    left = [_left(group, "memory.max", "memory.current") for group in _groups("")]
    left += [_left(group, "memory.limit_in_bytes", "memory.usage_in_bytes") for group in _groups("memory")]
    return min((bytes_left for bytes_left in left if bytes_left is not None), default=None)


def _left(group: Path, limit: str, used: str) -> int | None:
    try:
        left = int(system_text(group / limit)) - int(system_text(group / used))
        statistics = dict(line.split() for line in system_text(group / "memory.stat").splitlines())
    except (OSError, ValueError):
        return None  # no such group, or one without a limit
    # File pages that nobody uses are given back before memory runs out.
    return left + int(statistics.get("inactive_file", 0))
