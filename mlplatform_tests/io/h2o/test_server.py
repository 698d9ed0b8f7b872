"""A server of our own: it must go whenever we go, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from mlplatform.io.h2o.client import H2OClient
from mlplatform.io.h2o.java import h2o_version
from mlplatform.io.h2o.server import running_server
from mlplatform.io.plugins.frameworks import FrameworkError
from mlplatform_tests.io.h2o.servers import shared_server
from mlplatform_tests.local.processes import descendants, eventually, lives, program

MEMORY = 512 * 1024**2
CODE = """
import sys, threading, time
from pathlib import Path
from mlplatform.io.h2o.server import running_server

running = running_server(Path(sys.argv[1]), 1, 512 * 1024**2)

def start():
    running.__enter__()

# The thread that starts it ends at once.
starter = threading.Thread(target=start)
starter.start()
starter.join()
time.sleep(1)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        children = descendants(process.pid)
        assert sorted(program(child) for child in children)[0] == "java"
        process.send_signal(number)
        process.wait()
    assert eventually(lambda: not any(lives(child) for child in children))
    assert [path.name for path in tmp_path.iterdir()] == ["h2o.log"]


def test_it_ends_when_its_guard_is_killed(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    with running_server(tmp_path, 1, MEMORY) as server:
        guard, java = sorted(set(descendants(os.getpid())) - before, key=lambda pid: program(pid) == "java")
        assert (program(java), server.ended()) == ("java", None)
        os.kill(guard, signal.SIGKILL)
        assert eventually(lambda: not lives(java))
        assert "killed by SIGKILL" in str(server.ended())


def test_only_we_are_let_in() -> None:
    server = shared_server()
    with H2OClient(server.url, server.ended) as client:
        assert client.version() == h2o_version()
        assert client.url.startswith("http://127.0.0.1:")
        assert requests.get(f"{client.url}/3/Cloud", timeout=10).status_code == 401
        with H2OClient(client.url) as stranger, pytest.raises(FrameworkError, match="refuses our user"):
            stranger.version()
    assert "@" not in repr(server)


def test_java_that_does_not_start_shows_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlplatform.io.h2o.server.LEAST_HEAP_BYTES", 0)
    with (
        pytest.raises(FrameworkError, match=r"H2O does not start: .*status 1.*(?s:.*)heap"),
        running_server(tmp_path, 1, 1024**2),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["h2o.log"]


def test_two_servers_at_once(tmp_path: Path) -> None:
    urls = []

    def start(name: str) -> None:
        (tmp_path / name).mkdir()
        with running_server(tmp_path / name, 1, MEMORY) as server, H2OClient(server.url) as client:
            assert client.get("3/Cloud")["cloud_size"] == 1
            urls.append(client.url)

    threads = [threading.Thread(target=start, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 2
