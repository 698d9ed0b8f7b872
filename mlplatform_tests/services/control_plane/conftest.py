"""The same database as that of what these services stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.io.control_plane.conftest import cheap_passwords, database

__all__ = ["cheap_passwords", "database"]


@pytest.fixture(scope="module")
def kept_database(stack: RunningStack) -> Iterator[Database]:
    """One for all tests of a module, each of which leaves something behind."""
    with fresh_database(Settings(stack.variables).database_url) as made:
        yield made
