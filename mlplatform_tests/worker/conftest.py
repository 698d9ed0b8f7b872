from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.worker.plane import Plane, plane


@pytest.fixture
def control_plane(stack: RunningStack) -> Iterator[Plane]:
    with plane(Settings(stack.variables)) as made:
        yield made
