"""What the tests of whole graphs share."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def variables(stack) -> dict[str, str]:
    """Points a graph at the session's servers, with objects of its own."""
    return {**stack.variables, "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "2"}
