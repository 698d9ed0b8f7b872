"""`mlplatform serve …` as a process of its own, that can be killed and started again."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from mlplatform.local import ports
from mlplatform.settings import Settings
from mlplatform_tests.local.processes import COMMAND, environment, eventually

SECONDS = 30


class Process:
    """`mlplatform serve` with these arguments on a port that stays the same."""

    def __init__(self, settings: Settings, *arguments: str) -> None:
        variables = dict(settings.variables)
        directory = Path(variables.pop("MLPLATFORM_DATA_DIRECTORY"))
        self.port = ports.choose(set())
        self.address = f"http://127.0.0.1:{self.port}"
        self.said = directory / f"said {self.port}"
        self._environment = environment(directory, **variables)
        self._command = [*COMMAND, "serve", *arguments, "--port", str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.said.parent.mkdir(parents=True, exist_ok=True)
        with self.said.open("ab") as said:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=said, stderr=said)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        assert eventually(self.ready, SECONDS), self.said.read_text()[-5000:]

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """The exit code."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code of a process that ends by itself."""
        assert self._process
        return self._process.wait(timeout=SECONDS)


@contextmanager
def process(settings: Settings, *arguments: str) -> Iterator[Process]:
    """A process that is ready; killed in the end."""
    made = Process(settings, *arguments)
    made.start()
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.kill()
