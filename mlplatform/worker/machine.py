"""What this machine, or the container that this is, has."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PR_SET_DUMPABLE = 4


def keep_to_itself() -> None:
    """Other processes of the same user, such as commands, cannot read this one's memory and variables.

    Those of root can: a worker should not be root's.
    """
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def cores(root: Path = CGROUPS) -> float:
    """Processors that this process may use, or the share of them that its group may."""
    available = float(len(os.sched_getaffinity(0)))
    for group in _groups(root):
        limit = _words(group / "cpu.max")
        if len(limit) == 2 and limit[0] != "max":
            available = min(available, int(limit[0]) / int(limit[1]))
    quota, period = _words(root / "cpu/cpu.cfs_quota_us"), _words(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        available = min(available, int(quota[0]) / int(period[0]))
    return available


def memory_mb(root: Path = CGROUPS) -> int:
    """Mebibytes."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [group / "memory.max" for group in _groups(root)]
    for path in [*limits, root / "memory/memory.limit_in_bytes"]:
        if (limit := _words(path)) and limit[0] != "max":
            available = min(available, int(limit[0]))
    return available // 2**20


def _groups(root: Path) -> list[Path]:
    """The folders of this process's group (of the second version) and of those that it is in."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            group = root / path.strip("/")
            return [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return []


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
