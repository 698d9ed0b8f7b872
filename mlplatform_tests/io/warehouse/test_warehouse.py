# Schemas are named by the tests themselves.
# ruff: noqa: S608
from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import mlplatform
from mlplatform.io.plugins.data_connectors.postgres import PostgresConnector, address_of
from mlplatform.io.warehouse import LoadedCustomers, WarehouseError, load_telco, migrate
from mlplatform.io.warehouse.schema import VERSION_TABLE
from mlplatform.settings import Settings
from mlplatform_tests.io.plugins.data_connectors_checks import read
from mlplatform_tests.io.racing import race

TELCO = Path(mlplatform.__file__).parent / "defs/churn/data/telco_churn.csv"
NEWEST = "0002"
LOADED = LoadedCustomers(5_671, 1_372, 11)


def execute(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    connected = closing(psycopg2.connect(**address_of(settings.database_url)))
    with connected as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def schema(settings: Settings) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(settings, f"CREATE SCHEMA {name}")
    yield name
    execute(settings, f"DROP SCHEMA {name} CASCADE")


def tables(settings: Settings, schema: str) -> set[str]:
    found = execute(settings, f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")
    return {name for (name,) in found}


def test_the_tables_are_those_of_the_seed(settings: Settings, schema: str) -> None:
    assert migrate(settings.database_url, schema) == NEWEST
    columns = execute(
        settings,
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default "
        f"FROM information_schema.columns WHERE table_schema = '{schema}' AND table_name <> "
        f"'{VERSION_TABLE}' "
        "ORDER BY table_name, ordinal_position",
    )
    text, number, whole = "character varying", "double precision", "integer"
    customer = [
        ("customer_id", text, 20, "NO", None),
        ("tenure", whole, None, "NO", None),
        ("monthly_charges", number, None, "NO", None),
        ("total_charges", number, None, "NO", None),
    ]
    assert columns == [
        ("churn_predictions", "customer_id", text, 20, "YES", None),
        ("churn_predictions", "prediction", whole, None, "YES", None),
        ("churn_predictions", "prediction_probability", number, None, "YES", None),
        ("churn_predictions", "execution_date", "timestamp without time zone", None, "YES", "now()"),
        ("churn_predictions", "model_run_id", text, 100, "YES", None),
        ("churn_predictions", "serving_run_id", text, 100, "YES", None),
        *[("customers", *column) for column in customer],
        ("customers", "churned", whole, None, "NO", None),
        *[("customers_to_score", *column) for column in customer],
    ]
    with pytest.raises(psycopg2.errors.CheckViolation):
        execute(settings, f"INSERT INTO {schema}.customers VALUES ('x', 1, 1, 1, 2)")
    score = f"INSERT INTO {schema}.churn_predictions (customer_id, serving_run_id) VALUES ('x', 'run_1')"
    execute(settings, score)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        execute(settings, score)


def test_migrating_again_changes_nothing(settings: Settings, schema: str) -> None:
    migrate(settings.database_url, schema)
    load_telco(settings.database_url, TELCO, schema)
    assert migrate(settings.database_url, schema) == NEWEST
    assert execute(settings, f"SELECT count(*) FROM {schema}.customers") == [(LOADED.customers,)]


def test_several_may_migrate_and_load_at_once(settings: Settings, schema: str) -> None:
    assert race(4, lambda _: migrate(settings.database_url, schema)) == [NEWEST] * 4
    answers = race(4, lambda _: load_telco(settings.database_url, TELCO, schema))
    assert sorted(answers, key=lambda each: each.loaded) == [
        *[LoadedCustomers(LOADED.customers, LOADED.customers_to_score, 0, False)] * 3,
        LOADED,
    ]


def test_other_schemas_are_left_alone(settings: Settings, schema: str) -> None:
    before = tables(settings, "public")
    migrate(settings.database_url, schema)
    assert tables(settings, "public") == before
    assert tables(settings, schema) == {"customers", "customers_to_score", "churn_predictions", VERSION_TABLE}


def test_tables_that_were_made_by_hand_stay(settings: Settings, schema: str) -> None:
    execute(
        settings,
        f"CREATE TABLE {schema}.churn_predictions (customer_id VARCHAR(20), serving_run_id VARCHAR(100)); "
        f"INSERT INTO {schema}.churn_predictions VALUES ('x', 'run_1')",
    )
    migrate(settings.database_url, schema)
    assert execute(settings, f"SELECT * FROM {schema}.churn_predictions") == [("x", "run_1")]


def test_doubled_scores_are_told_and_nothing_is_changed(settings: Settings, schema: str) -> None:
    execute(
        settings,
        f"CREATE TABLE {schema}.churn_predictions (customer_id VARCHAR(20), serving_run_id VARCHAR(100)); "
        f"INSERT INTO {schema}.churn_predictions VALUES ('x', 'run_1'), ('x', 'run_1')",
    )
    with pytest.raises(WarehouseError, match=r"could not create unique index.*nothing was changed"):
        migrate(settings.database_url, schema)
    assert tables(settings, schema) == {"churn_predictions"}


def test_tables_of_a_newer_release_are_refused(settings: Settings, schema: str) -> None:
    migrate(settings.database_url, schema)
    execute(settings, f"UPDATE {schema}.{VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(WarehouseError, match=r"revision that this release does not know.*9999"):
        migrate(settings.database_url, schema)


def test_migrating_is_silent(
    settings: Settings, schema: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        migrate(settings.database_url, schema)
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("alembic.runtime.migration").filters == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:canary@127.0.0.1:9/ware", r"me:\*\*\*@127.0.0.1:9/ware.*refused"),
        ("canary", "address is not postgresql://"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_the_password(url: str, message: str) -> None:
    with pytest.raises(WarehouseError, match=message) as told:
        migrate(url)
    assert "canary" not in str(told.value)


def test_a_missing_schema_is_named(settings: Settings) -> None:
    with pytest.raises(WarehouseError, match="no schema 'nowhere'"):
        migrate(settings.database_url, "nowhere")


def test_every_customer_is_loaded_into_one_of_the_tables(settings: Settings, schema: str) -> None:
    migrate(settings.database_url, schema)
    assert load_telco(settings.database_url, TELCO, schema) == LOADED
    connector = PostgresConnector({"schema": schema}, settings, Path())
    labelled, others = (read(connector, table) for table in ("customers", "customers_to_score"))
    ids = [*labelled["customer_id"].to_pylist(), *others["customer_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 7_043
    assert others.column_names == ["customer_id", "tenure", "monthly_charges", "total_charges"]
    assert sum(labelled["churned"].to_pylist()) / labelled.num_rows == pytest.approx(0.265, abs=0.01)
    zeros = [row for table in (labelled, others) for row in table.to_pylist() if row["total_charges"] == 0]
    assert len(zeros) == 11
    assert {row["tenure"] for row in zeros} == {0}


def test_loading_without_tables_is_told(settings: Settings, schema: str) -> None:
    with pytest.raises(WarehouseError, match=r"does not exist.*run `migrate` first"):
        load_telco(settings.database_url, TELCO, schema)


def test_a_file_that_is_no_customers_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"telco\.csv cannot be read"):
        load_telco(settings.database_url, tmp_path / "telco.csv")
    (tmp_path / "telco.csv").write_text("customer_id,tenure\n")
    with pytest.raises(WarehouseError, match=r"telco\.csv:1 does not name the columns monthly_charges"):
        load_telco(settings.database_url, tmp_path / "telco.csv")
