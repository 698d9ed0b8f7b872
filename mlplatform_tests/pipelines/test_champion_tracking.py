"""Changes of champion of an online graph, in MLflow."""

from __future__ import annotations

import time
import uuid

import pytest

from mlplatform.components.online_learning.champions import contest_versions
from mlplatform.components.online_learning.component import FamilyModel
from mlplatform.io.champion_tracking import EXPERIMENT
from mlplatform.io.plugins.model_registries.mlflow_connection import MLflowConnection
from mlplatform.settings import Settings
from mlplatform_tests.faults.harness import run_in_child, waiting
from mlplatform_tests.graphs import Graph, failure_message, replay

# Nobody listens there.
DOWN = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}


@pytest.fixture
def tracked_variables(mlflow_stack) -> dict[str, str]:
    """Points a graph at a stack that runs MLflow, with objects of its own."""
    return {
        **mlflow_stack.variables,
        "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex,
        "MLPLATFORM_LEASE_SECONDS": "2",
    }


@pytest.fixture
def series_id() -> str:
    return f"retail's {uuid.uuid4().hex[:8]}"


def in_mlflow(mlflow_stack, series_id: str) -> list:
    """The runs of a series, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(Settings(mlflow_stack.variables).mlflow_tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
    mine = [run for run in runs if run.data.tags["series_id"] == series_id]
    return sorted(mine, key=lambda run: int(run.data.params["since_observation"]))


def metadata_of(result) -> dict[str, object]:
    [champion] = result.asset_materializations_for_node("champion")
    return {name: value.value for name, value in champion.metadata.items()}


def test_each_change_of_champion_is_one_run_in_mlflow(
    tracked_variables, mlflow_stack, series_id, tmp_path
) -> None:
    path = tmp_path / "series.csv"
    path.write_text(_chaos())
    family = FamilyModel(name="short", series=["*"], lags=4)
    source = replay(path, series_id, last=None)
    graph = Graph(tracked_variables, [source], models=["linear", "ridge", "knn"], families=[family])
    result = graph.run(limit=60)
    while waiting(graph) or metadata_of(result).get("untracked_changes"):
        result = graph.run(limit=60)
        assert result.success, failure_message(result)
    runs = in_mlflow(mlflow_stack, series_id)

    served = [(run.data.params["model"], int(run.data.params["since_observation"])) for run in runs]
    contest = _contests(graph)[series_id]
    assert served == [(change.champion, change.offset) for change in contest.changes]
    assert [model for model, _ in served] == ["linear", "knn"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    first, second = (run.data for run in runs)
    assert runs[0].info.run_name == f"{series_id}/{first.params['model']}"
    recipe = graph.graph.recipes[first.params["model"]]
    assert first.params["recipe_digest"] == recipe.digest
    assert (first.params["lags"], first.params["season"]) == ("4", "None")
    assert first.metrics["rolling_error"] == contest.changes[0].error
    assert first.metrics["mae"] > 0
    assert not any(name.startswith("previous_") for name in first.metrics)
    assert (first.tags["model"], first.tags["previous_model"]) == (recipe.name, "")
    assert len(first.tags["dagster_run_id"]) == 36
    assert second.metrics["previous_rolling_error"] == contest.changes[1].previous_error
    assert second.metrics["rolling_error"] < second.metrics["previous_rolling_error"]
    assert second.metrics["previous_mae"] == first.metrics["mae"]
    assert second.tags["previous_model"] == "linear"

    before = graph.stores.objects.get("champion_tracking/0.json")
    assert graph.run().success
    assert graph.stores.objects.get("champion_tracking/0.json") == before
    assert len(in_mlflow(mlflow_stack, series_id)) == len(runs)


def test_a_change_while_mlflow_was_down_is_tracked_by_a_later_run(
    tracked_variables, mlflow_stack, series_id
) -> None:
    sources = [replay(series_id=series_id, last=40)]
    down = Graph({**tracked_variables, **DOWN}, sources)
    result = down.run(limit=30)
    assert result.success, failure_message(result)
    told = metadata_of(result)
    assert told["untracked_changes"] == 1
    assert "MLflow at http://127.0.0.1:9" in str(told["untracked_because"])
    # Nothing is new: what it takes is what it costs that MLflow is down.
    began = time.monotonic()
    outcome = down.stores.champion_tracking.track(0, _changes(down), _unused)
    assert outcome
    assert outcome.waiting == 1
    assert time.monotonic() - began < 2

    # The same graph, which now finds it; nothing new is there to be learned.
    result = Graph(tracked_variables, sources).run(limit=10)
    assert result.success, failure_message(result)
    told = metadata_of(result)
    assert told["tracked_changes"] == 1
    assert "untracked_changes" not in told
    assert str(told["mlflow"]).startswith("http://127.0.0.1:")
    [run] = in_mlflow(mlflow_stack, series_id)
    assert run.data.params["since_observation"] == "24"


@pytest.mark.parametrize("write", ["#0", "#1"])
def test_a_run_that_is_killed_leaves_each_change_to_be_tracked_once(
    tracked_variables, mlflow_stack, series_id, write
) -> None:
    """Killed after the champion was committed: before MLflow was told, and before that was noted."""
    graph = Graph(tracked_variables, [replay(series_id=series_id, last=30)])
    outcome = run_in_child(graph, kill_before=f"put champion_tracking/0.json{write}")
    assert outcome.killed
    assert len(in_mlflow(mlflow_stack, series_id)) == int(write == "#1")
    while True:
        result = graph.run()
        assert result.success, failure_message(result)
        if not metadata_of(result).get("untracked_changes"):
            break
    [run] = in_mlflow(mlflow_stack, series_id)
    assert run.info.status == "FINISHED"


def test_where_no_mlflow_is_configured_nobody_is_asked(variables, series_id, monkeypatch) -> None:
    def ask(_) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(MLflowConnection, "client", property(ask))
    graph = Graph(variables, [replay(series_id=series_id, last=30)])
    result = graph.run()
    assert result.success, failure_message(result)
    assert metadata_of(result)["tracking"] == "no MLflow is configured"
    assert graph.stores.objects.get("champion_tracking/0.json") is None


def _chaos() -> str:
    """A replay of a logistic map, in which only a model that remembers sees the rule, and not at once."""
    lines, state = ["timestamp,value"], 0.3
    for month in range(100):
        state = 3.9 * state * (1 - state)
        lines.append(f"{1990 + month // 12}-{month % 12 + 1:02d},{140 + 20 * state}")
    return "\n".join(lines) + "\n"


def _contests(graph: Graph):
    return graph.stores.states.load("champion", 0, contest_versions(graph.graph), {}).content


def _changes(graph: Graph):
    return {series_id: contest.changes for series_id, contest in _contests(graph).items()}


def _unused(*_):
    raise AssertionError("nothing can be described to an MLflow that is down")
