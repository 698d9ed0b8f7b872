from __future__ import annotations

import uuid
from typing import Any

import pytest

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.io.control_plane import schedules
from mlplatform.io.control_plane.dagster_graphql import DagsterRefused, DagsterUnreachable, Schedule
from mlplatform.io.control_plane.database import Database
from mlplatform.services.control_plane.duties import Duty
from mlplatform.services.control_plane.reloading import Reloader
from mlplatform_tests.local.processes import eventually


class Dagster:
    """Notes what it was asked for; the real one is met in the faults and the end-to-end tests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: str | None = None
        self.away = False
        self.running: set[str] = set()
        self.unknown: set[str] = set()

    def reload(self) -> str | None:
        if self.away:
            raise DagsterUnreachable("away")
        self.asked.append("reload")
        return self.broken

    def schedules(self) -> list[Schedule]:
        return [Schedule(name, "* * * * *", True) for name in self.running]

    def start_schedule(self, name: str) -> None:
        if name in self.unknown:
            raise DagsterRefused(f"no schedule {name}")
        self.asked.append(f"start {name}")

    def stop_schedule(self, name: str) -> None:
        self.asked.append(f"stop {name}")

    def taken(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def dagster() -> Dagster:
    return Dagster()


@pytest.fixture
def reloader(database: Database, dagster: Any) -> Reloader:
    return Reloader(database, dagster)


def schedule(database: Database, name: str) -> uuid.UUID:
    spec = JobSpec(name=name, command=["true"])
    with database.transaction() as connection:
        return schedules.create(connection, schedules.NewSchedule(name=name, spec=spec, cron="0 3 * * *"))[
            "id"
        ]


def test_dagster_reloads_what_has_changed_and_nothing_else(
    database: Database, reloader: Reloader, dagster: Dagster
) -> None:
    reloader.round()
    assert dagster.taken() == ["reload"]
    reloader.round()
    assert dagster.taken() == []
    first = schedule(database, "first")
    reloader.round()
    assert dagster.taken() == ["reload", "start first_schedule"]
    with database.transaction() as connection:
        schedules.pause(connection, first)
    reloader.round()
    assert dagster.taken() == ["stop first_schedule", "reload"]
    with database.transaction() as connection:
        schedules.resume(connection, first)
    reloader.round()
    assert dagster.taken() == ["reload", "start first_schedule"]


def test_who_begins_to_lead_leaves_alone_what_runs(
    database: Database, reloader: Reloader, dagster: Dagster
) -> None:
    schedule(database, "running")
    schedule(database, "new")
    dagster.running = {"running_schedule"}
    reloader.round()
    assert dagster.taken() == ["reload", "start new_schedule"]


def test_who_leads_again_begins_anew_what_another_has_stopped_meanwhile(
    database: Database, reloader: Reloader, dagster: Dagster
) -> None:
    first = schedule(database, "first")
    duty = Duty("reloading", database, reloader.round, [], begin=reloader.forget)
    reloader.round()
    assert dagster.taken() == ["reload", "start first_schedule"]
    # The other one has told Dagster of this; it is gone before it tells of what follows.
    with database.transaction() as connection:
        schedules.pause(connection, first)
        schedules.resume(connection, first)
    duty.start()
    try:
        assert eventually(lambda: len(dagster.asked) == 2, 5)
    finally:
        duty.stop()
        duty.join()
    assert dagster.taken() == ["reload", "start first_schedule"]


def test_what_cannot_be_loaded_is_not_tried_every_second_and_not_forgotten(
    database: Database, reloader: Reloader, dagster: Dagster
) -> None:
    dagster.broken = "the file is wrong"
    for _ in range(3):
        with pytest.raises(DagsterRefused, match="the file is wrong"):
            reloader.round()
    assert dagster.taken() == ["reload"]
    dagster.broken = None
    schedule(database, "first")
    reloader.round()
    assert dagster.taken() == ["reload", "start first_schedule"]


def test_dagster_is_asked_again_as_soon_as_it_is_back(reloader: Reloader, dagster: Dagster) -> None:
    dagster.away = True
    with pytest.raises(DagsterUnreachable):
        reloader.round()
    dagster.away = False
    reloader.round()
    assert dagster.taken() == ["reload"]


def test_a_schedule_that_is_not_shown_holds_up_no_other(
    database: Database, reloader: Reloader, dagster: Dagster
) -> None:
    schedule(database, "wrong")
    schedule(database, "right")
    dagster.unknown = {"wrong_schedule"}
    reloader.round()
    reloader.round()
    assert dagster.taken() == ["reload", "start right_schedule"]
