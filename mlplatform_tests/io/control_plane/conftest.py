from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database


@pytest.fixture
def database(stack: RunningStack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database
