"""The stack runs for any user, root included, though PostgreSQL refuses root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlplatform.local import launcher, servers
from mlplatform_tests.local.processes import COMMAND, environment

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="every other test runs unprivileged already")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are for the user who runs it."""
    folder = Path(tempfile.mkdtemp(prefix="mlplatform-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(folder: Path) -> list[str]:
    """What goes before a command to run it as the user nobody, who owns `folder`.

    Through our own launcher, since that user may neither reach this checkout nor this Python.
    """
    wrapper = [sys.executable, "-I", "-S", launcher.__file__, "--parent", str(os.getpid())]
    return [*wrapper, "--signal", "SIGKILL", "--not-root", str(folder), "--nobody", "--"]


@needs_root
def test_unprivileged_user(open_folder: Path) -> None:
    variables = environment(open_folder / "data")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [*as_nobody(open_folder), *COMMAND, *arguments]
        return subprocess.run(line, env=variables, capture_output=True, text=True)

    up = command("up")
    try:
        assert up.returncode == 0, up.stderr
        assert command("status").returncode == 0
        assert {path.stat().st_uid for path in open_folder.rglob("*")} == {launcher.NOBODY}
    finally:
        assert command("down").returncode == 0


@needs_root
def test_root_without_user_namespaces(tmp_path: Path) -> None:
    """As in a container that forbids them: nobody, below folders that only root may enter."""
    tmp_path.chmod(0o700)
    folder = tmp_path / "postgresql"
    folder.mkdir(mode=0o700)
    server = servers.PostgreSQL(folder, {"password": "secret", "port": 1, "inner_ports": {}})
    initdb = server.initialise()
    assert initdb
    made = subprocess.run(
        [*as_nobody(folder), *initdb], cwd=folder, env=server.environment, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    server.initialised()
    assert {path.stat().st_uid for path in folder.rglob("*")} == {launcher.NOBODY}
