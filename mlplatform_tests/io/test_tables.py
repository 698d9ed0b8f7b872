from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from mlplatform.io import tables
from mlplatform.io.object_store import Conflict, ObjectStore, StoreUnavailable
from mlplatform.io.tables import Table, TableSpec, literal
from mlplatform.settings import Settings
from mlplatform_tests.io.racing import race

SPEC = TableSpec(
    "numbers",
    {"shard": "int32", "position": "int64", "at": "timestamp", "value": "float64"},
    position="position",
    partition_by=("shard",),
)


@pytest.fixture
def table(store: ObjectStore) -> Table:
    return Table(SPEC, store)


def rows(start: int, end: int, shard: int = 0) -> pa.Table:
    """One row for each position; its value says which."""
    positions = range(start, end)
    columns = {
        "shard": [shard] * len(positions),
        "position": positions,
        "at": [position * 1_000_000 for position in positions],
        "value": [100.0 * shard + position for position in positions],
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in SPEC.schema]
    return pa.Table.from_arrays(arrays, schema=SPEC.schema)


def positions(table: Table) -> list[int]:
    return table.read()["position"].to_pylist()


def test_before_the_first_append_a_table_is_empty_and_all_heads_are_zero(table: Table) -> None:
    assert table.heads("a", "b") == [0, 0]
    assert table.read().schema == SPEC.schema
    assert len(table.read()) == 0


@pytest.mark.parametrize("there", [False, True])
def test_chosen_columns_come_with_the_position_whether_or_not_the_table_is_there(
    table: Table, there: bool
) -> None:
    if there:
        table.append(rows(0, 2), "a", 2)
    assert table.read(["value"]).schema.names == ["value", "position"]


def test_what_is_appended_is_read_back_with_its_types(table: Table) -> None:
    assert table.append(rows(0, 3), "a", 3) == 3
    assert table.read().cast(SPEC.schema) == rows(0, 3)


def test_an_append_that_is_tried_again_writes_nothing(table: Table) -> None:
    table.append(rows(0, 3), "a", 3)
    version = table.open().version()
    assert table.append(rows(0, 3), "a", 3) == 0
    assert positions(table) == [0, 1, 2]
    assert table.open().version() == version


@pytest.mark.parametrize("start", [0, 1, 3])
def test_of_rows_that_are_partly_there_only_the_rest_is_written(table: Table, start: int) -> None:
    table.append(rows(0, 3), "a", 3)
    assert table.append(rows(start, 5), "a", 5) == 2
    assert positions(table) == [0, 1, 2, 3, 4]


def test_streams_of_one_table_have_heads_of_their_own(table: Table) -> None:
    table.append(rows(0, 3), "a", 3)
    table.append(rows(0, 2, shard=1), "b", 2)
    assert table.heads("a", "b", "c") == [3, 2, 0]
    assert len(table.read()) == 5


def test_an_append_of_nothing_moves_heads(table: Table) -> None:
    assert table.append(rows(0, 0), "a", 7, also={"b": 2}) == 0
    assert table.heads("a", "b") == [7, 2]


def test_heads_move_on_even_where_all_rows_are_there(table: Table) -> None:
    table.append(rows(0, 3), "a", 3)
    assert table.append(rows(0, 3), "a", 3, also={"b": 9}) == 0
    assert table.heads("a", "b") == [3, 9]
    assert positions(table) == [0, 1, 2]


def test_heads_never_move_back(table: Table) -> None:
    table.append(rows(0, 5), "a", 5, also={"b": 5})
    table.append(rows(0, 2), "a", 2, also={"b": 3, "c": 1})
    assert table.heads("a", "b", "c") == [5, 5, 1]
    assert positions(table) == [0, 1, 2, 3, 4]


def test_an_append_that_is_based_on_other_heads_is_refused_and_leaves_nothing(table: Table) -> None:
    table.append(rows(0, 3), "a", 3, also={"b": 4})
    with pytest.raises(Conflict, match="b is at 4, not at 2"):
        table.append(rows(3, 5), "a", 5, expected={"a": 3, "b": 2})
    assert positions(table) == [0, 1, 2]
    assert table.head("a") == 3


