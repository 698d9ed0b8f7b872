from __future__ import annotations

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from mlplatform.io.control_plane import passwords
from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database


@pytest.fixture
def database(stack: RunningStack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database


@pytest.fixture
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost a thousandth: what they are good for is shown elsewhere."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
