"""The tests that are pointed at a deployment: what they say of one that is not there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlplatform_tests.cli.serving import standing_in


def tried(address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlplatform_tests.endtoend", "--api", address],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_PROXY": "*"},
        timeout=120,
    )


@pytest.mark.parametrize("down", [True, False], ids=["down", "another program"])
def test_a_deployment_that_is_not_there_fails_all_tests_with_its_address(down: bool) -> None:
    with standing_in(health=[(200, {"status": "healthy"})]) as another:
        address = "http://127.0.0.1:9" if down else another.url
        ended = tried(address)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"the deployment at {address} cannot be tried" in ended.stdout
    assert " passed" not in ended.stdout
    assert " skipped" not in ended.stdout
