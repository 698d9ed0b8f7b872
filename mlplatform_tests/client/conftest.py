"""The control plane behind real sockets, and a client of it that nobody's environment points elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane.app import application
from mlplatform_tests.io.control_plane.conftest import cheap_passwords, database
from mlplatform_tests.services.control_plane.secured import REQUIRED, create_user
from mlplatform_tests.services.control_plane.serving import listening, settings_of

__all__ = ["cheap_passwords", "database"]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLPLATFORM_TOKEN", "MLPLATFORM_API_URL"):
        monkeypatch.delenv(name, raising=False)
    # Everything is on this machine, also where the rest goes through a proxy.
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def address(stack: RunningStack, database: Database) -> Iterator[str]:
    """Of an API that asks nobody who they are."""
    with listening(application(settings_of(stack, database))) as address:
        yield address


@pytest.fixture
def secured(stack: RunningStack, database: Database, cheap_passwords: None) -> Iterator[str]:
    """One that does, and lets `ada` do everything."""
    create_user(database, "ada")
    with listening(application(settings_of(stack, database, **REQUIRED))) as address:
        yield address
