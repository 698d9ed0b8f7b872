"""The names that the card of the platform uses: each of them works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mlplatform import definitions
from mlplatform.components.online_learning import automation
from mlplatform.components.online_learning.graph import SHARD_TAG
from mlplatform.domain.recipes import load_recipes
from mlplatform.resources.stores import Stores
from mlplatform_tests.graphs import Graph, environment, failure_message, pushed, replay
from mlplatform_tests.local import processes

DAGSTER = [sys.executable, "-m", "dagster"]
CODE_LOCATION = ["-m", "mlplatform.definitions"]
# A tenth of the replay: 74 months, and one more at each run.
PRIMED = {"MLPLATFORM_REPLAY_PRIMED": "0.1"}
CARD = {
    "dagster",
    "dagster-webserver",
    "dagster-k8s",
    "dagster-aws",
    "dagster-postgres",
    "dagster-mlflow",
    "river",
    "h2o",
    "redis",
    "pandas",
    "pytest",
}


@pytest.fixture
def variables(mlflow_stack, tmp_path) -> dict[str, str]:
    """Objects and a Dagster instance of their own, on the session's servers."""
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    own = {"MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "2"}
    return {**mlflow_stack.variables, **PRIMED, **own, "DAGSTER_HOME": str(tmp_path)}


def dagster(variables: dict[str, str], *arguments: str) -> str:
    """What `dagster …` says, called from the root of the repository; it succeeds."""
    mine = processes.environment(Path(variables["MLPLATFORM_DATA_DIRECTORY"]), **variables)
    ended = subprocess.run([*DAGSTER, *arguments], env=mine, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def learned(variables: dict[str, str]) -> dict[str, int]:
    """How many observations each model has learned."""
    frames = Graph(variables).stores.frames.under("metrics")
    return {row["model"]: row["observations"] for frame in frames for row in frame.to_pylist()}


def test_dagster_job_execute_and_asset_materialize_let_every_model_learn(variables):
    assert "RUN_SUCCESS" in dagster(variables, "job", "execute", *CODE_LOCATION, "-j", "online_learning")
    assert learned(variables) == dict.fromkeys(load_recipes(), 74)
    assert "RUN_SUCCESS" in dagster(variables, "asset", "materialize", *CODE_LOCATION, "--select", "*")
    assert learned(variables) == dict.fromkeys(load_recipes(), 75)


@pytest.mark.parametrize("arguments", [[], ["-w", "workspace.yaml"]], ids=["plain", "workspace"])
def test_dagster_finds_the_definitions_from_the_root_of_the_repository(variables, arguments):
    said = dagster(variables, "definitions", "validate", *arguments)
    assert re.search(r"Validation successful for code location mlplatform\.definitions", said), said


# What Dagster itself uses when it loads components.
@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_materialize_all_in_dagit_lets_every_model_learn(variables):
    """Dagit launches the job of all assets."""
    with environment(variables):
        result = (
            definitions.defs()
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
        )
    assert result.success, failure_message(result)
    assert learned(variables) == dict.fromkeys(load_recipes(), 74)


@pytest.mark.parametrize(
    ("named", "executor"),
    [
        ({}, "in_process"),
        ({"MLPLATFORM_ENV": "kubernetes"}, "k8s"),
        ({"MLPLATFORM_ENV": "kubernetes", "MLPLATFORM_EXECUTOR": "in_process"}, "in_process"),
        ({"MLPLATFORM_EXECUTOR": "multiprocess"}, "multiprocess"),
    ],
    ids=str,
)
def test_each_step_has_its_own_pod_on_kubernetes_unless_the_executor_is_named(named, executor):
    program = (
        "from mlplatform.definitions import defs\n"
        "print(*{job.executor_def.name for job in defs().resolve_all_job_defs()})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=processes.environment(Path("nowhere"), **named),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout == f"{executor}\n", ended.stderr


def test_every_package_of_the_card_is_declared():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    declared = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^\w-]", each, maxsplit=1)[0] for group in declared for each in group}
    assert names >= CARD


@pytest.fixture
def instance(variables) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Sensor:
    """The sensor of a graph, evaluated as the daemon does it."""

    def __init__(self, variables: dict[str, str], instance: dg.DagsterInstance) -> None:
        self.graph = Graph(variables, models=["ridge"])
        self.instance = instance

    def tick(self, cursor: str | None = None):
        with environment(self.graph.variables):
            context = dg.build_sensor_context(self.instance, cursor, resources={"stores": Stores()})
            return self.graph.defs.resolve_sensor_def("poll_sources").evaluate_tick(context)

    def run_that_began(self) -> str:
        """A run that says "started" and nothing more."""
        run = self.instance.create_run_for_job(self.graph.job, tags={SHARD_TAG: "0"})
        event = dg.DagsterEvent("PIPELINE_START", job_name=run.job_name)
        self.instance.report_dagster_event(event, run.run_id)
        return run.run_id


@pytest.fixture
def sensor(variables, instance) -> Sensor:
    return Sensor(variables, instance)


def test_the_sensor_asks_for_one_run_for_all_that_waits(sensor):
    sensor.graph.push(*(pushed(name, month, 1.0) for month in range(3) for name in "ab"))
    tick = sensor.tick()
    assert [request.tags[SHARD_TAG] for request in tick.run_requests] == ["0"]
    assert json.loads(tick.cursor) == {"0": 0}
    assert sensor.graph.run(instance=sensor.instance).success
    tick = sensor.tick(tick.cursor)
    assert tick.run_requests == []
    assert "nothing waits" in tick.skip_message
    # The cursor says how far the log goes; it is for people.
    assert json.loads(tick.cursor) == {"0": 6}


def test_the_sensor_skips_while_a_run_is_on_its_way(sensor):
    sensor.graph.push(pushed("a", 0, 1.0))
    run_id = sensor.run_that_began()
    tick = sensor.tick()
    assert tick.run_requests == []
    assert f"run {run_id} is on its way" in tick.skip_message


def test_the_sensor_skips_while_somebody_holds_a_live_lease(sensor):
    sensor.graph.push(pushed("a", 0, 1.0))
    with sensor.graph.stores.leases.hold(0, "someone"):
        tick = sensor.tick()
    assert tick.run_requests == []
    assert "run someone is active" in tick.skip_message


def test_a_run_that_died_blocks_the_sensor_no_longer_than_its_lease(sensor, monkeypatch):
    sensor.graph.push(pushed("a", 0, 1.0))
    run_id = sensor.run_that_began()
    # The time that it takes until a run holds its lease is over.
    monkeypatch.setattr(automation, "STARTING_SECONDS", 0)
    with sensor.graph.stores.leases.hold(0, run_id):
        assert f"run {run_id} is active" in sensor.tick().skip_message
    # Held by nobody who renews it, as after a kill.
    assert processes.eventually(lambda: bool(sensor.tick().run_requests))


PLUGIN = '''
import numpy as np
from mlplatform.domain.recipe import Recipe


class Mean:
    """Says the mean of what it has seen."""

    def __init__(self):
        self.total = self.count = 0

    def predict(self, features, ahead=0):
        return self.total / max(self.count, 1)

    def fold(self, features, targets):
        said = []
        for target in targets:
            said.append(self.predict(None))
            self.total, self.count = self.total + target, self.count + 1
        return np.array(said)


def estimator(season):
    return Mean()


RECIPE = Recipe("mean", "The mean of all values", estimator, difference="none", libraries=())
'''


def test_a_recipe_of_an_installed_package_learns_in_the_graph(variables, tmp_path, monkeypatch):
    (tmp_path / "their_recipe.py").write_text(PLUGIN)
    installed = tmp_path / "their_recipe-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: their-recipe\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[mlplatform.recipes]\nmean = their_recipe:RECIPE\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_recipe", raising=False)
    assert "mean" in load_recipes()
    graph = Graph(variables, [replay(last=30)], models=["mean"])
    result = graph.run()
    assert result.success, failure_message(result)
    assert learned(variables)["mean"] == 30
    values = graph.stores.table("observations").read()["value"].to_pylist()
    said = graph.stores.table("predictions").read(["model", "prediction"]).to_pylist()
    mine = [row["prediction"] for row in said if row["model"] == "mean"]
    # Nobody learns from the first, which has nothing before it.
    assert mine[-1] == pytest.approx(sum(values[1:-1]) / 28)
