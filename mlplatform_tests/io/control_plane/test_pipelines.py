from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dagster._core.definitions.utils import check_valid_name
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from mlplatform.domain.jobs.specs import PipelineSpec
from mlplatform.io.control_plane import events, jobs, pipelines, schedules, tables
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.job_rows import Conflict, NotFound
from mlplatform.io.control_plane.slugs import LONGEST, RESERVED, slug_of


def spec(name: str = "etl", *crons: str, **more: Any) -> PipelineSpec:
    triggers = [{"schedule": {"cron": cron}} for cron in crons]
    stages = [{"name": "a", "commands": ["true"]}]
    return PipelineSpec.model_validate({"name": name, "stages": stages, "triggers": triggers, **more})


def make(database: Database, *given: Any, **more: Any) -> uuid.UUID:
    with database.transaction() as connection:
        return pipelines.create(connection, spec(*given, **more), created_by="ada")["id"]


def one(database: Database, pipeline_id: uuid.UUID) -> Any:
    with database.transaction() as connection:
        return pipelines.get(connection, pipeline_id)


def crons(database: Database) -> list[str]:
    with database.transaction() as connection:
        return sorted(row.cron for row in connection.execute(schedules.view()))


def told(database: Database) -> list[tuple[str, Any]]:
    with database.transaction() as connection:
        found = events.after(connection, 0)
    return [(row["type"], row["data"].get("version")) for row in found if row["type"].startswith("pipeline.")]


@given(st.text(max_size=100))
def test_dagster_takes_every_slug(name: str) -> None:
    slug = slug_of(name, "pipeline")
    assert len(slug) <= LONGEST
    # Two of these part the pipeline from the stage, in the name of an op.
    assert "__" not in slug
    assert not slug.startswith("_")
    assert not slug.endswith("_")
    assert check_valid_name(slug if slug not in RESERVED else f"{slug}_2")


def test_of_each_pipeline_there_ever_was_dagster_knows_another_name(database: Database) -> None:
    first, second = make(database, "ETL"), make(database, "etl")
    with database.transaction() as connection:
        pipelines.delete(connection, second)
    third = make(database, "etl!")
    reserved, nameless, odd = make(database, "input"), make(database, "流水线"), make(database, "etl 2")
    with database.transaction() as connection:
        slugs = dict(connection.execute(select(tables.pipelines.c.id, tables.pipelines.c.slug)).all())  # pyright: ignore[reportArgumentType]
    assert [slugs[id_] for id_ in (first, second, third)] == ["etl", "etl_2", "etl_3"]
    assert [slugs[id_] for id_ in (reserved, nameless, odd)] == ["input_2", "pipeline", "etl_2_2"]


def test_many_may_make_pipelines_of_one_name_at_once(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(database, "etl", "0 0 * * *", "0 12 * * *"), range(16)))
    slugs = {one(database, id_)["slug"] for id_ in made}
    assert slugs == {"etl", *(f"etl_{number}" for number in range(2, 17))}
    assert len(crons(database)) == 32


def test_a_change_is_another_version_and_none_is_none(database: Database) -> None:
    with database.listening(schedules.CHANNEL) as listening:
        id_ = make(database)
        for description in ("other", "other"):
            with database.transaction() as connection:
                pipelines.replace(connection, id_, spec(description=description))
        with database.transaction() as connection:
            pipelines.delete(connection, id_)
        assert len(list(listening.notifies(timeout=0.3))) == 3
    assert told(database) == [("pipeline.created", 1), ("pipeline.updated", 2), ("pipeline.deleted", 2)]
    moves: list[Any] = [
        lambda connection: pipelines.get(connection, id_),
        lambda connection: pipelines.replace(connection, id_, spec()),
        lambda connection: pipelines.delete(connection, id_),
        lambda connection: jobs.create(connection, jobs.NewJob(pipeline_id=id_)),
    ]
    for move in moves:
        with pytest.raises(NotFound, match=re.escape(str(id_))), database.transaction() as connection:
            move(connection)


def test_a_pipeline_s_triggers_are_schedules_that_come_and_go_with_it(database: Database) -> None:
    id_ = make(database, "etl", "0 0 * * *", "0 12 * * *")
    make(database, "other", "5 5 * * *")
    with database.transaction() as connection:
        noon = connection.execute(schedules.view().where(tables.schedules.c.cron == "0 12 * * *")).one()
        schedules.pause(connection, noon.id)
        pipelines.replace(connection, id_, spec("etl", "0 12 * * *", "0 18 * * *"))
    assert crons(database) == ["0 12 * * *", "0 18 * * *", "5 5 * * *"]
    with database.transaction() as connection:
        # What stays is the same one.
        assert schedules.get(connection, noon.id)["paused"]
        pipelines.delete(connection, id_)
    assert crons(database) == ["5 5 * * *"]


def test_a_pipeline_stays_as_long_as_a_job_of_it_has_not_ended(database: Database) -> None:
    id_ = make(database)
    with database.transaction() as connection:
        job = jobs.create(connection, jobs.NewJob(pipeline_id=id_))["id"]
    with pytest.raises(Conflict, match="cancel them first"), database.transaction() as connection:
        pipelines.delete(connection, id_)
    with database.transaction() as connection:
        jobs.cancel(connection, job)
        pipelines.delete(connection, id_)
        assert jobs.get(connection, job)["pipeline_id"] == id_


def test_whoever_deletes_while_another_runs_leaves_no_job_without_its_pipeline(database: Database) -> None:
    def run(id_: uuid.UUID) -> bool:
        try:
            with database.transaction() as connection:
                jobs.create(connection, jobs.NewJob(pipeline_id=id_))
        except NotFound:
            return False
        return True

    def delete(id_: uuid.UUID) -> bool:
        try:
            with database.transaction() as connection:
                pipelines.delete(connection, id_)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for id_ in [make(database) for _ in range(10)]:
            ran, deleted = pool.submit(run, id_), pool.submit(delete, id_)
            assert ran.result() != deleted.result()


def test_two_pipelines_of_yaml_do_not_have_one_name_as_they_would_have_the_same_assets(
    database: Database,
) -> None:
    yaml = PipelineSpec.model_validate({"name": "churn", "yaml": "project: …"})
    make(database, "churn")

    def declare(_: int) -> uuid.UUID | None:
        try:
            with database.transaction() as connection:
                return pipelines.create(connection, yaml)["id"]
        except Conflict:
            return None

    with ThreadPoolExecutor(4) as pool:
        (made,) = filter(None, pool.map(declare, range(4)))
    other = make(database, "other", stages=[], yaml="project: …")
    with pytest.raises(Conflict, match="has the project's name churn"), database.transaction() as connection:
        pipelines.replace(connection, other, yaml)
    with database.transaction() as connection:
        pipelines.delete(connection, made)
        pipelines.replace(connection, other, yaml)
