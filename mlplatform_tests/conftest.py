"""What every test may use: one embedded stack for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlplatform.local.stack import RunningStack, running_stack
from mlplatform.settings import Settings


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Real S3, Redis and PostgreSQL; `.variables` points settings and child processes at them."""
    # Nothing of the developer's environment: tests must not meet real services.
    settings = Settings({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path_factory.mktemp("stack"))})
    with running_stack(settings) as running:
        yield running
