"""Every test here has the session's real servers, and keys of its own on them."""

from __future__ import annotations

import uuid

import hypothesis
import pytest

from mlplatform.io.object_store import ObjectStore
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings

# How long an example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture
def settings(stack: RunningStack) -> Settings:
    return Settings({**stack.variables, "MLPLATFORM_S3_PREFIX": f"test-{uuid.uuid4().hex}"})


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return ObjectStore(settings.s3)
