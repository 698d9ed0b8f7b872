"""What every test may use: one embedded stack for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlplatform.local.stack import RunningStack, running_stack
from mlplatform.settings import Settings

# Run against a control plane that another file has started (faults/test_control_plane.py), or by themselves.
collect_ignore = ["endtoend"]

if TYPE_CHECKING:
    import dagster as dg

    from mlplatform_tests.batch_projects import BatchProject, Warehouse


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Real S3, Redis and PostgreSQL; `.variables` points settings and child processes at them."""
    with running_stack(_settings(tmp_path_factory, "s3,redis,postgresql")) as running:
        yield running


@pytest.fixture(scope="session")
def mlflow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Real MLflow on PostgreSQL and S3, apart from `stack`, since few tests want to wait for it."""
    with running_stack(_settings(tmp_path_factory, "s3,redis,postgresql,mlflow")) as running:
        yield running


def _settings(tmp_path_factory: pytest.TempPathFactory, services: str) -> Settings:
    # Nothing of the developer's environment: tests must not meet real services.
    directory = str(tmp_path_factory.mktemp("stack"))
    return Settings({"MLPLATFORM_DATA_DIRECTORY": directory, "MLPLATFORM_STACK_SERVICES": services})


@pytest.fixture(scope="session")
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow without a server. One for all, since making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/runs.db"


@pytest.fixture
def dagster_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Keeps runs and events, also for other processes."""
    import dagster as dg

    folder = tmp_path / "dagster"
    folder.mkdir()
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(folder), overrides=quiet) as instance:
        yield instance


@pytest.fixture
def tables(stack: RunningStack) -> Iterator[Warehouse]:
    """The churn tables of one test."""
    from mlplatform_tests.batch_projects import warehouse

    with warehouse(Settings(stack.variables)) as made:
        yield made


@pytest.fixture
def batch_project(stack, tables: Warehouse, tracking_database: str, tmp_path: Path) -> BatchProject:
    """A project that has trained nothing yet, on `tables`."""
    from mlplatform_tests.batch_projects import make

    return make(tmp_path / "project", stack.variables, tables, tracking_database)


@pytest.fixture(scope="session")
def champion(
    stack: RunningStack, tracking_database: str, tmp_path_factory: pytest.TempPathFactory
) -> BatchProject:
    """A project whose model is trained, for tests that only score with it."""
    from mlplatform_tests.batch_projects import TRAINING, make, reasons, warehouse

    root = tmp_path_factory.mktemp("champion")
    with warehouse(Settings(stack.variables)) as made:
        project = make(root, stack.variables, made, tracking_database)
        result = project.run(TRAINING)
        assert result.success, reasons(result)
    return project


@pytest.fixture
def serving_project(champion: BatchProject, tables: Warehouse, tmp_path: Path) -> BatchProject:
    """The champion's project again, with `tables` of its own."""
    return champion.copy(tmp_path / "project", tables)
