from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.services.test_learner import addresses


@pytest.fixture
def settings(stack: RunningStack, tmp_path: Path) -> Settings:
    """Of a model service with a disk of its own, which flushes when it ends."""
    return Settings(
        {
            "MLPLATFORM_DATA_DIRECTORY": str(tmp_path),
            "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex,
            "MLPLATFORM_SNAPSHOT_KEY": "key",
            "MLPLATFORM_FLUSH_SECONDS": "1000",
            **addresses(stack),
        }
    )
