# Schemas are named by the tests themselves.
# ruff: noqa: S608
"""Both connectors through the battery, and what is one's own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.data_connectors import DataError
from mlplatform.io.plugins.data_connectors.local_file import LocalFileConnector, write_csv
from mlplatform.io.plugins.data_connectors.postgres import PostgresConnector, address_of
from mlplatform.settings import Settings
from mlplatform_tests.io.plugins.data_connectors_checks import (
    CHECKS,
    KEY,
    KINDS,
    RUN,
    Place,
    counts,
    publish,
    read,
    scores,
)


@pytest.fixture
def schema(settings: Settings) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(settings, f"CREATE SCHEMA {name}")
    yield name
    execute(settings, f"DROP SCHEMA {name} CASCADE")


def execute(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    connected = closing(psycopg2.connect(**address_of(settings.database_url)))
    with connected as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def postgres(settings: Settings, **config: Any) -> PostgresConnector:
    return plugin("data_connectors", "postgres")(config, settings, Path())


SQL_TYPES = {
    "customer_id": "VARCHAR(20)",
    "whole": "BIGINT",
    "number": "FLOAT",
    "text": "TEXT",
    "yes": "BOOLEAN",
    "day": "DATE",
    "moment": "TIMESTAMP",
    "instant": "TIMESTAMPTZ",
}


def postgres_place(settings: Settings, schema: str, folder: Path) -> Place:
    def put(table: str, rows: pa.Table) -> None:
        kinds = {pa.string(): "TEXT", pa.int64(): "BIGINT", pa.float64(): "FLOAT"}
        columns = ", ".join(
            f"{field.name} {SQL_TYPES.get(field.name) or kinds[field.type]}" for field in rows.schema
        )
        execute(settings, f"CREATE TABLE {schema}.{table} ({columns})")
        with closing(psycopg2.connect(**address_of(settings.database_url))) as connection:
            sink = pa.BufferOutputStream()
            pyarrow.csv.write_csv(rows, sink)
            with connection, connection.cursor() as cursor:
                content = pa.BufferReader(sink.getvalue())
                cursor.copy_expert(f"COPY {schema}.{table} FROM STDIN (FORMAT csv, HEADER)", content)

    return Place(lambda: postgres(settings, schema=schema), put, keeps_runs=True)


def folder_place(suffix: str) -> Callable[[Settings, str, Path], Place]:
    def make(settings: Settings, schema: str, folder: Path) -> Place:
        def put(table: str, rows: pa.Table) -> None:
            path = folder / f"{table}{suffix}"
            pq.write_table(rows, path) if suffix == ".parquet" else pyarrow.csv.write_csv(rows, path)

        return Place(lambda: LocalFileConnector({"data_path": "."}, settings, folder), put, keeps_runs=False)

    return make


PLACES = {
    "postgres": postgres_place,
    "CSV files": folder_place(".csv"),
    "Parquet files": folder_place(".parquet"),
}
# They put a Parquet file where publish writes CSV.
WRITE_OVER_WHAT_WAS_PUT = {"a_reader_sees_one_state", "publishing_no_rows_leaves_no_rows"}


@pytest.mark.parametrize(
    ("place", "check"),
    [
        (place, check)
        for place in PLACES
        for check in CHECKS
        if not (place == "Parquet files" and check in WRITE_OVER_WHAT_WAS_PUT)
    ],
)
def test_a_connector_passes_the_checks(
    place: str, check: str, settings: Settings, schema: str, tmp_path: Path
) -> None:
    CHECKS[check](PLACES[place](settings, schema, tmp_path))


class TestFiles:
    def connector(self, folder: Path) -> LocalFileConnector:
        return LocalFileConnector({"data_path": str(folder)}, Settings({}), folder)

    def test_a_type_follows_from_all_values(self, tmp_path: Path) -> None:
        lines = [f"{number},{number},00{number},{10**18 + number},1" for number in range(400_000)]
        lines.append("A1,1.5,007,12345678901234567890,")
        (tmp_path / "t.csv").write_text("id,x,code,card,n\n" + "\n".join(lines))
        schema = self.connector(tmp_path).schema("t")
        text, number, whole = pa.string(), pa.float64(), pa.int64()
        assert schema.types == [text, number, text, text, whole]
        assert all(batch.schema == schema for batch in self.connector(tmp_path).read("t"))

    def test_words_for_missing_values_are_missing_unless_they_are_quoted(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text('a,b\n1,NA\nNA,"NA"\n,\n')
        assert read(self.connector(tmp_path), "t").to_pydict() == {
            "a": [1, None, None],
            "b": [None, "NA", None],
        }

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"t\.csv is empty: its first line must name the columns"),
            (b"a,b,a\n1,2,3\n", "names the column 'a' more than once"),
            (b"a,b\n1,2\n1,2,3\n", r"t\.csv cannot be read: .*Row #3: Expected 2 columns, got 3"),
            (b"a,b\n1,\xff\xfe\n", r"t\.csv cannot be read: .*utf-8"),
        ],
    )
    def test_a_broken_file_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(DataError, match=message):
            self.connector(tmp_path).schema("t")

    def test_a_broken_parquet_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
        with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
            list(self.connector(tmp_path).read("t"))

    def test_a_table_in_two_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").touch()
        (tmp_path / "t.parquet").touch()
        with pytest.raises(DataError, match=r"is both .* remove one"):
            self.connector(tmp_path).schema("t")

    def test_only_files_of_the_folder_are_tables(self, tmp_path: Path) -> None:
        for table in ("../secret", "/etc/passwd", "", ".hidden"):
            with pytest.raises(DataError, match="is no name of a table"):
                self.connector(tmp_path).schema(table)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere is no folder.*data_path"):
            self.connector(tmp_path / "nowhere").check()

    def test_an_unknown_key_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no key 'path'.*did you mean data_path"):
            LocalFileConnector({"path": "x"}, Settings({}), tmp_path)

    def test_write_csv_makes_folders_and_a_file_that_others_may_read(self, tmp_path: Path) -> None:
        path = tmp_path / "out" / "predictions.csv"
        assert write_csv(path, iter(scores("run_1"))) == 10
        lines = path.read_text().splitlines()
        assert lines[:2] == [
            "customer_id,prediction,prediction_probability,serving_run_id",
            '"C00000",0,0,"run_1"',
        ]
        assert path.stat().st_mode & 0o777 == 0o644
        assert [each.name for each in path.parent.iterdir()] == ["predictions.csv"]

    def test_write_csv_names_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"predictions\.csv cannot be written"):
            write_csv(tmp_path / "file" / "predictions.csv", iter(scores("run_1")))
        nested = [pa.record_batch({"x": [[1, 2]]})]
        with pytest.raises(DataError, match=r"p\.csv cannot be written as CSV"):
            write_csv(tmp_path / "p.csv", iter(nested))
        assert [each.name for each in tmp_path.iterdir()] == ["file"]


class TestPostgres:
    def test_other_types_are_numbers_and_text(self, settings: Settings, schema: str) -> None:
        execute(settings, f"CREATE TYPE {schema}.plan AS ENUM ('basic', 'pro')")
        execute(settings, f"CREATE DOMAIN {schema}.share AS FLOAT CHECK (VALUE <= 1)")
        execute(
            settings,
            f"CREATE TABLE {schema}.t AS SELECT 1::smallint AS small, 2::int AS medium, 1.5::numeric AS "
            "amount,"
            " 12::numeric(10, 0) AS cents, 0.1::real AS single, 'a'::char(3) AS padded, "
            f"'pro'::{schema}.plan AS plan, 0.5::{schema}.share AS part, '{{\"a\": 1}}'::jsonb AS document, "
            "'NaN'::float AS nothing, '-Infinity'::float AS low, "
            "'5e4c5ff5-0d0e-4fd5-8d0b-5f0d9f7a8b11'::uuid AS id",
        )
        table = read(postgres(settings, schema=schema), "t")
        number, whole, text = pa.float64(), pa.int64(), pa.string()
        assert table.schema.types == [
            *[whole, whole, number, whole, number, text, text, number, text, number, number, text]
        ]
        row = table.to_pylist()[0]
        assert row["nothing"] != row.pop("nothing")
        assert row == {
            "small": 1,
            "medium": 2,
            "amount": 1.5,
            "cents": 12,
            "single": 0.1,
            "padded": "a  ",
            "plan": "pro",
            "part": 0.5,
            "document": '{"a": 1}',
            "low": float("-inf"),
            "id": "5e4c5ff5-0d0e-4fd5-8d0b-5f0d9f7a8b11",
        }

    def test_views_and_tables_of_other_schemas_can_be_read(self, settings: Settings, schema: str) -> None:
        execute(settings, f'CREATE TABLE {schema}."Odd Name" AS SELECT 1 AS "Ünusual ""column"""')
        execute(settings, f'CREATE VIEW {schema}.v AS SELECT * FROM {schema}."Odd Name"')
        assert read(postgres(settings, schema=schema), "Odd Name").to_pylist() == [{'Ünusual "column"': 1}]
        assert read(postgres(settings), f"{schema}.v").num_rows == 1

    def test_a_value_that_has_no_form_here_is_told(self, settings: Settings, schema: str) -> None:
        execute(settings, f"CREATE TABLE {schema}.t AS SELECT 'infinity'::timestamp AS until")
        with pytest.raises(DataError, match="infinity"):
            read(postgres(settings, schema=schema), "t")

    def test_columns_that_are_not_published_get_their_defaults(self, settings: Settings, schema: str) -> None:
        execute(
            settings,
            f"CREATE TABLE {schema}.scores (customer_id VARCHAR(20), prediction INT, "
            "prediction_probability FLOAT, execution_date TIMESTAMP DEFAULT NOW(), serving_run_id "
            "VARCHAR(100))",
        )
        assert publish(postgres(settings, schema=schema), scores("run_1")) == 10
        query = f"SELECT count(execution_date), count(DISTINCT execution_date) FROM {schema}.scores"
        assert execute(settings, query) == [(10, 1)]

    def test_whole_floats_are_integers_and_others_are_refused(self, settings: Settings, schema: str) -> None:
        execute(settings, f"CREATE TABLE {schema}.scores (customer_id TEXT, x INT, serving_run_id TEXT)")
        connector = postgres(settings, schema=schema)

        def rows(x: float) -> list[pa.RecordBatch]:
            return [pa.record_batch({"customer_id": ["a"], "x": [x], "serving_run_id": ["run_1"]})]

        publish(connector, rows(1e6))
        assert execute(settings, f"SELECT x FROM {schema}.scores") == [(1_000_000,)]
        with pytest.raises(DataError, match=rf"{schema}\.scores, column x: it holds integers"):
            publish(connector, rows(1.5))
        with pytest.raises(DataError, match=r"scores.*out of range for type integer.*column x"):
            publish(connector, rows(1e12))
        assert execute(settings, f"SELECT x FROM {schema}.scores") == [(1_000_000,)]

    def test_a_table_that_it_makes_refuses_a_key_twice(self, settings: Settings, schema: str) -> None:
        connector = postgres(settings, schema=schema)
        with pytest.raises(DataError, match=r"scores.*\(run_1, C00000\) already exists.*once in a run"):
            publish(connector, [*scores("run_1"), *scores("run_1", 1)])
        assert counts(connector) == {}

    def test_a_table_without_an_index_does_too(self, settings: Settings, schema: str) -> None:
        execute(
            settings,
            f"CREATE TABLE {schema}.scores (customer_id TEXT, prediction INT, prediction_probability FLOAT, "
            "serving_run_id TEXT)",
        )
        connector = postgres(settings, schema=schema)
        with pytest.raises(DataError, match=r"customer_id must be unique in a run.*repeated for C00000"):
            publish(connector, [*scores("run_1"), *scores("run_1", 1)])
        assert counts(connector) == {}

    @pytest.mark.parametrize(
        ("constraint", "message"),
        [
            (
                "CHECK (prediction_probability < 0.5)",
                r"scores, constraint .*check.*violates check constraint",
            ),
            ("NOT NULL", r"scores, column note"),
        ],
    )
    def test_a_constraint_is_named(
        self, settings: Settings, schema: str, constraint: str, message: str
    ) -> None:
        note = "note TEXT NOT NULL, " if constraint == "NOT NULL" else ""
        check = f", {constraint}" if not note else ""
        execute(
            settings,
            f"CREATE TABLE {schema}.scores ({note}customer_id TEXT, prediction INT, "
            f"prediction_probability FLOAT, serving_run_id TEXT{check})",
        )
        connector = postgres(settings, schema=schema)
        with pytest.raises(DataError, match=message):
            publish(connector, scores("run_1"))
        assert counts(connector) == {}

    def test_a_column_that_the_table_has_not_is_named(self, settings: Settings, schema: str) -> None:
        execute(settings, f"CREATE TABLE {schema}.scores (customer_id TEXT, serving_run_id TEXT)")
        with pytest.raises(
            DataError, match=r"no column prediction, prediction_probability: it has customer_id"
        ):
            publish(postgres(settings, schema=schema), scores("run_1"))

    def test_chunks_must_have_the_same_columns(self, settings: Settings, schema: str) -> None:
        other = pa.record_batch({"customer_id": ["x"], RUN: ["run_1"]})
        with pytest.raises(DataError, match="must be the same"):
            publish(postgres(settings, schema=schema), [*scores("run_1"), other])

    def test_another_run_does_not_wait(self, settings: Settings, schema: str) -> None:
        """One run holds its transaction open in the middle; another publishes to the same new table."""
        middle, go_on = threading.Event(), threading.Event()

        def slow() -> Iterator[pa.RecordBatch]:
            yield from scores("run_1", 100)
            middle.set()
            assert go_on.wait(60)

        def publish_slowly() -> None:
            postgres(settings, schema=schema).publish("scores", slow(), KEY, RUN, "run_1")

        thread = threading.Thread(target=publish_slowly)
        thread.start()
        try:
            assert middle.wait(60)
            quick = postgres(settings, schema=schema, lock_timeout_seconds=1)
            assert publish(quick, scores("run_2", 5), "run_2") == 5
            assert counts(quick) == {"run_2": 5}
            with pytest.raises(DataError, match=r"lock timeout.*pg_locks"):
                publish(quick, scores("run_1", 5), "run_1")
        finally:
            go_on.set()
            thread.join()
        assert counts(quick) == {"run_2": 5, "run_1": 100}

    def test_a_connection_that_is_cut_publishes_nothing(self, settings: Settings, schema: str) -> None:
        connector = postgres(settings, schema=schema)
        publish(connector, scores("run_1", 5))

        def cut() -> Iterator[pa.RecordBatch]:
            yield from scores("run_1", 100)
            execute(
                settings,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE query LIKE 'COPY \"{schema}\"%' AND pid <> pg_backend_pid()",
            )
            yield from scores("run_1", 200_000, 100, chunk=1_000)

        with pytest.raises(DataError, match=r"scores.*server is up"):
            connector.publish("scores", cut(), KEY, RUN, "run_1")
        assert counts(connector) == {"run_1": 5}

    def test_a_connection_that_is_cut_while_it_is_read_is_told(self, settings: Settings, schema: str) -> None:
        connector = postgres(settings, schema=schema)
        # More than is read ahead, however slow the reader.
        execute(settings, f"CREATE VIEW {schema}.t AS SELECT generate_series(1, 50000000) AS x")
        batches = connector.read("t")
        next(batches)
        execute(
            settings,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f'WHERE query LIKE \'%"{schema}"."t"%\' AND pid <> pg_backend_pid()',
        )
        with pytest.raises(DataError, match=rf"{schema}\.t.*server is up"):
            list(batches)

    def test_a_statement_that_takes_too_long_ends(self, settings: Settings, schema: str) -> None:
        execute(settings, f"CREATE VIEW {schema}.slow AS SELECT 1 AS x FROM pg_sleep(60)")
        connector = postgres(settings, schema=schema, statement_timeout_seconds=0.2)
        with pytest.raises(DataError, match=r"slow.*statement timeout.*statement_timeout_seconds"):
            list(connector.read("slow"))

    def test_who_may_not_read_or_write_is_told(self, settings: Settings, schema: str) -> None:
        execute(settings, f"CREATE ROLE {schema} LOGIN PASSWORD 'canary'")
        try:
            connector = postgres(settings, **named(settings, user=schema, password="canary", schema=schema))
            with pytest.raises(DataError, match=f"may not use the schema '{schema}'"):
                connector.check()
            execute(settings, f"GRANT USAGE ON SCHEMA {schema} TO {schema}")
            connector.check()
            execute(settings, f"CREATE TABLE {schema}.t (x INT)")
            with pytest.raises(DataError, match=rf"{schema}\.t.*permission denied.*grant it to {schema}"):
                connector.schema("t")
            with pytest.raises(DataError, match=rf"{schema}\.scores.*permission denied"):
                publish(connector, scores("run_1"))
        finally:
            execute(settings, f"DROP OWNED BY {schema}")
            execute(settings, f"DROP ROLE {schema}")

    def test_an_address_in_the_configuration_is_used(self, settings: Settings, schema: str) -> None:
        publish(postgres(settings, **named(settings, schema=schema)), scores("run_1"))
        assert counts(postgres(settings, schema=schema)) == {"run_1": 10}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"password": "canary"}, "password authentication failed"),
            ({"port": 9}, "Connection refused"),
            ({"database": "nowhere"}, '"nowhere" does not exist'),
        ],
    )
    def test_a_server_that_does_not_let_us_in_is_told_without_the_password(
        self, settings: Settings, change: dict[str, Any], message: str
    ) -> None:
        connector = postgres(settings, **named(settings, **change))
        for call in (connector.check, lambda: connector.schema("t"), lambda: publish(connector, scores("r"))):
            with pytest.raises(DataError, match=f"127.0.0.1:.*{message}.*password of") as told:
                call()
            assert "canary" not in str(told.value)
            assert address_of(settings.database_url)["password"] not in str(told.value)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"hots": "x"}, "no key 'hots'.*did you mean host"),
            ({"host": "x"}, "names host and no database, user"),
            ({"schema": "no_such_schema"}, "has no schema 'no_such_schema'"),
        ],
    )
    def test_a_wrong_configuration_is_refused(
        self, settings: Settings, config: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            postgres(settings, **config).check()


def named(settings: Settings, **changes: Any) -> dict[str, Any]:
    address = address_of(settings.database_url)
    config = {
        "host": address["host"],
        "port": int(address["port"]),
        "database": address["dbname"],
        "user": address["user"],
        "password": address["password"],
    }
    return {**config, **changes}


class TestAddress:
    def test_parts_are_decoded(self) -> None:
        assert address_of("postgresql+psycopg2://me:p%40ss%2F@db:6432/ware?sslmode=require") == {
            "host": "db",
            "port": "6432",
            "dbname": "ware",
            "user": "me",
            "password": "p@ss/",
            "sslmode": "require",
        }

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:can/ary@db/x",
            "postgresql://me:canary@db:port/x",
            "mysql://me:canary@db/x",
            "canary",
        ],
    )
    def test_a_broken_one_is_refused_without_being_repeated(self, url: str) -> None:
        with pytest.raises(DataError, match="percent-encoded") as told:
            address_of(url)
        assert "can" not in str(told.value).replace("can be", "")


def test_every_kind_is_one_of_ours() -> None:
    assert set(SQL_TYPES) == set(KINDS.column_names)
