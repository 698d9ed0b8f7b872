"""The online-learning graph as a whole, on real stores."""

from __future__ import annotations

import uuid
from collections import Counter

import dagster as dg
import numpy as np
import pyarrow.dataset as ds
import pytest

from mlplatform.components.online_learning.component import FamilyModel, SourceModel
from mlplatform.domain.model import ModelSet
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.feature_table import to_feature_rows
from mlplatform_tests.graphs import Graph, checks, failure_message, predictions, pushed, replay, rows_of


def test_every_observation_is_learned_once_by_every_model(variables):
    graph = Graph(variables, [replay(last=80)], models=list(load_recipes()))
    result = graph.run()
    assert result.success, failure_message(result)
    # Whether a champion beats the baselines is a matter of luck after so few months.
    failed = {name for name, passed in checks(result).items() if not passed}
    assert failed <= {"champion:beats_baselines"}
    assert len(graph.stores.table("observations").read()) == 80
    assert {row["observations"] for row in rows_of(graph, "metrics")} == {80}
    said = predictions(graph)["model"].to_pylist()
    assert Counter(said) == dict.fromkeys([*load_recipes(), "champion"], 80)


def test_a_second_run_finds_nothing_to_do(variables):
    graph = Graph(variables, [replay(last=40)])
    assert graph.run().success
    before = graph.stores.objects.get("snapshots/ridge/0")
    result = graph.run()
    assert result.success
    assert graph.stores.objects.get("snapshots/ridge/0") == before
    assert len(graph.stores.table("predictions").read()) == 40 * 6


