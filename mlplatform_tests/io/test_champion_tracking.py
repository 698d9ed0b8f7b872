"""What becomes of changes of champion when MLflow, or the process, does not live to the end."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

import pytest

from mlplatform.domain.champion import Change
from mlplatform.io.champion_tracking import EXPERIMENT, KEY_TAG, PREFIX, ChampionTracking, Described, Outcome
from mlplatform.io.object_store import ObjectStore
from mlplatform.settings import Settings

CHANGES = {
    "one": (Change(24, "ridge", None, 2.0, None), Change(90, "knn", "ridge", 1.0, 1.5)),
    "it's another": (Change(31, "knn", None, 3.0, None),),
}
ALL = 3


def describe(series_id: str, change: Change) -> Described:
    return Described(
        f"{series_id}/{change.champion}",
        {"series_id": series_id, "since_observation": change.offset},
        {"rolling_error": change.error, "mape": float("nan")},
        {"series_id": series_id, "previous_model": change.previous or ""},
    )


def track(tracking: ChampionTracking, changes: Mapping[str, tuple[Change, ...]] = CHANGES) -> Outcome:
    outcome = tracking.track(0, changes, describe)
    assert outcome is not None
    return outcome


@pytest.fixture
def store(stack) -> ObjectStore:
    return ObjectStore(replace(Settings(stack.variables).s3, prefix=uuid.uuid4().hex))


@pytest.fixture
def tracking(stack, store, tracking_database) -> ChampionTracking:
    settings = Settings({**stack.variables, "MLFLOW_TRACKING_URI": tracking_database})
    # A busy machine must not make the tests fail.
    return ChampionTracking(store, settings, seconds=60)


@pytest.fixture
def runs(tracking_database, store, tracking):
    """Asks for the runs of this test."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_database)

    def ask() -> list:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment
        ledger = tracking._load(0)
        keys = {ledger.key(series_id, change) for series_id, each in CHANGES.items() for change in each}
        found = client.search_runs([experiment.experiment_id], max_results=1000)
        return [run for run in found if run.data.tags[KEY_TAG] in keys]

    return ask


def test_every_change_is_tracked_once(tracking, runs) -> None:
    outcome = track(tracking)
    assert (outcome.tracked, outcome.waiting, outcome.failure) == (ALL, 0, None)
    assert track(tracking) == Outcome()
    newer = {**CHANGES, "one": (*CHANGES["one"], Change(200, "ridge", "knn", 0.5, 0.9))}
    assert track(tracking, newer).tracked == 1
    found = runs()
    assert len(found) == ALL
    names = {"one/ridge", "one/knn", "it's another/knn"}
    assert {run.info.run_name for run in found} == names
    assert {tuple(run.data.metrics) for run in found} == {("rolling_error",)}
    assert {run.info.status for run in found} == {"FINISHED"}


def test_two_logs_of_observations_do_not_meet_in_one_mlflow(stack, tracking, tracking_database, runs) -> None:
    other = ObjectStore(replace(Settings(stack.variables).s3, prefix=uuid.uuid4().hex))
    settings = Settings({**stack.variables, "MLFLOW_TRACKING_URI": tracking_database})
    for each in (tracking, ChampionTracking(other, settings, seconds=60)):
        assert track(each).tracked == ALL
    assert len(runs()) == ALL


@pytest.mark.parametrize("lost", ["log_batch", "set_terminated"])
def test_a_request_that_fails_is_made_again_by_the_next_run(tracking, runs, monkeypatch, lost) -> None:
    import mlflow

    def fail(*_, **__) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as broken:
        broken.setattr(mlflow.MlflowClient, lost, fail)
        outcome = track(tracking)
    assert (outcome.tracked, outcome.waiting) == (0, ALL)
    assert "the server went away" in str(outcome.failure)
    assert track(tracking).tracked == ALL
    found = runs()
    assert len(found) == ALL
    assert {run.info.status for run in found} == {"FINISHED"}
    assert all({"series_id", "since_observation"} == set(run.data.params) for run in found)


def test_what_was_logged_before_a_crash_is_not_logged_again(tracking, store, runs) -> None:
    """Killed after the last run was logged, and before that was noted."""
    key = f"{PREFIX}/0.json"
    assert track(tracking).tracked == ALL
    store.put(key, json.dumps({**json.loads(store.get(key).content), "tracked": {}}).encode())
    assert track(tracking).tracked == ALL
    assert len(runs()) == ALL


def test_what_takes_too_long_is_left_to_the_next_run(stack, store, tracking_database, runs) -> None:
    settings = Settings({**stack.variables, "MLFLOW_TRACKING_URI": tracking_database})
    hurried = ChampionTracking(store, settings, seconds=0)
    told = [track(hurried) for _ in range(ALL + 1)]
    assert [(each.tracked, each.waiting, each.failure) for each in told] == [
        *((1, ALL - 1 - number, None) for number in range(ALL)),
        (0, 0, None),
    ]
    assert len(runs()) == ALL


def test_a_server_that_never_answers_is_given_up_soon(stack, store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://me:c4n4ry@127.0.0.1:{silent.getsockname()[1]}"
        settings = Settings({**stack.variables, "MLFLOW_TRACKING_URI": uri})
        began = time.monotonic()
        outcome = track(ChampionTracking(store, settings))
        assert time.monotonic() - began < 2.5
    assert (outcome.tracked, outcome.waiting) == (0, ALL)
    assert "127.0.0.1" in str(outcome.failure)
    assert "c4n4ry" not in str(outcome.failure)


def test_without_mlflow_nothing_is_tried(store, tmp_path) -> None:
    nowhere = Settings({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path)})
    assert ChampionTracking(store, nowhere).track(0, CHANGES, describe) is None
    assert store.get(f"{PREFIX}/0.json") is None
