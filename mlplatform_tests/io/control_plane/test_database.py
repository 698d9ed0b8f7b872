from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import OperationalError
from sqlalchemy import text

from mlplatform.io.control_plane.database import Database, DatabaseRefused, DatabaseUnreachable, notify
from mlplatform.io.control_plane.tables import METADATA
from mlplatform.io.migrations import MigrationError, quoted
from mlplatform_tests.local.processes import eventually


def test_the_migrations_make_the_tables_that_the_code_knows(database: Database) -> None:
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _ours, "compare_type": True})
        assert compare_metadata(context, METADATA) == []


def _ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or not str(name).startswith(("procrastinate_", "control_plane_version"))


def test_several_processes_may_migrate_at_once(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"DROP SCHEMA {quoted(database.schema)} CASCADE"))
    with ThreadPoolExecutor(6) as pool:
        for migrated in [pool.submit(database.migrate) for _ in range(6)]:
            migrated.result()
    with database.transaction() as connection:
        assert connection.scalars(text("SELECT version_num FROM control_plane_version")).all() == ["0001"]


def test_tables_of_a_newer_release_are_left_alone(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("UPDATE control_plane_version SET version_num = '9999'"))
    with pytest.raises(MigrationError, match=r"revision that this release does not know.*9999"):
        database.migrate()


def test_the_server_finds_out_soon_that_a_client_is_gone(database: Database) -> None:
    with database.leading("anything") as leader:
        assert leader is not None
        [idle] = leader.execute("SHOW tcp_keepalives_idle").fetchone() or ()
    assert idle == "10"


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    def count() -> int:
        with database.transaction() as connection:
            return connection.scalar(text("SELECT count(*) FROM workers")) or 0

    insert = text("INSERT INTO workers (id, name, status) VALUES (gen_random_uuid(), 'a', 'Available')")

    def failing() -> None:
        with database.transaction() as connection:
            connection.execute(insert)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert count() == 0
    with database.transaction() as connection:
        connection.execute(insert)
    assert count() == 1


def test_what_is_wrong_is_said_without_the_password(database: Database) -> None:
    refusal = pytest.raises(DatabaseRefused, match='relation "nothing" does not exist')
    with refusal as refused, database.transaction() as connection:
        connection.execute(text("SELECT * FROM nothing"))
    assert "canary" not in str(refused.value)
    for url, error in (
        ("postgresql://me:canary@127.0.0.1:1/there", DatabaseUnreachable),
        ("canary", DatabaseRefused),
    ):
        with pytest.raises(error) as told, Database(url).transaction():
            pass
        assert "canary" not in str(told.value)


def test_notifications_come_when_the_transaction_is_kept_and_to_this_schema_only(database: Database) -> None:
    def failing() -> None:
        with database.transaction() as connection:
            notify(connection, "events", "not kept")
            raise KeyError

    other = Database(database._url.render_as_string(hide_password=False), schema=f"{database.schema}_other")
    with database.listening("events") as listening:
        with database.transaction() as connection:
            notify(connection, "events", "kept")
        with pytest.raises(KeyError):
            failing()
        other.migrate()
        with other.transaction() as connection:
            notify(connection, "events", "of another schema")
            connection.execute(text(f"DROP SCHEMA {quoted(other.schema)} CASCADE"))
        other.close()
        heard = [notification.payload for notification in listening.notifies(timeout=0.5)]
    assert heard == ["kept"]


def test_one_leads_until_its_connection_is_lost(database: Database) -> None:
    with database.leading("placing") as first, database.leading("placing") as second:
        assert first is not None
        assert second is None
        with database.leading("delivering") as other_duty:
            assert other_duty is not None
        with database.transaction() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(:process, 5000)"), {"process": first.info.backend_pid}
            )
        with database.leading("placing") as third:
            assert third is not None
        with pytest.raises(DatabaseUnreachable), database._translated():
            first.execute("SELECT 1")


def test_who_leads_and_says_nothing_leads_no_longer(database: Database) -> None:
    with database.leading("placing", silent_seconds=0.3) as stopped:
        assert stopped is not None
        assert eventually(lambda: leads(database))
        # It wakes up, and learns that it was replaced.
        with pytest.raises(OperationalError):
            stopped.execute("SELECT 1")


def leads(database: Database) -> bool:
    with database.leading("placing") as connection:
        return connection is not None
