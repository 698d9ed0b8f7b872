"""The control plane while its processes are killed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.faults.control_planes import ControlPlane, control_plane, troubled
from mlplatform_tests.services.test_learner import addresses


@pytest.fixture(scope="module")
def plane(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    settings = Settings(stack.variables)
    home = tmp_path_factory.mktemp("plane")
    variables = {**addresses(stack), "MLPLATFORM_DATABASE_URL": settings.database_url}
    with (
        fresh_database(settings.database_url) as database,
        control_plane(home, database, variables, workers=3) as plane,
    ):
        yield plane


@pytest.mark.timeout(400)
def test_thirty_jobs_end_once_each_while_everything_is_killed(plane: ControlPlane) -> None:
    seed = int(os.environ.get("MLPLATFORM_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"MLPLATFORM_TEST_SEED={seed}")
    troubled(plane, jobs=30, kills=12, chance=random.Random(seed), seconds=24)
