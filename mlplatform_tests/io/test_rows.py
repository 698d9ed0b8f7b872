"""Rows of the log, the quarantine, the predictions and the frames of results, as they are stored."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from mlplatform.domain.families import Families, Family
from mlplatform.domain.model import FeatureRows, ModelSet
from mlplatform.domain.observations import Observation, Refusal, Submission
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.journal import Entry
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import LOG, QUARANTINE, log_rows, quarantine_rows
from mlplatform.io.prediction_table import (
    PREDICTIONS,
    prediction_rows,
    served_entries,
    served_rows,
    shown_rows,
)
from mlplatform.io.results import Frames, forecast_frame, metrics_frame
from mlplatform.io.tables import Table

TIME = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ROWS = FeatureRows(
    position=np.array([4, 5]),
    series_id=np.array(["a", "b"], dtype=object),
    offset=np.array([0, 0]),
    event_time=np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[us]"),
    value=np.array([1.5, 2.5]),
    available=np.array([0, 0], dtype=np.int32),
    lags=np.zeros((2, 15)),
)


def test_the_log_keeps_observations_with_positions_from_its_head(store: ObjectStore) -> None:
    observations = [Observation("a", at, f"id {at}", TIME, at / 3, "source") for at in range(3)]
    before = datetime.now(UTC)
    table = Table(LOG, store)
    table.append(log_rows(observations, shard=2, head=7), "log/2", 10)
    rows = table.read().to_pylist()
    assert [row["position"] for row in rows] == [7, 8, 9]
    for row, observation in zip(rows, observations, strict=True):
        assert row.pop("shard") == 2
        assert before <= row.pop("ingested_at") <= datetime.now(UTC)
        del row["position"]
        assert Observation(**row) == observation


@pytest.mark.parametrize("value", [math.nan, None, True, "text", "\ud800", 10**400, [1], {"a": 1}])
def test_the_quarantine_takes_any_value(store: ObjectStore, value: object) -> None:
    refusal = Refusal(Submission("source", 1, "a", "id", None, value), "reason")
    table = Table(QUARANTINE, store)
    table.append(quarantine_rows([refusal]), "source/0", 2)
    (row,) = table.read().to_pylist()
    expected = "\\ud800" if value == "\ud800" else str(value)
    assert (row["value"], row["reason"], row["event_time"]) == (expected, "reason", None)


def test_the_quarantine_is_in_order_of_the_source() -> None:
    refusals = [Refusal(Submission("source", at, "a", "id", TIME, 1), "reason") for at in (3, 1, 2)]
    assert quarantine_rows(refusals)["source_position"].to_pylist() == [1, 2, 3]


def test_predictions_of_all_models_are_in_order_of_positions(store: ObjectStore) -> None:
    said = {"knn": np.array([1.0, 2.0]), "amf": np.array([3.0, 4.0])}
    table = Table(PREDICTIONS, store)
    table.append(prediction_rows(ROWS, said, {"knn": "v1", "amf": "v2"}, 3), "predictions/x/3", 6)
    found = table.read().to_pylist()
    assert [(row["position"], row["series_id"], row["value"]) for row in found] == [
        *[(4, "a", 1.5), (4, "a", 1.5)],
        *[(5, "b", 2.5), (5, "b", 2.5)],
    ]
    assert {(row["model"], row["position"]): (row["prediction"], row["model_version"]) for row in found} == {
        ("knn", 4): (1.0, "v1"),
        ("knn", 5): (2.0, "v1"),
        ("amf", 4): (3.0, "v2"),
        ("amf", 5): (4.0, "v2"),
    }


def test_what_a_service_was_told_comes_back_as_what_its_model_was_shown(store: ObjectStore) -> None:
    families = Families((Family("short", ("s*",), lags=2), Family("long", ("l*",), lags=5)))
    shown = {"l": (3.0, 2.0, 1.0), "s": (2.0, 1.0), "new": (), "s wider before": (4.0, 3.0, 2.0)}
    entries = [
        Entry(7 + at, name, at, f"id {at}", TIME, 0.5 * at, {"prediction": 0.1 * at}, TIME, lags)
        for at, (name, lags) in enumerate(shown.items())
    ]
    table = Table(PREDICTIONS, store)
    table.append(served_rows(entries, "knn", "v1", 1000), "predictions/knn/1000", 11)
    stored = table.read()
    assert [row["observation_id"] for row in stored.to_pylist()] == ["id 0", "id 1", "id 2", "id 3"]
    assert [row["prediction"] for row in stored.to_pylist()] == [0.1 * at for at in range(4)]
    again = list(served_entries(table, "knn", 1000, 7))
    assert [each.answer.pop("prediction") for each in again] == [0.1 * at for at in range(4)]
    assert [replace(each, answer={}) for each in again] == [replace(each, answer={}) for each in entries]
    assert [each.position for each in served_entries(table, "knn", 1000, 9)] == [9, 10]
    assert list(served_entries(table, "knn", 1001, 0)) == list(served_entries(table, "amf", 1000, 0)) == []
    found = shown_rows(again, families)
    assert found.event_time.tolist() == [TIME.replace(tzinfo=None)] * 4
    assert found.series_id.tolist() == list(shown)
    assert found.available.tolist() == [3, 2, 0, 2]
    width = families.widest
    assert found.lags.shape == (4, width)
    assert found.lags[:, :3].tolist() == [[3.0, 2.0, 1.0], [2.0, 1.0, 0.0], [0.0] * 3, [4.0, 3.0, 0.0]]
    assert found.position.tolist() == [7, 8, 9, 10]


def models() -> ModelSet:
    models = ModelSet((load_recipes()["naive"], load_recipes()["linear"]), Families((Family(series=("*",)),)))
    models.fold(ROWS)
    return models


def test_metrics_have_a_row_for_each_model_and_series() -> None:
    rows = metrics_frame(models()).to_pylist()
    assert [(row["model"], row["series_id"], row["observations"]) for row in rows] == [
        *[("naive", "a", 1), ("linear", "a", 1)],
        *[("naive", "b", 1), ("linear", "b", 1)],
    ]


def test_forecasts_name_the_offsets_that_they_are_of() -> None:
    rows = forecast_frame(models(), steps=3).to_pylist()
    naive = [row for row in rows if (row["model"], row["series_id"]) == ("naive", "b")]
    assert [(row["step"], row["offset"], row["value"]) for row in naive] == [
        (step, step, 2.5) for step in (1, 2, 3)
    ]


def test_a_frame_comes_back_and_is_replaced_as_a_whole(store: ObjectStore) -> None:
    frames = Frames(store)
    assert frames.read("metrics/linear/0") is None
    frame = forecast_frame(models())
    address = frames.write("metrics/linear/0", frame)
    assert address == store.url("frames/metrics/linear/0.parquet")
    frames.write("metrics/linear/0", frame.slice(0, 1))
    assert frames.read("metrics/linear/0").equals(frame.slice(0, 1))


def test_frames_of_all_shards_are_found_together_and_no_others(store: ObjectStore) -> None:
    frames, frame = Frames(store), metrics_frame(models())
    for at, key in enumerate(["metrics/linear/0", "metrics/linear/1", "metrics/linear_2/0"]):
        frames.write(key, frame.slice(0, at + 1))
    assert [len(found) for found in frames.under("metrics/linear")] == [1, 2]
    assert frames.under("metrics/none") == []
