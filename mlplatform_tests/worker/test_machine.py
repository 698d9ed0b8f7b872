from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.worker import machine


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where this process is among the groups."""
    real = machine._text
    inside = {Path("/proc/self/cgroup"): "1:cpu:/ignored\n0::/slice/unit\n"}
    monkeypatch.setattr(machine, "_text", lambda path: inside.get(path) or real(path))
    return "slice/unit"


def test_a_process_that_keeps_to_itself_is_not_read_by_others_of_its_user() -> None:
    code = """
import ctypes, os, subprocess
from mlplatform.worker import machine
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
# As after a start as that user.
ctypes.CDLL(None).prctl(machine.PR_SET_DUMPABLE, 1, 0, 0, 0)
def seen():
    return b"canary" in subprocess.run(["cat", f"/proc/{os.getpid()}/environ"], capture_output=True).stdout
before = seen()
machine.keep_to_itself()
print(before, seen())
"""
    variables = {"CANARY": "canary", "PATH": "/usr/bin:/bin"}
    said = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert said.stdout == "True False\n", said.stderr


def test_without_limits_it_is_the_whole_machine(tmp_path: Path, group: str) -> None:
    write(tmp_path / group / "cpu.max", "max 100000\n")
    write(tmp_path / group / "memory.max", "max\n")
    assert machine.cores(tmp_path) >= 1
    assert machine.memory_mb(tmp_path) > 256


def test_the_least_of_the_limits_of_all_groups_holds(tmp_path: Path, group: str) -> None:
    write(tmp_path / group / "cpu.max", "max 100000\n")
    write(tmp_path / "slice/cpu.max", "50000 100000\n")
    write(tmp_path / group / "memory.max", str(64 * 2**20))
    write(tmp_path / "slice/memory.max", str(128 * 2**20))
    assert machine.cores(tmp_path) == 0.5
    assert machine.memory_mb(tmp_path) == 64


def test_limits_of_the_first_version(tmp_path: Path) -> None:
    write(tmp_path / "cpu/cpu.cfs_quota_us", "25000\n")
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "memory/memory.limit_in_bytes", str(32 * 2**20))
    assert machine.cores(tmp_path) == 0.25
    assert machine.memory_mb(tmp_path) == 32
    write(tmp_path / "cpu/cpu.cfs_quota_us", "-1\n")
    assert machine.cores(tmp_path) >= 1
