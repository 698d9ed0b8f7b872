"""Several applications in one process: they start together, and end together."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from mlplatform_tests.local.processes import eventually

CODE = """
import asyncio, sys
from contextlib import asynccontextmanager
from fastapi import FastAPI
from mlplatform.services.server import PortTaken, Service, listening, serve

def application(name, starts=True):
    @asynccontextmanager
    async def lifespan(app):
        if not starts:
            raise RuntimeError(f"{name} cannot start")
        yield
        await asyncio.sleep(0.1)
        print("closed", name, flush=True)
    app = FastAPI(lifespan=lifespan)
    @app.get("/slow")
    async def slow():
        app.state.slow = True
        await asyncio.sleep(1)
        return name
    @app.get("/slow/begun")
    async def begun():
        return getattr(app.state, "slow", False)
    @app.get("/")
    async def fast():
        return name
    return app

services = [Service(name, application(name, name != "broken"), port) for name, port in SERVICES]
try:
    with listening(services, "127.0.0.1") as sockets:
        print(*(bound.getsockname()[1] for bound in sockets.values()), flush=True)
        sys.exit(0 if serve(services, sockets) else 1)
except PortTaken as error:
    sys.exit(str(error))
"""


def started(*services: tuple[str, int]) -> subprocess.Popen[str]:
    code = CODE.replace("SERVICES", repr(services))
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def two() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    process = started(("one", 0), ("two", 0))
    assert process.stdout
    urls = [f"http://127.0.0.1:{port}" for port in process.stdout.readline().split()]
    yield process, urls
    process.kill()
    process.communicate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them_after_what_they_answer(two, number) -> None:
    process, urls = two
    assert eventually(lambda: all(map(answers, urls)))
    assert [httpx.get(url).json() for url in urls] == ["one", "two"]
    with (
        httpx.Client() as client,
        subprocess.Popen(
            [sys.executable, "-c", f"import httpx; print(httpx.get('{urls[0]}/slow').json())"],
            stdout=subprocess.PIPE,
            text=True,
        ) as slow,
    ):
        assert eventually(lambda: client.get(f"{urls[0]}/slow/begun").json())
        process.send_signal(number)
        said, _ = slow.communicate(timeout=20)
    assert said.strip() == "one"
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert sorted(out.split("\n")) == ["", "closed one", "closed two"]


def test_one_that_cannot_start_ends_the_others() -> None:
    process = started(("one", 0), ("broken", 0))
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "closed one" in out


def test_a_port_that_is_taken_is_named_and_nothing_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = started(("one", 0), ("two", port))
        out, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"two cannot listen on 127.0.0.1:{port} (Address already in use): end what does" in error
    assert out == ""
