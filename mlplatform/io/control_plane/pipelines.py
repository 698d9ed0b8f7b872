"""Pipelines: kept, changed and taken away. Dagster is shown them whenever one of these happens."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, exists, func, insert, select, update

from mlplatform.domain.jobs.specs import PipelineSpec
from mlplatform.domain.jobs.states import TERMINAL
from mlplatform.io.control_plane import events, schedules, slugs, tables
from mlplatform.io.control_plane.database import notify
from mlplatform.io.control_plane.job_rows import Conflict, NotFound
from mlplatform.io.control_plane.schedules import CHANNEL

_pipelines, _jobs = tables.pipelines, tables.jobs


def view() -> Select[Any]:
    """Those that are not deleted."""
    return select(_pipelines).where(_pipelines.c.deleted_at.is_(None))


def create(
    connection: Connection, spec: PipelineSpec, crons: Sequence[str] | None = None, created_by: str = ""
) -> RowMapping:
    """
    Args:
        crons: when it is run by itself, in UTC; None: as its triggers say.

    Raises:
        Conflict: it is YAML, and there is one of its name, which its assets have too.
    """
    id_ = uuid.uuid4()
    slug = slugs.take(connection, _pipelines, slugs.slug_of(spec.name, "pipeline"))
    _be_the_only_one(connection, spec, id_)
    values = {"id": id_, "name": spec.name, "slug": slug, "spec": _json(spec), "created_by": created_by}
    connection.execute(insert(_pipelines).values(values))
    row = get(connection, id_)
    _keep_schedules(connection, row, spec.crons if crons is None else crons)
    _tell(connection, row, "created")
    return row


def get(connection: Connection, pipeline_id: uuid.UUID) -> RowMapping:
    """
    Raises:
        NotFound: there is no such pipeline, or no more.
    """
    found = connection.execute(view().where(_pipelines.c.id == pipeline_id)).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no pipeline {pipeline_id}")
    return found


def replace(
    connection: Connection,
    pipeline_id: uuid.UUID,
    spec: PipelineSpec,
    crons: Sequence[str] | None = None,
) -> RowMapping:
    """Its next version. Jobs that were made before go on with what they were made of.

    Raises:
        NotFound: there is no such pipeline, or no more.
        Conflict: as of `create`.
    """
    # What runs schedules locks them before their pipelines.
    schedules.declared_of(connection, pipeline_id)
    before = _locked(connection, pipeline_id)
    if before["spec"] == _json(spec):
        return before
    slugs.lock(connection, _pipelines)
    _be_the_only_one(connection, spec, pipeline_id)
    connection.execute(
        update(_pipelines)
        .where(_pipelines.c.id == pipeline_id)
        .values(
            name=spec.name,
            spec=_json(spec),
            version=_pipelines.c.version + 1,
            updated_at=func.clock_timestamp(),
        )
    )
    row = get(connection, pipeline_id)
    _keep_schedules(connection, row, spec.crons if crons is None else crons)
    _tell(connection, row, "updated")
    return row


def delete(connection: Connection, pipeline_id: uuid.UUID) -> None:
    """Takes it away, with its schedules; the jobs that it had stay.

    Raises:
        NotFound: there is no such pipeline, or no more.
        Conflict: a job of it has not ended.
    """
    row = _locked(connection, pipeline_id)
    active = select(_jobs.c.id).where(_jobs.c.pipeline_id == pipeline_id, _jobs.c.status.not_in(TERMINAL))
    if connection.scalar(select(exists(active))):
        raise Conflict(f"jobs of pipeline {pipeline_id} have not ended: cancel them first")
    connection.execute(
        update(_pipelines)
        .where(_pipelines.c.id == pipeline_id)
        .values(deleted_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
    )
    _tell(connection, row, "deleted")


def _locked(connection: Connection, pipeline_id: uuid.UUID) -> RowMapping:
    query = view().where(_pipelines.c.id == pipeline_id).with_for_update()
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no pipeline {pipeline_id}")
    return found


def _be_the_only_one(connection: Connection, spec: PipelineSpec, pipeline_id: uuid.UUID) -> None:
    if spec.yaml is None:
        return
    others = view().where(
        _pipelines.c.name == spec.name,
        _pipelines.c.spec["yaml"].astext.is_not(None),
        _pipelines.c.id != pipeline_id,
    )
    if other := connection.execute(others).first():
        raise Conflict(
            f"pipeline {other.id} has the project's name {spec.name}: change that one, or the name"
        )


def _keep_schedules(connection: Connection, row: RowMapping, crons: Sequence[str]) -> None:
    """Makes those schedules that the pipeline asks for now, and removes those that it asks for no more."""
    there = {schedule.cron: schedule.id for schedule in schedules.declared_of(connection, row["id"])}
    # Those that are new first: they wait for locks, which nobody may who has written an event.
    for cron in crons:
        if cron not in there:
            new = schedules.NewSchedule(
                name=row["name"],
                pipeline_id=row["id"],
                cron=cron,
                declared=True,
                created_by=row["created_by"],
            )
            schedules.create(connection, new)
    for cron, schedule_id in there.items():
        if cron not in crons:
            schedules.delete(connection, schedule_id)


def _tell(connection: Connection, row: RowMapping, what: str) -> None:
    data = {"pipeline_id": str(row["id"]), "slug": row["slug"], "version": row["version"]}
    events.write(connection, f"pipeline.{what}", data)
    notify(connection, CHANNEL)


def _json(spec: PipelineSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")
