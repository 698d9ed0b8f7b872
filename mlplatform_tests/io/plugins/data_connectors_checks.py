"""What every data connector must be able to do: run each of CHECKS on yours.

@pytest.mark.parametrize("check", CHECKS)
def test_my_connector(check):
    CHECKS[check](Place(connect=lambda: MyConnector({...}, settings, root), put=..., rows=...))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from mlplatform.io.plugins.data_connectors import CHUNK_ROWS, DataConnector, DataError
from mlplatform_tests.io.racing import race

KEY = ["customer_id"]
RUN = "serving_run_id"
KINDS = pa.table(
    {
        "customer_id": ["C1", "C2", "C3"],
        "whole": pa.array([1, None, -(2**62)], pa.int64()),
        "number": pa.array([0.1, 1e-300, None], pa.float64()),
        "text": pa.array(["", None, 'quoted "," \n and \\ ünïcode'], pa.string()),
        "yes": pa.array([True, False, None], pa.bool_()),
        "day": pa.array([date(2025, 10, 1), None, date(1999, 12, 31)], pa.date32()),
        "moment": pa.array([datetime(2025, 10, 1, 23, 59, 59, 999_999), None, datetime(1999, 1, 1)]),
        "instant": pa.array([datetime(2025, 10, 1, 12, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
    }
)


@dataclass
class Place:
    """`connect` makes a new connector to the same, empty place; `put` makes a table there by other means;
    `keeps_runs`: rows of several runs stand in one table.
    """

    connect: Callable[[], DataConnector]
    put: Callable[[str, pa.Table], None]
    keeps_runs: bool


def read(connector: DataConnector, table: str) -> pa.Table:
    return pa.Table.from_batches(connector.read(table), connector.schema(table))


def scores(run: str, rows: int = 10, start: int = 0, chunk: int = 4) -> list[pa.RecordBatch]:
    table = pa.table(
        {
            "customer_id": [f"C{number:05d}" for number in range(start, start + rows)],
            "prediction": pa.array([number % 2 for number in range(rows)], pa.int64()),
            "prediction_probability": [number / rows for number in range(rows)],
            RUN: [run] * rows,
        }
    )
    return table.to_batches(chunk)


def failing(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches
    raise RuntimeError("the model is gone")


def publish(connector: DataConnector, batches: list[pa.RecordBatch], run: str = "run_1") -> int:
    return connector.publish("scores", iter(batches), KEY, RUN, run)


def counts(connector: DataConnector) -> dict[str, int]:
    runs = read(connector, "scores")[RUN].to_pylist()
    return {run: runs.count(run) for run in runs}


def reads_every_kind_of_value(place: Place) -> None:
    place.put("kinds", KINDS)
    connector = place.connect()
    assert connector.schema("kinds") == KINDS.schema
    assert read(connector, "kinds").sort_by("customer_id").equals(KINDS)


def reads_in_chunks(place: Place) -> None:
    rows = 2 * CHUNK_ROWS + 10
    place.put("many", pa.table({"customer_id": [f"C{n}" for n in range(rows)], "x": range(rows)}))
    batches = list(place.connect().read("many"))
    assert max(batch.num_rows for batch in batches) <= CHUNK_ROWS
    assert min(batch.num_rows for batch in batches) > 0
    assert sorted(x for batch in batches for x in batch["x"].to_pylist()) == list(range(rows))


def an_empty_table_gives_no_chunk(place: Place) -> None:
    place.put("empty", KINDS.slice(0, 0))
    connector = place.connect()
    assert connector.schema("empty").names == KINDS.schema.names
    assert list(connector.read("empty")) == []


def may_be_left_in_the_middle(place: Place) -> None:
    place.put("many", pa.table({"x": range(3 * CHUNK_ROWS)}))
    connector = place.connect()
    for _ in range(3):
        batches = iter(connector.read("many"))
        assert next(batches).num_rows > 0
        batches.close()  # type: ignore[attr-defined]
    assert sum(batch.num_rows for batch in connector.read("many")) == 3 * CHUNK_ROWS


def a_reader_sees_one_state(place: Place) -> None:
    place.put("scores", pa.Table.from_batches(scores("before", 200_000, chunk=200_000)))
    connector = place.connect()
    batches = iter(connector.read("scores"))
    first = next(batches)
    publish(place.connect(), scores("after", 10))
    assert first.num_rows + sum(batch.num_rows for batch in batches) == 200_000


def names_tables_near_a_missing_one(place: Place) -> None:
    place.put("customers", KINDS)
    connector = place.connect()
    for ask in (lambda: connector.schema("customer"), lambda: list(connector.read("customer"))):
        with pytest.raises(DataError, match=r"no table .*customer.*did you mean customers\?"):
            ask()


def publishes_and_reads_back(place: Place) -> None:
    connector = place.connect()
    assert publish(connector, scores("run_1")) == 10
    expected = pa.Table.from_batches(scores("run_1"))
    assert read(connector, "scores").select(expected.column_names).sort_by("customer_id").equals(expected)


def publishes_every_kind_of_value(place: Place) -> None:
    run = pa.array(["run_1"] * KINDS.num_rows)
    rows = KINDS.append_column(RUN, run).to_batches()
    connector = place.connect()
    assert publish(connector, rows) == KINDS.num_rows
    assert read(connector, "scores").drop([RUN]).sort_by("customer_id").equals(KINDS)


def a_retry_leaves_as_many(place: Place) -> None:
    connector = place.connect()
    for _ in range(3):
        assert publish(connector, scores("run_1")) == 10
        assert counts(connector) == {"run_1": 10}
    assert publish(connector, scores("run_1", rows=7)) == 7
    assert counts(connector) == {"run_1": 7}


def runs_do_not_mix(place: Place) -> None:
    connector = place.connect()
    publish(connector, scores("run_1", 10), "run_1")
    publish(connector, scores("run_2", 5), "run_2")
    assert counts(connector) == ({"run_1": 10, "run_2": 5} if place.keeps_runs else {"run_2": 5})


def one_that_fails_leaves_what_was_there(place: Place) -> None:
    connector = place.connect()
    publish(connector, scores("run_1"))
    for run in ("run_1", "run_2"):
        with pytest.raises(RuntimeError, match="the model is gone"):
            connector.publish("scores", failing(scores(run, 20)), KEY, RUN, run)
        assert counts(connector) == {"run_1": 10}


def retries_at_once_do_not_double(place: Place) -> None:
    answers = race(4, lambda number: publish(place.connect(), scores("run_1", 1_000, chunk=100)))
    assert answers == [1_000] * 4
    assert counts(place.connect()) == {"run_1": 1_000}


def runs_at_once_do_not_mix(place: Place) -> None:
    """The table does not exist before, and both have the same customers."""
    answers = race(
        3, lambda number: publish(place.connect(), scores(f"run_{number}", 500, chunk=50), f"run_{number}")
    )
    assert answers == [500] * 3
    published = counts(place.connect())
    assert published.items() <= {f"run_{number}": 500 for number in range(3)}.items()
    assert len(published) == (3 if place.keeps_runs else 1)


def publishing_no_rows_leaves_no_rows(place: Place) -> None:
    place.put("scores", pa.Table.from_batches(scores("run_1")))
    connector = place.connect()
    assert publish(connector, []) == 0
    assert list(connector.read("scores")) == []


def says_that_it_can_be_used(place: Place) -> None:
    place.connect().check()


CHECKS: dict[str, Callable[[Place], None]] = {
    check.__name__: check
    for check in (
        reads_every_kind_of_value,
        reads_in_chunks,
        an_empty_table_gives_no_chunk,
        may_be_left_in_the_middle,
        a_reader_sees_one_state,
        names_tables_near_a_missing_one,
        publishes_and_reads_back,
        publishes_every_kind_of_value,
        a_retry_leaves_as_many,
        runs_do_not_mix,
        one_that_fails_leaves_what_was_there,
        retries_at_once_do_not_double,
        runs_at_once_do_not_mix,
        publishing_no_rows_leaves_no_rows,
        says_that_it_can_be_used,
    )
}
