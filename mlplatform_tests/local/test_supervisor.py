"""What the supervisor does with a server that keeps ending."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from mlplatform.local import supervisor
from mlplatform.local.servers import Server
from mlplatform.local.supervisor import RESTARTS, Supervised


class Broken(Server):
    name = "broken"
    package = "none"
    default_port = 1

    @staticmethod
    def new_credentials() -> dict[str, str]:
        return {}

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", "echo no luck; exit 3"]

    def address(self) -> dict[str, str]:
        return {}

    def variables(self) -> dict[str, str]:
        return {}


def test_restarts_are_bounded_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setitem(supervisor.PROBES, "broken", lambda settings: None)
    caplog.set_level(logging.INFO)
    lock = os.open(tmp_path / "lock", os.O_CREAT)
    one = Supervised(Broken(tmp_path, {"port": 1, "inner_ports": {}}), lock)
    deadline = time.monotonic() + 10
    while not one.gave_up and time.monotonic() < deadline:
        one.tick()
        if one.ended:
            one.restart()
    os.close(lock)
    assert one.gave_up
    assert (tmp_path / "server.log").read_text() == "no luck\n" * (1 + RESTARTS)
    assert "given up after 6 restarts" in caplog.text
