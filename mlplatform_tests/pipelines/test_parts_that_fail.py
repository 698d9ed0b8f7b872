"""One part that fails or changes, and all others that go on."""

from __future__ import annotations

import numpy as np
import pytest

from mlplatform.components.online_learning.component import FamilyModel, SourceModel
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform_tests.graphs import (
    PUSHED,
    RETAIL,
    Graph,
    checks,
    failure_message,
    predictions,
    pushed,
    replay,
    rows_of,
)


def test_a_source_that_cannot_be_read_holds_up_no_other(variables):
    missing = SourceModel(name="missing", type="replay", path="/nowhere/data.csv", series_id="s")
    graph = Graph(variables, [missing, PUSHED], models=["ridge"])
    graph.push(*(pushed("room", month, float(month)) for month in range(5)))
    result = graph.run()
    assert not result.success
    assert "source missing" in failure_message(result)
    assert "/nowhere/data.csv does not exist" in failure_message(result)
    assert not checks(result)["observations:sources_answer"]
    assert [row["observations"] for row in rows_of(graph, "metrics/ridge")] == [5]


class Picky:
    """An estimator that cannot learn large changes."""

    limit = 100.0

    def fold(self, features, targets):
        if np.abs(targets).max(initial=0) > Picky.limit:
            raise FloatingPointError("too large a change")
        return np.zeros(len(targets))

    def predict(self, features, ahead=0):
        return 0.0


def picky(season):
    return Picky()


@pytest.fixture
def picky_recipe(monkeypatch):
    from mlplatform.components.online_learning import component

    recipe = Recipe("picky", "Fails on large changes", picky, difference="previous", libraries=())
    monkeypatch.setattr(component, "load_recipes", lambda: {**load_recipes(), "picky": recipe})
    monkeypatch.setattr(Picky, "limit", 100.0)


def test_a_series_that_a_model_cannot_learn_is_left_behind_and_then_learned_again(variables, picky_recipe):
    """G10, for the series of one model."""
    graph = Graph(variables, models=["ridge", "picky"])
    for run in range(2):
        months = range(5 * run, 5 * run + 5)
        graph.push(
            *(pushed("calm", month, float(month)) for month in months),
            *(pushed("wild", month, 1000.0 * (month % 2)) for month in months),
        )
        result = graph.run()
        assert "model 'picky' of series 'wild': FloatingPointError: too large a change" in failure_message(
            result
        )
        learned = {row["series_id"]: row["observations"] for row in rows_of(graph, "metrics/picky")}
        assert learned == {"calm": 5 * run + 5}
    Picky.limit = np.inf
    result = graph.run()
    assert result.success, failure_message(result)
    learned = {row["series_id"]: row["observations"] for row in rows_of(graph, "metrics/picky")}
    assert learned == {"calm": 10, "wild": 10}
    assert predictions(graph)["model"].to_pylist().count("picky") == 20


def test_a_log_is_not_continued_with_another_number_of_shards(variables):
    graph = Graph(variables, [replay(last=10)], models=["ridge"])
    assert graph.run().success
    other = Graph(variables, [replay(last=10)], models=["ridge"], shards=2)
    assert "has 2 shards: say which one with the tag" in failure_message(other.run())
    refused = other.run(tags={"mlplatform/shard": "1"})
    assert "the log was written with shards: 1, not 2" in failure_message(refused)


def test_every_shard_learns_its_own_series(variables):
    graph = Graph(variables, models=["ridge"], shards=2)
    names = [f"series{number}" for number in range(6)]
    graph.push(*(pushed(name, month, float(month)) for name in names for month in range(3)))
    for shard in range(2):
        result = graph.run(tags={"mlplatform/shard": str(shard)})
        assert result.success, failure_message(result)
    log = graph.stores.table("observations").read()
    assert len(log) == 18
    assert set(log["shard"].to_pylist()) == {0, 1}
    assert {
        row["series_id"]: row["observations"] for row in rows_of(graph, "metrics/ridge")
    } == dict.fromkeys(names, 3)


def test_other_lags_make_all_lag_features_again(variables):
    narrow = Graph(
        variables, [replay(last=30)], models=["ridge"], families=[FamilyModel(name="f", series=["*"], lags=5)]
    )
    assert narrow.run(limit=20).success
    wide = Graph(
        variables, [replay(last=30)], models=["ridge"], families=[FamilyModel(name="f", series=["*"], lags=8)]
    )
    result = wide.run()
    assert result.success, failure_message(result)
    rows = wide.stores.table("lag_features").read().to_pylist()
    assert len(rows) == 30
    assert len({row["feature_version"] for row in rows}) == 1
    assert {row["available_lags"] for row in rows[8:]} == {8}


def test_months_that_are_added_to_a_replay_are_read(variables, tmp_path):
    lines = RETAIL.read_text().splitlines()
    path = tmp_path / "series.csv"
    path.write_text("\n".join(lines[:41]) + "\n")
    source = replay(path, last=20)
    assert Graph(variables, [source], models=["ridge"]).run().success
    path.write_text("\n".join(lines[:44]) + "\n")
    graph = Graph(variables, [source], models=["ridge"])
    assert graph.run().success
    assert len(graph.stores.table("observations").read()) == 23


@pytest.mark.parametrize("lags", [0, -1])
def test_a_family_without_lags_is_refused_by_name(variables, lags):
    with pytest.raises(ValueError, match=f"family 'empty' has lags: {lags}; a series needs at least 1"):
        Graph(variables, families=[FamilyModel(name="empty", series=["*"], lags=lags)])
