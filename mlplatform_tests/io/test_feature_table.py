from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.families import Families, Family
from mlplatform.domain.lags import lag_matrix
from mlplatform.domain.observations import Submission, Tail, admit
from mlplatform.io.feature_table import FEATURES, feature_rows, lag_names, to_feature_rows
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import log_rows
from mlplatform.io.tables import Table

FAMILIES = Families((Family("short", ("s*",), lags=3), Family("long", ("*",), lags=5)))
START = datetime(2020, 1, 1, tzinfo=UTC)


def submissions(names: list[str]) -> list[Submission]:
    """One submission for each name, a minute after the one before."""
    return [
        Submission("source", at, name, f"id {at}", START + timedelta(minutes=at), float(at))
        for at, name in enumerate(names, start=1)
    ]


def log_of(names: list[str]) -> tuple[pa.Table, dict[str, Tail]]:
    """The log of these submissions, and the ends of its series as admission knows them."""
    tails: dict[str, Tail] = {}
    accepted, _ = admit(submissions(names), tails, set(), FAMILIES)
    return pa.table(log_rows(accepted, 0, 0)), tails


NAMES = st.lists(st.sampled_from(["s1", "s2", "l1", "l2"]), min_size=1, max_size=40)


@given(names=NAMES)
def test_each_row_has_the_lags_of_its_own_series(names: list[str]) -> None:
    log, _ = log_of(names)
    made = feature_rows(log, {}, FAMILIES)
    for series_id in set(names):
        mine = made.filter(pa.compute.equal(made["series_id"], series_id))
        family = FAMILIES.of(series_id)
        matrix, available = lag_matrix([], mine["value"].to_numpy(), family.lags)
        found = np.column_stack([mine[name].to_numpy() for name in lag_names(family.lags)])
        assert found.tolist() == matrix.tolist()
        assert mine["available_lags"].to_pylist() == available.tolist()
        assert set(mine["feature_version"].to_pylist()) == {family.version}
        for unused in lag_names(FAMILIES.widest)[family.lags :]:
            assert mine[unused].null_count == len(mine)


@given(names=NAMES, cut=st.integers(0, 40))
def test_features_made_in_two_runs_are_those_made_in_one(names: list[str], cut: int) -> None:
    log, _ = log_of(names)
    parts = [part for part in (log.slice(0, cut), log.slice(cut)) if len(part)]
    tails: dict[str, Tail] = {}
    made = pa.concat_tables([feature_rows(part, tails, FAMILIES) for part in parts])
    assert made.equals(feature_rows(log, {}, FAMILIES))


@given(names=NAMES)
def test_features_and_admission_agree_about_the_ends_of_the_series(names: list[str]) -> None:
    log, admitted = log_of(names)
    tails: dict[str, Tail] = {}
    feature_rows(log, tails, FAMILIES)
    assert tails == admitted


def test_rows_keep_the_order_and_the_columns_of_the_log() -> None:
    log, _ = log_of(["s1", "l1", "s1"])
    made = feature_rows(log, {}, FAMILIES)
    columns = ["shard", "position", "series_id", "offset", "event_time", "value"]
    assert made.select(columns).equals(log.select(columns))
    assert made.schema.names == [*FEATURES.columns, *lag_names(FAMILIES.widest)]


@pytest.mark.parametrize("wider", [5, 7])
def test_features_survive_the_table_also_when_families_become_wider(store: ObjectStore, wider: int) -> None:
    log, _ = log_of(["s1", "l1", "s1", "l1"])
    first = feature_rows(log.slice(0, 2), tails := {}, FAMILIES)
    families = Families((Family("all", ("*",), lags=wider),))
    rest = feature_rows(log.slice(2), tails, families)
    table = Table(FEATURES, store)
    table.append(first, "features/0", 2)
    table.append(rest, "features/0", 4)
    rows = to_feature_rows(table.read())
    assert rows.lags.shape == (4, wider)
    assert rows.lags[2:].tolist() == [
        [1.0] + [0.0] * (wider - 1),
        [2.0] + [0.0] * (wider - 1),
    ]
    assert rows.available.tolist() == [0, 0, 1, 1]
    assert rows.position.tolist() == [0, 1, 2, 3]
    assert rows.series_id.tolist() == ["s1", "l1", "s1", "l1"]