def test_cutting_a_replay_into_runs_changes_no_prediction(variables):
    whole = Graph({**variables, "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex}, [replay(last=60)])
    assert whole.run().success
    cut = Graph(variables, [replay(last=60)])
    for _ in range(3):
        assert cut.run(limit=20).success
    assert predictions(whole).equals(predictions(cut))


def test_a_stored_prediction_is_what_a_replay_of_the_log_says(variables):
    """G2: prediction n is made by the state of exactly the observations before n, bit for bit."""
    graph = Graph(variables, [replay(last=60)])
    for _ in range(2):
        assert graph.run(limit=30).success
    stores = graph.stores
    rows = to_feature_rows(stores.table("lag_features").read())
    for name, recipes in graph.graph.steps.items():
        replayed = ModelSet(recipes, graph.graph.families).fold(rows)
        for recipe in recipes:
            stored = stores.table("predictions").read(["prediction"], where=ds.field("model") == recipe.name)
            assert np.array_equal(stored["prediction"].to_numpy(), replayed[recipe.name]), name


def test_pushed_duplicates_are_learned_once(variables):
    """G1: the same observation, pushed again and again, in one run and in later ones."""
    graph = Graph(variables)
    readings = [pushed("room", month, 20.0 + month) for month in range(5)]
    for _ in range(2):
        graph.push(*readings)
        result = graph.run()
        assert result.success, failure_message(result)
    graph.push(readings[-1], pushed("room", 5, 25.5))
    assert graph.run().success
    ids = graph.stores.table("observations").read()["observation_id"].to_pylist()
    assert ids == [f"room-{month}" for month in range(6)]
    assert [row["observations"] for row in rows_of(graph, "metrics/ridge")] == [6]
    refused = graph.stores.table("quarantine").read().to_pylist()
    assert len(refused) == 6
    assert all(row["reason"].startswith("duplicate") for row in refused)


BAD = [float("nan"), float("inf"), -float("inf"), None, "12,5", True, 1e12, [1.0]]


@pytest.mark.parametrize("value", BAD, ids=str)
def test_a_bad_value_goes_to_quarantine_and_leaves_the_models_as_they_are(variables, value):
    """G9."""
    clean = Graph({**variables, "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex}, models=["ridge"])
    dirty = Graph(variables, models=["ridge"])
    good = [pushed("room", month, 20.0 + month % 5) for month in range(20)]
    clean.push(*good, pushed("room", 22, 22.0))
    dirty.push(*good, pushed("room", 21, value, "bad"), pushed("room", 22, 22.0))
    result = dirty.run()
    assert result.success, failure_message(result)
    assert not checks(result)["quarantine:nothing_refused"]
    assert clean.run().success
    [refused] = dirty.stores.table("quarantine").read().to_pylist()
    assert refused["observation_id"] == "bad"
    assert refused["reason"]
    assert predictions(dirty).equals(predictions(clean))


def test_a_model_starts_cold_with_a_number(variables):
    graph = Graph(variables, models=list(load_recipes()))
    graph.push(pushed("new", 0, 5.0))
    result = graph.run()
    assert result.success, failure_message(result)
    assert np.isfinite([row["value"] for row in rows_of(graph, "forecasts")]).all()
    assert set(predictions(graph)["prediction"].to_pylist()) == {0.0}


class Broken:
    """An estimator that fails from its tenth row on."""

    broken = True

    def fold(self, features, targets):
        if Broken.broken:
            raise FloatingPointError("the tenth row was too much")
        return np.zeros(len(targets))

    def predict(self, features, ahead=0):
        return 0.0


def broken_estimator(season):
    return Broken()


@pytest.fixture
def broken_recipe(monkeypatch):
    """A plugin's recipe that fails while `Broken.broken` is true."""
    from mlplatform.components.online_learning import component

    recipe = Recipe("broken", "Fails", broken_estimator, libraries=())
    monkeypatch.setattr(component, "load_recipes", lambda: {**load_recipes(), "broken": recipe})
    monkeypatch.setattr(Broken, "broken", True)
    return recipe


def test_a_model_that_fails_hurts_no_other_and_fails_the_run_by_name(variables, broken_recipe):
    """G10."""
    graph = Graph(variables, [replay(last=40)], models=["ridge", "broken"])
    result = graph.run()
    assert not result.success
    assert "broken" in failure_message(result)
    assert "the tenth row was too much" in failure_message(result)
    assert not checks(result)["models/broken:healthy"]
    learned = {row["model"]: row["observations"] for row in rows_of(graph, "metrics")}
    assert learned["ridge"] == learned["naive"] == 40
    assert "broken" not in learned
    assert [row["champion"] for row in rows_of(graph, "champion")] == ["ridge"]
    # The next run retries it alone: the others have nothing left to learn.
    Broken.broken = False
    before = graph.stores.objects.get("snapshots/ridge/0")
    retried = graph.run()
    assert retried.success, failure_message(retried)
    assert graph.stores.objects.get("snapshots/ridge/0") == before
    assert [row["observations"] for row in rows_of(graph, "metrics/broken")] == [40]


def test_a_torn_snapshot_is_refused_and_rebuilt_by_replay(variables):
    """G3: the state after the rebuild predicts as if nothing had happened."""
    graph = Graph(variables, [replay(last=60)], models=["ridge"])
    assert graph.run(limit=40).success
    objects = graph.stores.objects
    stored = objects.get("snapshots/ridge/0")
    objects.put("snapshots/ridge/0", stored.content[: len(stored.content) // 2])
    result = graph.run(limit=20)
    assert result.success, failure_message(result)
    rows = to_feature_rows(graph.stores.table("lag_features").read())
    replayed = ModelSet(graph.graph.steps["ridge"], graph.graph.families).fold(rows)["ridge"]
    stored = graph.stores.table("predictions").read(["prediction"], where=ds.field("model") == "ridge")
    assert np.array_equal(stored["prediction"].to_numpy(), replayed)


def test_a_snapshot_of_another_library_version_is_refused_and_rebuilt(variables, monkeypatch):
    """G11."""
    from mlplatform.components.online_learning import models

    graph = Graph(variables, [replay(last=40)], models=["ridge"])
    other = models.versions_of
    with monkeypatch.context() as patch:
        patch.setattr(models, "versions_of", lambda *args: {**other(*args), "numba": "0.0.1"})
        assert graph.run(limit=20).success
    with dg.DagsterInstance.ephemeral() as instance:
        result = graph.run(limit=20, instance=instance)
        said = "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))
    assert result.success, failure_message(result)
    assert "numba 0.0.1 instead of" in said
    assert [row["observations"] for row in rows_of(graph, "metrics/ridge")] == [40]


def test_series_of_different_families_go_through_one_run(variables):
    families = [
        FamilyModel(name="wide", series=["a*"], lags=20, season=4),
        FamilyModel(name="short", series=["b"], lags=3),
    ]
    graph = Graph(variables, families=families, models=["ridge", "arima"])
    series = ("a1", "a2", "b", "c")
    graph.push(*(pushed(name, month, float(month + len(name))) for month in range(8) for name in series))
    result = graph.run()
    assert result.success, failure_message(result)
    rows = graph.stores.table("lag_features").read().to_pylist()
    last = {row["series_id"]: row for row in rows}
    assert last["b"]["in_3"] == 5.0
    assert last["b"]["in_4"] is None
    assert last["c"]["in_15"] == 0.0
    assert last["c"]["in_16"] is None
    assert last["a1"]["available_lags"] == 7


def test_a_run_takes_at_most_its_limit_and_says_what_waits(variables):
    graph = Graph(variables, [replay(last=50)], models=["ridge"])
    result = graph.run(limit=30)
    made = {each.asset_key.path[0]: each for each in result.asset_materializations_for_node("observations")}
    assert made["observations"].metadata["waiting"].value == 20


def test_an_unknown_source_is_named(variables):
    result = Graph(variables).run(config={"observations": {"config": {"sources": ["nowhere"]}}})
    assert "no source nowhere; there are pushed" in failure_message(result)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("month,amount\n2020-01,1\n", "must name timestamp,value or input,target"),
        ("timestamp,value\n2020-01,1\n2020-01,2\n", ":3 repeats 2020-01"),
    ],
    ids=["missing", "header", "duplicate"],
)
def test_a_bad_csv_fails_the_run_with_its_place_and_loses_nothing(variables, tmp_path, content, message):
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_text(content)
    source = SourceModel(name="replay", type="replay", path=str(path), series_id="s")
    result = Graph(variables, [source], models=["ridge"]).run()
    assert not result.success
    assert message in failure_message(result)
    assert "data.csv" in failure_message(result)
    path.write_text("timestamp,value\n2020-01,1\n2020-02,2\n")
    assert Graph(variables, [source], models=["ridge"]).run().success


def test_lag_features_and_models_are_made_again_for_a_chosen_series(variables):
    graph = Graph(variables, models=["ridge"])
    graph.push(*(pushed(name, month, float(month % 7)) for month in range(25) for name in ("a", "b")))
    assert graph.run().success
    before = predictions(graph)
    again = graph.run(
        config={
            "lag_features": {"config": {"rebuild": ["a"], "from_offset": 10}},
            "ridge": {"config": {"rebuild": ["a"]}},
        }
    )
    assert again.success, failure_message(again)
    assert predictions(graph).equals(before)
    assert len(graph.stores.table("lag_features").read()) == 50


def test_an_unknown_series_is_refused_with_the_nearest_name(variables):
    graph = Graph(variables, models=["ridge"])
    graph.push(pushed("kitchen", 0, 1.0))
    assert graph.run().success
    result = graph.run(config={"lag_features": {"config": {"rebuild": ["kitchn"]}}})
    assert "unknown series 'kitchn': did you mean 'kitchen'?" in failure_message(result)