def test_of_two_appends_at_once_one_is_refused_and_nothing_is_there_twice(table: Table) -> None:
    table.append(rows(0, 1), "a", 1)
    answers = race(2, lambda number: table.append(rows(1, 3 + number), "a", 3 + number, expected={"a": 1}))
    assert sum(isinstance(answer, Conflict) for answer in answers) == 1
    (written,) = [answer for answer in answers if isinstance(answer, int)]
    assert positions(table) == list(range(1 + written))
    assert table.head("a") == 1 + written


def test_appends_to_different_streams_at_once_all_land(table: Table) -> None:
    table.append(rows(0, 0), "first", 1)
    answers = race(16, lambda number: table.append(rows(0, 2, shard=number), f"stream {number}", 2))
    assert answers == [2] * 16
    assert sorted(table.read()["value"].to_pylist()) == sorted(
        100.0 * n + p for n in range(16) for p in (0, 1)
    )
    assert table.heads(*(f"stream {number}" for number in range(16))) == [2] * 16


def test_writers_that_create_a_table_at_once_do_not_hinder_each_other(table: Table) -> None:
    answers = race(4, lambda number: table.append(rows(0, 1, shard=number), f"stream {number}", 1))
    assert answers == [1] * 4
    assert table.open().version() == 4


def test_rows_are_read_from_a_position_on_in_order(table: Table) -> None:
    table.append(rows(0, 3), "a", 3)
    table.append(rows(3, 6), "a", 6)
    assert table.read(start=2)["position"].to_pylist() == [2, 3, 4, 5]
    assert len(table.read(start=6)) == 0


def test_rows_are_read_by_a_condition(table: Table) -> None:
    table.append(rows(0, 3), "a", 3)
    table.append(rows(0, 3, shard=1), "b", 3)
    found = table.read(["value"], start=1, where=ds.field("shard") == 1)
    assert found["value"].to_pylist() == [101.0, 102.0]


def test_rows_are_selected_by_an_sql_condition_in_order_of_positions(table: Table) -> None:
    table.append(rows(0, 3, shard=1), "b", 3)
    table.append(rows(3, 6, shard=1), "b", 6)
    table.append(rows(0, 3), "a", 3)
    found = list(table.select(["value", "position", "at"], "shard = 1 AND position >= 2"))
    assert [row["value"] for row in found] == [102.0, 103.0, 104.0, 105.0]
    assert found[0] == {"value": 102.0, "position": 2, "at": datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)}
    assert len(list(table.select(["value"]))) == 9
    assert [row["position"] for row in table.select(["position"], "shard = 1", limit=2)] == [0, 1]


def test_before_the_first_append_nothing_is_selected(table: Table) -> None:
    assert list(table.select(["value"])) == []


@pytest.mark.parametrize("text", ["o'clock", "''", "\\'", "-- 1", '"', "a\nb", "a\x00b", "%_", "日本", ""])
def test_any_text_is_a_literal_of_a_condition(store: ObjectStore, text: str) -> None:
    table = Table(TableSpec("texts", {"position": "int64", "text": "string"}, position="position"), store)
    table.append(table.spec.table({"position": [0, 1], "text": [text, f"{text}'"]}), "a", 2)
    assert list(table.select(["position", "text"], f"text = {literal(text)}")) == [
        {"position": 0, "text": text}
    ]


def test_columns_of_python_values_become_rows_with_the_tables_types(store: ObjectStore) -> None:
    types = {
        "position": "int64",
        "small": "int32",
        "text": "string",
        "number": "float64",
        "at": "timestamp",
    }
    table = Table(TableSpec("all_types", types, position="position"), store)
    columns = {
        "position": [0, 1],
        "small": [2**31 - 1, None],
        "text": ["a", None],
        "number": [0.1, None],
        # A float has not so many digits.
        "at": [datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), None],
    }
    made = table.spec.table(columns)
    assert pa.table(made).schema == table.spec.schema
    table.append(made, "a", 2)
    expected = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert list(table.select(list(columns))) == expected
    assert table.read(list(columns)).to_pylist() == expected


def test_a_column_that_is_not_given_is_said(table: Table) -> None:
    with pytest.raises(KeyError, match="at"):
        table.spec.table({"shard": [0], "position": [0], "value": [0.0]})


def test_of_rows_made_of_columns_too_only_the_rest_is_written(table: Table) -> None:
    at = [datetime(2026, 1, 1, tzinfo=UTC)] * 4
    made = table.spec.table({"shard": [0] * 4, "position": range(4), "at": at, "value": [1.0] * 4})
    assert table.append(made.slice(0, 2), "a", 2) == 2
    assert table.append(made, "a", 4) == 2
    assert positions(table) == [0, 1, 2, 3]


def test_a_file_that_the_store_does_not_give_is_said_with_the_endpoint(
    settings: Settings, store: ObjectStore, table: Table
) -> None:
    table.append(rows(0, 3), "a", 3)
    for key in store.list("tables/numbers/shard=0/"):
        store.delete(key)
    with pytest.raises(StoreUnavailable, match=settings.s3.endpoint_url):
        list(table.select(["value"]))


def test_a_handle_is_opened_anew_now_and_then_and_nothing_is_lost(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "COMMITS_A_HANDLE", 3)
    table.append(rows(0, 1), "a", 1)
    first = table.open()
    for position in range(1, 8):
        assert table.append(rows(position, position + 1), "a", position + 1, expected={"a": position}) == 1
    assert table.open() is not first
    assert positions(table) == list(range(8))


def test_a_new_column_is_null_in_the_rows_before_it(table: Table) -> None:
    table.append(rows(0, 1), "a", 1)
    table.append(rows(1, 2).append_column("in_1", pa.array([5.0])), "a", 2)
    table.append(rows(2, 3), "a", 3)
    assert table.read()["in_1"].to_pylist() == [None, 5.0, None]


def test_a_replacement_touches_only_what_it_selects_and_leaves_heads(table: Table) -> None:
    table.append(rows(0, 4), "a", 4)
    table.append(rows(0, 2, shard=1), "b", 2)
    corrected = rows(2, 4).set_column(3, "value", pa.array([-2.0, -3.0]))
    table.replace(corrected, "shard = 0 AND position >= 2")
    found = table.read(where=ds.field("shard") == 0)
    assert found["value"].to_pylist() == [0.0, 1.0, -2.0, -3.0]
    assert table.read(where=ds.field("shard") == 1)["value"].to_pylist() == [100.0, 101.0]
    assert table.heads("a", "b") == [4, 2]


def test_compaction_merges_files_and_keeps_content_and_heads(table: Table) -> None:
    for start in range(5):
        table.append(rows(start, start + 1), "a", start + 1)
    before = table.read()
    done = table.compact(keep_hours=0)
    assert (done["files"], done["merged"], done["removed"]) == (1, 5, 5)
    assert table.read().equals(before)
    assert table.head("a") == 5
    assert table.append(rows(3, 6), "a", 6) == 1


def test_compaction_of_no_table_does_nothing(table: Table) -> None:
    assert table.compact(keep_hours=0) == {"files": 0, "merged": 0, "removed": 0}


def test_wrong_credentials_are_said_with_the_endpoint(settings: Settings) -> None:
    table = Table(SPEC, ObjectStore(dataclasses.replace(settings.s3, secret_access_key="wrong")))
    with pytest.raises(StoreUnavailable, match=settings.s3.endpoint_url):
        table.head("a")


def test_a_store_that_is_not_there_is_said_with_its_endpoint(settings: Settings) -> None:
    nowhere = "http://127.0.0.1:1"
    table = Table(SPEC, ObjectStore(dataclasses.replace(settings.s3, endpoint_url=nowhere)))
    with pytest.raises(StoreUnavailable, match=nowhere):
        table.append(rows(0, 1), "a", 1)
